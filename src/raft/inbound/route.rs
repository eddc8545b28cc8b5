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
use crate::raft::election::{LeaderBoard, Voter};
use crate::raft::types::StatusBoard;
use crate::types::{EntryData, Term};

/// openraft behind the messages of peers.
pub(crate) struct RaftInbound {
    pub(crate) appends: Appends,
    pub(crate) voter: Voter,
    pub(crate) installs: Installs,
    pub(crate) board: LeaderBoard,
    pub(crate) status: StatusBoard,
}

impl Inbound for RaftInbound {
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
        self.appends.receiving(from, term);
    }

    fn higher_term(&self, term: Term) {
        self.voter.learn(term);
    }

    fn term(&self) -> Term {
        self.status.term()
    }

    fn connected(&self, from: &Sender, number: u64) {
        self.board.connected(from, number);
    }

    fn disconnected(&self, from: &Sender, number: u64) {
        self.board.disconnected(from, number);
    }
}
