//! Which message of a peer goes where.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::appends::Appends;
use super::snapshots::Installs;
use crate::peers::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, RequestVote, RequestVoteResult, TimeoutNow,
};
use crate::peers::{Caller, Inbound, Refusal, Sender};
use crate::raft::apply::leading_term;
use crate::raft::election::{Claim, LeaderBoard, Terms, Voter};
use crate::raft::log::LogView;
use crate::types::{EntryData, NodeId, Term};

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
        if self.follows(from, term) && Terms::of(&self.log).compare(term) == Claim::Own {
            // openraft has heard of whoever is followed, and times nothing.
            self.board.heard(from, term, self.log.configuration().0.is_voter(from.id));
        }
    }

    fn answered(&self, from: &Sender, term: Term) {
        self.voter.answered(from, term);
    }

    fn caller(&self, peer: &Sender) -> Caller {
        let configuration = self.log.configuration().0;
        match configuration.get(peer.id) {
            Some(server) => Caller::Member { has_address: server.address == peer.address },
            None => Caller::Stranger,
        }
    }

    fn follows(&self, peer: &Sender, term: Term) -> bool {
        self.board.follows(peer.id, term)
    }

    fn leads(&self, member: NodeId) -> Option<(Term, Bytes)> {
        let term = leading_term(&self.voter.raft, self.voter.id)?;
        let configuration = self.log.configuration().0;
        let server = configuration.get(member)?;
        Some((term, Bytes::copy_from_slice(&server.address)))
    }

    fn connected(&self, from: &Sender, number: u64) {
        self.board.connected(from, number);
    }

    fn disconnected(&self, from: &Sender, number: u64) {
        self.board.disconnected(from, number);
    }
}
