//! A change of the members or of the leader, as whoever asks for it sees it: a task of consensus with an outcome.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::scope::Scope;
use crate::types::NodeId;

/// How often a task that changes something looks whether others have come as far as it needs.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a change was not made, or not surely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead, or is handing leadership over.
    #[error("this node is not the leader")]
    NotLeader,
    /// Another change is under way.
    #[error("a configuration change is already in progress")]
    InProgress,
    /// Its entry is in the log, but not committed in time: the change may still be made.
    #[error("the configuration change is not committed yet")]
    NotCommittedYet,
    /// Leadership was lost meanwhile: the change may have been made.
    #[error("leadership was lost")]
    LeadershipLost,
    /// The node to be promoted cannot be reached or does not catch up.
    #[error("node {0} does not catch up")]
    NoConnection(NodeId),
    /// No member has this id.
    #[error("node {0} is not a member")]
    NotFound(NodeId),
    /// Id or address are taken.
    #[error("{0}")]
    Duplicate(String),
    /// The member has this role already, or nobody would vote.
    #[error("{0}")]
    NotAllowed(String),
    /// The chosen node did not take over in time.
    #[error("leadership was not taken over")]
    TransferFailed,
    /// Consensus has stopped.
    #[error("{0}")]
    Stopped(String),
}

/// The outcome of a change that is under way, or was refused at once. It may be dropped: the change goes on.
#[derive(Debug)]
pub struct Change(oneshot::Receiver<Result<(), ChangeError>>);

impl Future for Change {
    type Output = Result<(), ChangeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let stopped = || ChangeError::Stopped("consensus has stopped".to_owned());
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or_else(|_| Err(stopped())))
    }
}

impl Change {
    /// Starts a change in a task that holds `turn` until it has ended; the node's stop ends it, too.
    pub(crate) fn begin<T>(
        scope: &Scope,
        turn: Result<T, ChangeError>,
        change: impl Future<Output = Result<(), ChangeError>> + Send + 'static,
    ) -> Change
    where
        T: Send + 'static,
    {
        let (sender, outcome) = oneshot::channel();
        // In both cases nobody may wait for the outcome any more.
        match turn {
            Err(refused) => drop(sender.send(Err(refused))),
            Ok(turn) => scope.spawn_until_stopped(async move {
                let changed = change.await;
                drop(turn);
                drop(sender.send(changed));
            }),
        }
        Change(outcome)
    }
}
