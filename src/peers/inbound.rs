//! What raft does with the messages of peers. spec: raft-wire 5, 6.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, RequestVote, RequestVoteResult, TimeoutNow,
};
use crate::types::{EntryData, NodeId, Term};

/// Who made a connection, as it said in CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its id.
    pub id: NodeId,
    /// Where answers go.
    pub address: Bytes,
}

/// Who a peer is, by what it said. Nothing here is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A member of the configuration has its id.
    Member {
        /// And its address. Another one may be a name in place of a number, or another spelling.
        has_address: bool,
    },
    /// Nobody of the configuration.
    Stranger,
}

/// A message that no correct peer sends: the connection is closed, nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// What raft does with the messages of peers. Every call takes its message before it returns, so that the order of the
/// calls is the order of the messages; the answer comes later, none if there is nothing to say.
pub trait Inbound: Send + Sync {
    /// Asked for every message before anything else is done with it.
    ///
    /// # Errors
    /// Its term is one that no peer can be in.
    fn admit(&self, term: Term, is_answer: bool) -> Result<(), Refusal>;

    /// Entries or a heartbeat of a leader; the payload of each entry.
    fn append(
        &self,
        from: &Sender,
        message: AppendEntries,
        payloads: Vec<EntryData>,
    ) -> BoxFuture<'static, Result<Option<AppendEntriesResult>, Refusal>>;

    /// A candidate.
    fn request_vote(
        &self,
        from: &Sender,
        message: RequestVote,
    ) -> BoxFuture<'static, Option<RequestVoteResult>>;

    /// A leader that gives up.
    fn timeout_now(&self, from: &Sender, message: TimeoutNow);

    /// A snapshot, whose content comes piece by piece; the stream ends early if the connection does.
    fn install_snapshot(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        content: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResult>>;

    /// A leader of `term` is still sending a snapshot, and not in drips.
    fn receiving(&self, from: &Sender, term: Term);

    /// An append was answered in this term.
    fn answered(&self, from: &Sender, term: Term);

    /// Who this is, by the configuration.
    fn caller(&self, peer: &Sender) -> Caller;

    /// Whether this is the leader of this term, whom this node follows.
    fn follows(&self, peer: &Sender, term: Term) -> bool;

    /// The term in which this node leads this member, and where the member is.
    fn leads(&self, member: NodeId) -> Option<(Term, Bytes)>;

    /// A peer connected; `number` only grows.
    fn connected(&self, from: &Sender, number: u64);

    /// The connection has ended.
    fn disconnected(&self, from: &Sender, number: u64);
}
