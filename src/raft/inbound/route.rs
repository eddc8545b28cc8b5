//! Which message of a peer goes where.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::appends::Appends;
use super::snapshots::Installs;
use crate::peers::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, RequestVote, RequestVoteResult, TimeoutNow,
};
use crate::peers::{Inbound, Refusal, Sender};
use crate::raft::election::{Claim, LeaderBoard, Terms, Voter};
use crate::raft::log::LogView;
use crate::types::{EntryData, Term};

/// openraft behind the messages of peers.
pub(crate) struct RaftInbound {
    pub(crate) appends: Appends,
    pub(crate) voter: Voter,
    pub(crate) installs: Installs,
    pub(crate) board: LeaderBoard,
    pub(crate) log: LogView,
}

impl Inbound for RaftInbound {
    fn admit(&self, term: Term, is_answer: bool) -> Result<(), Refusal> {
        Terms::of(&self.log).admit(term, is_answer).map(drop).map_err(|error| Refusal(error.to_string()))
    }

    fn append(
        &self,
        from: &Sender,
        message: AppendEntries,
        payloads: Vec<EntryData>,
    ) -> BoxFuture<'static, Result<Option<AppendEntriesResult>, Refusal>> {
        self.appends.append(from, message, payloads)
    }

    fn request_vote(
        &self,
        from: &Sender,
        message: RequestVote,
    ) -> BoxFuture<'static, Option<RequestVoteResult>> {
        self.voter.answer(from, message)
    }

    fn timeout_now(&self, from: &Sender, message: TimeoutNow) {
        self.voter.timeout_now(from, message);
    }

    fn install_snapshot(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        content: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResult>> {
        self.installs.install(from, message, content)
    }

    fn receiving(&self, from: &Sender, term: Term) {
        if Terms::of(&self.log).compare(term) != Claim::Past {
            self.appends.receiving(from, term);
        }
    }

    fn answered(&self, from: &Sender, term: Term) {
        self.voter.answered(from, term);
    }

    fn is_member(&self, peer: &Sender) -> bool {
        let configuration = self.log.configuration().0;
        configuration.get(peer.id).is_some_and(|server| server.address == peer.address)
    }

    fn connected(&self, from: &Sender, number: u64) {
        self.board.connected(from, number);
    }

    fn disconnected(&self, from: &Sender, number: u64) {
        self.board.disconnected(from, number);
    }
}
