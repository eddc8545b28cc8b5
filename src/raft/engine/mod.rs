//! The node's consensus as the other layers see it; openraft stays behind it. Usable from any thread and runtime.
//! openraft's random numbers follow from the seed of the scope that every task here runs in.

#[cfg(test)]
mod engine_tests;
mod options;
#[cfg(test)]
mod peer_tests;
mod start;
#[cfg(test)]
mod stranger_tests;
#[cfg(test)]
mod wire_tests;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use options::{EngineError, EngineOptions};

use crate::peers::Peers;
use crate::raft::apply::{Applied, Consensus, committed};
use crate::raft::election::{Standing, Times, Transfer};
use crate::raft::log::LogView;
use crate::raft::membership::{Changes, DeletionPermit, DeletionRefused, Deletions};
use crate::raft::propose::{EpochEnd, ProposalQueue, Proposed, Refused};
use crate::raft::rounds::{Proof, Reads};
use crate::raft::snapshot::{SnapshotPolicy, Snapshots};
use crate::raft::types::{Change, Runtime, Serving, Status, StatusBoard};
use crate::types::{Configuration, LogIndex, NodeId, ProposalToken, Role, Term};

/// The members by the last configuration in the log, committed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentConfiguration {
    /// All servers, spares included.
    pub configuration: Arc<Configuration>,
    /// Index of its entry.
    pub index: LogIndex,
    /// Index up to which entries are known to be committed.
    pub committed: LogIndex,
}

/// Consensus of one node. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    id: NodeId,
    raft: Consensus,
    log: LogView,
    applied: watch::Receiver<Applied>,
    status: StatusBoard,
    queue: Arc<ProposalQueue>,
    epochs: EpochEnd,
    snapshots: Snapshots,
    peers: Peers,
    reads: Reads,
    transfer: Arc<Transfer>,
    changes: Arc<Changes>,
    deletions: Arc<Deletions>,
    standing: Standing,
    times: Times,
    stopping: CancellationToken,
}

impl Engine {
    /// Starts consensus. When it returns, a node that is the only voter leads and has applied its whole log, unless terms have
    /// come to their end.
    ///
    /// # Errors
    /// The log or the snapshot cannot be used, or openraft fails.
    pub async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        let seed = options.random.next_u64();
        let consensus = options.consensus.clone();
        let started = consensus.spawn(Runtime::scope(seed, start::start(options)));
        started.await.map_err(|error| EngineError::Consensus(error.to_string()))?
    }

    /// The status, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.watch()
    }

    /// Queues a command of `epoch`; `assign` hears of its place before anything can happen to it and may refuse. Its place is given out at once. The caller bounds what is in flight.
    ///
    /// # Errors
    /// The epoch is not the current one: surely nothing of the command reached the log.
    pub fn propose(
        &self,
        epoch: u64,
        proposal: Proposed,
        assign: impl FnOnce(ProposalToken) -> bool,
    ) -> Result<ProposalToken, Refused> {
        self.queue.propose(epoch, proposal, assign)
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The last configuration in the log, and how far the log is committed.
    #[must_use]
    pub fn configuration(&self) -> CurrentConfiguration {
        let (configuration, index) = self.log.configuration();
        let committed = committed(&self.raft).max(self.last_applied());
        CurrentConfiguration { configuration, index, committed }
    }

    /// Connections that other nodes made go here, and requests of this one to them.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Set while this node leads and takes proposals.
    #[must_use]
    pub fn serving(&self) -> Option<Serving> {
        self.status.serving()
    }

    /// Returns at once unless this node was elected and has not applied its log yet: then when it serves, does not lead any
    /// more, or an election timeout is over. Who was just told that it leads need not be sent away.
    pub async fn settled(&self) {
        if self.serving().is_some() {
            return;
        }
        let settles = |now: &Status| {
            let leads = now.leader.as_ref().is_some_and(|(leader, _)| *leader == self.id);
            leads && now.serving.is_none() && now.failed.is_none()
        };
        let mut status = self.status();
        // The caller asks for `serving` afterwards, whatever came of this.
        let _ = tokio::time::timeout(self.times.election, status.wait_for(|now| !settles(now))).await;
    }

    /// The term this node is in.
    #[must_use]
    pub fn current_term(&self) -> Term {
        self.status.term()
    }

    /// The term this node is in, if it is so high that this node stands for no election any more.
    #[must_use]
    pub fn terms_ended_in(&self) -> Option<Term> {
        self.standing.ended_in()
    }

    /// Index of the last applied entry.
    #[must_use]
    pub fn last_applied(&self) -> LogIndex {
        self.applied.borrow().index
    }

    /// Changes when snapshots are taken.
    pub fn set_snapshot_policy(&self, policy: SnapshotPolicy) {
        self.snapshots.set_policy(policy);
    }

    /// Asks the voters for a proof that this node leads: what is applied or on the head now is what a read may see when it is
    /// given. A node that alone votes asks nobody.
    pub fn prove(&self) -> Proof {
        self.reads.prove()
    }

    /// Adds a member, as a spare.
    pub fn add(&self, id: NodeId, address: Vec<u8>) -> Change {
        self.changes.add(id, address)
    }

    /// Removes a member.
    pub fn remove(&self, id: NodeId) -> Change {
        self.changes.remove(id)
    }

    /// Gives a member a role. A new voter is brought up to date first.
    pub fn assign(&self, id: NodeId, role: Role) -> Change {
        self.changes.assign(id, role)
    }

    /// Hands leadership to a voter; without a choice to the one that has most of the log. Done when this node does not
    /// lead any more. Writes wait meanwhile.
    pub fn transfer(&self, target: Option<NodeId>) -> Change {
        self.transfer.begin(target)
    }

    /// Gives up leadership.
    pub async fn step_down(&self) {
        self.transfer.step_down().await;
    }

    /// Whether the host vouches that every node that is or becomes a member understands deletions.
    pub fn set_deletions_always(&self, always: bool) {
        self.deletions.set_always(always);
    }

    /// Whether the cluster has no member but this node.
    #[must_use]
    pub fn is_only_member(&self) -> bool {
        self.deletions.is_only_member()
    }

    /// Whether a database may be deleted, as far as members decide it. A change that is under way is not looked at.
    ///
    /// # Errors
    /// There are other members.
    pub fn check_deletion(&self) -> Result<(), DeletionRefused> {
        self.deletions.check()
    }

    /// Permits to propose the deletion of a database. To be held until it is proposed or given up.
    ///
    /// # Errors
    /// `DeletionRefused`.
    pub fn permit_deletion(&self) -> Result<DeletionPermit, DeletionRefused> {
        self.deletions.permit()
    }

    /// The last entry of the log in memory that deletes a database.
    #[cfg(test)]
    pub(crate) fn last_deletion_in_log(&self) -> Option<LogIndex> {
        self.log.last_deletion()
    }

    /// Something outside consensus has failed: nothing is served any more. To be followed by `shutdown`.
    pub fn mark_failed(&self, reason: String) {
        self.status.fail(reason);
        self.end_proposals();
    }

    /// Ends the epoch: whatever is committed in SQLite from here on reaches nobody. To be followed by `shutdown`.
    pub fn end_proposals(&self) {
        self.epochs.end_for_good();
    }

    /// Stops consensus: nothing is appended, voted or applied afterwards.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        if let Err(error) = self.raft.shutdown().await {
            warn!(%error, "consensus ended badly");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("id", &self.id).finish_non_exhaustive()
    }
}
