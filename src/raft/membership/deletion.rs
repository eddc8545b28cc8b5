//! Whether a database may be deleted here, and how a node that joins later is kept from the entry that did it.
//!
//! Upstream before 1.18.3 misreads that entry: it keeps the old pages and can take no snapshot. No message tells a node's
//! version, so the entry must reach no node that might be one of those, unless the host vouches for all of them:
//! - It is only made while this node is the only member. The permit holds the turn of configuration changes, so nobody is
//!   added between the commit and its proposal. It is short: the statement before it only looks.
//! - A member that is added is a spare, which gets no entries. Before it gets a role that does, every proposal given out is
//!   in the log, and whatever deletes a database is behind a snapshot and out of the log: the node gets the snapshot.
//!
//! spec: state-machine 4.9.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::turn::{ChangeTurn, Turn};
use crate::raft::apply::{Applied, Consensus};
use crate::raft::log::LogView;
use crate::raft::propose::ProposalQueue;
use crate::raft::snapshot::Snapshots;
use crate::raft::types::{ChangeError, LOOK_AGAIN, StatusBoard, raft_index};
use crate::types::config::DELETIONS_BEHIND_MAX;
use crate::types::{LogIndex, NodeId};

/// Why no database may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeletionRefused {
    /// A member may be too old, and nobody can tell.
    #[error("the cluster has other members")]
    OtherMembers,
    /// A member may be about to be added, or another deletion is under way.
    #[error("a configuration change or another deletion is in progress")]
    InProgress,
}

/// While it is held, this node stays the only member; nothing is held if the host vouches for all members.
#[derive(Debug)]
pub struct DeletionPermit {
    _turn: Option<Turn>,
}

/// Permits deletions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deletions {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) queue: Arc<ProposalQueue>,
    pub(crate) snapshots: Snapshots,
    pub(crate) turn: ChangeTurn,
    /// Whether the host vouches for all members.
    pub(crate) always: Arc<AtomicBool>,
}

impl Deletions {
    /// Whether the host vouches that every node that is or becomes a member understands deletions.
    pub(crate) fn set_always(&self, always: bool) {
        self.always.store(always, Ordering::Relaxed);
    }

    /// Whether the cluster has no member but this node.
    pub(crate) fn is_only_member(&self) -> bool {
        self.log.configuration().0.servers().iter().all(|server| server.id == self.id)
    }

    /// Whether a database may be deleted, as far as members decide it. A change that is under way is not looked at.
    ///
    /// # Errors
    /// There are other members.
    pub(crate) fn check(&self) -> Result<(), DeletionRefused> {
        let allowed = self.always.load(Ordering::Relaxed) || self.is_only_member();
        if allowed { Ok(()) } else { Err(DeletionRefused::OtherMembers) }
    }

    /// Permits to propose the deletion of a database. To be held until it is proposed or given up.
    ///
    /// # Errors
    /// `DeletionRefused`.
    pub(crate) fn permit(&self) -> Result<DeletionPermit, DeletionRefused> {
        self.check()?;
        if self.always.load(Ordering::Relaxed) {
            return Ok(DeletionPermit { _turn: None });
        }
        let turn = self.turn.take().ok_or(DeletionRefused::InProgress)?;
        // Somebody may have been added before the turn was taken.
        if !self.is_only_member() {
            return Err(DeletionRefused::OtherMembers);
        }
        Ok(DeletionPermit { _turn: Some(turn) })
    }

    /// Returns when no entry that deletes a database can reach a member that gets its first entries. To be called with the
    /// turn of configuration changes and before the change.
    ///
    /// # Errors
    /// Leadership is lost, or no snapshot takes the place of those entries in time.
    pub(super) async fn leave_behind(&self) -> Result<(), ChangeError> {
        if self.always.load(Ordering::Relaxed) {
            return Ok(());
        }
        match timeout(DELETIONS_BEHIND_MAX, self.until_behind()).await {
            Ok(behind) => behind,
            Err(_) => {
                warn!("entries that delete a database cannot be left behind: the node gets no role yet");
                Err(ChangeError::NotAllowed("entries that delete a database are still in the log".to_owned()))
            }
        }
    }

    async fn until_behind(&self) -> Result<(), ChangeError> {
        let Some(serving) = self.status.serving() else { return Err(ChangeError::LeadershipLost) };
        let given_out = self.queue.last_given_out();
        let mut asked_at = LogIndex::NONE;
        loop {
            if self.status.serving() != Some(serving) {
                return Err(ChangeError::LeadershipLost);
            }
            if *self.log.appended().borrow() >= given_out {
                let Some(at) = self.log.last_deletion() else { return Ok(()) };
                let covered = self.snapshots.current().map_or(LogIndex::NONE, |now| now.position.index);
                let stopped = |_| ChangeError::Stopped("consensus has stopped".to_owned());
                if covered >= at {
                    if let Some(upto) = raft_index(at) {
                        self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
                    }
                } else if self.applied.borrow().index >= at && asked_at < at {
                    // One that fails is asked for again by the next who wants the role.
                    asked_at = at;
                    info!(index = at.0, "a snapshot takes the place of a deletion");
                    self.raft.trigger().snapshot().await.map_err(stopped)?;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
