//! The node's consensus as the other layers see it; openraft stays behind it. Usable from any thread and runtime.
//! openraft's random numbers follow from the seed of the scope that every task here runs in.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState, Vote};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::apply::{Applied, Consensus, StateMachine, leading_term, loaded_snapshot};
use super::engine_options::{EngineError, EngineOptions, raft_config, raft_heartbeat};
use super::failover::LeaderBoard;
use super::inbound::RaftInbound;
use super::log::{LogStore, LogView};
use super::propose::{EpochEnd, ProposalQueue, Proposed, Proposer, Refused};
use super::replication::Network;
use super::rounds::{Proof, Reads};
use super::snapshot::{Current, SnapshotPolicy, SnapshotReceiver, Snapshots};
use super::types::{
    Leadership, RaftLogId, Runtime, Scope, Serving, Status, StatusBoard, TypeConfig, log_index, raft_index,
};
use crate::peers::{Peers, PeersParts, Spawn};
use crate::types::config::{LOG_TRAILING_MAX_BYTES, LOG_WANTED_MAX_BYTES, PEER_PATIENCE_MIN};
use crate::types::{Configuration, LogIndex, NodeId, ProposalToken, Term};

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

/// Consensus of one node.
#[derive(Clone)]
pub struct Engine {
    pub(super) id: NodeId,
    pub(super) raft: Consensus,
    pub(super) scope: Scope,
    pub(super) queue: Arc<ProposalQueue>,
    epochs: EpochEnd,
    pub(super) log: LogView,
    applied: watch::Receiver<Applied>,
    status: StatusBoard,
    pub(super) snapshots: Snapshots,
    pub(super) peers: Peers,
    pub(super) board: LeaderBoard,
    reads: Reads,
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    pub(super) deletions_always: Arc<AtomicBool>,
    pub(super) heartbeat_interval: Duration,
    pub(super) election_timeout: Duration,
    /// That of openraft.
    pub(super) raft_heartbeat: Duration,
}

impl Engine {
    /// Starts consensus. When it returns, a node that is the only voter leads and has applied its whole log.
    ///
    /// # Errors
    /// The log or the snapshot cannot be used, or openraft fails.
    pub async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        let seed = options.random.next_u64();
        let consensus = options.consensus.clone();
        let started = consensus.spawn(Runtime::scope(seed, Engine::start_here(options)));
        started.await.map_err(|error| EngineError::Consensus(error.to_string()))?
    }

    /// On the consensus thread, in a scope.
    async fn start_here(options: EngineOptions) -> Result<Engine, EngineError> {
        let mut store = LogStore::new(&options.loaded, options.log.clone(), options.pool.clone())?;
        let restores = store.restore_first_leader(options.id);
        let config = raft_config(&options, restores)?;
        let log = store.view();
        let snapshots =
            Snapshots::new(options.snapshots, options.pool.clone(), options.log, options.snapshot_policy);
        let stopping = CancellationToken::new();
        let mut machine = StateMachine::new(options.machine, snapshots.clone(), stopping.clone());
        let applied = machine.applied();
        if let Some(file) = &options.loaded.snapshot {
            let current = loaded_snapshot(&file.meta, |index| log.rank_at(index));
            machine.restore(current, None).await.map_err(|error| EngineError::Restore(error.to_string()))?;
        }
        drop(options.loaded);
        let decoder = machine.decoder().map_err(|error| EngineError::Restore(error.to_string()))?;
        let scope = Scope::new(options.consensus, options.random, stopping.clone());
        let spawner = scope.clone();
        let spawn: Spawn = Arc::new(move |future| spawner.spawn(future));
        let peers = Peers::new(PeersParts {
            id: options.id,
            address: options.address.clone().into(),
            dial: options.dial,
            spawn: spawn.clone(),
            pool: options.pool,
            payloads: options.payloads,
            stop: stopping,
        });
        let patience = options.election_timeout.max(PEER_PATIENCE_MIN);
        let network =
            Network { peers: peers.clone(), log: log.clone(), snapshots: snapshots.clone(), patience };
        let raft = Consensus::new(options.id.0, config, network, store, machine)
            .await
            .map_err(|error| EngineError::Consensus(error.to_string()))?;
        let raft_heartbeat = raft_heartbeat(options.heartbeat_interval, options.election_timeout);
        let (queue, status) = (Arc::<ProposalQueue>::default(), StatusBoard::new());
        let epochs = EpochEnd { queue: Arc::clone(&queue), hooks: options.hooks, status: status.clone() };
        let engine = Engine {
            id: options.id,
            raft,
            scope,
            queue,
            epochs,
            reads: Reads::new(options.id, log.clone(), status.clone()),
            log,
            applied,
            status,
            snapshots,
            peers,
            board: LeaderBoard::new(),
            changing: Arc::default(),
            deletions_always: Arc::default(),
            heartbeat_interval: options.heartbeat_interval,
            election_timeout: options.election_timeout,
            raft_heartbeat,
        };
        engine.start_tasks();
        engine.peers.set_inbound(Arc::new(RaftInbound {
            id: engine.id,
            raft: engine.raft.clone(),
            log: engine.log.clone(),
            applied: engine.applied.clone(),
            status: engine.status.clone(),
            board: engine.board.clone(),
            receiver: SnapshotReceiver::new(engine.snapshots.clone(), decoder),
            spawn,
            tail: Arc::default(),
            tell_every: raft_heartbeat / 2,
        }));
        if engine.configuration().configuration.is_only_voter(engine.id) {
            engine.lead(restores).await?;
        }
        Ok(engine)
    }

    /// On the consensus thread, until the node stops.
    pub(super) fn spawn_scoped(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.scope.spawn_until_stopped(future);
    }

    fn start_tasks(&self) {
        let (leadership_sender, leadership) = watch::channel(Leadership::Other);
        let proposer = Proposer {
            raft: self.raft.clone(),
            epochs: self.epochs.clone(),
            log: self.log.clone(),
            applied: self.applied.clone(),
            leadership: leadership.clone(),
        };
        // These two see openraft's end.
        self.scope.spawn(proposer.run());
        self.scope.spawn(self.clone().watch_raft(leadership_sender));
        self.spawn_scoped(self.clone().take_snapshots());
        self.spawn_scoped(self.reads.rounds(self.peers.clone(), self.election_timeout).run());
        self.spawn_scoped(self.clone().watch_timers(leadership));
        self.spawn_scoped(self.clone().watch_leader());
    }

    /// A node alone need not wait for its election timer.
    async fn lead(&self, restores: bool) -> Result<(), EngineError> {
        let mut status = self.status.watch();
        if !restores {
            let elected = self.raft.trigger().elect(false).await;
            elected.map_err(|error| EngineError::Consensus(error.to_string()))?;
        }
        let status = status
            .wait_for(|status| status.serving.is_some() || status.failed.is_some())
            .await
            .map_err(|_| EngineError::Consensus("stopped while starting".to_owned()))?;
        match &status.failed {
            Some(reason) => Err(EngineError::Consensus(reason.clone())),
            None => Ok(()),
        }
    }

    /// Turns openraft's metrics into the status, until openraft ends.
    async fn watch_raft(self, leadership: watch::Sender<Leadership>) {
        let mut metrics = self.raft.metrics();
        loop {
            let running = self.publish(&metrics, &leadership);
            if running.is_err() || metrics.changed().await.is_err() {
                break;
            }
        }
        leadership.send_replace(Leadership::Stopped);
        self.status.set_serving(None);
        if !self.scope.stopping().is_cancelled() {
            let reason = match self.raft.is_initialized().await {
                Err(fatal) => fatal.to_string(),
                Ok(_) => "openraft ended without a reason".to_owned(),
            };
            error!(reason, "consensus failed");
            self.status.fail(reason);
        }
    }

    fn publish(
        &self,
        metrics: &WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        leadership: &watch::Sender<Leadership>,
    ) -> Result<(), ()> {
        let current = metrics.borrow_watched();
        current.running_state.as_ref().map_err(|_| ())?;
        let term = Term(current.current_term);
        let leader = current.current_leader.map(|id| {
            let node = current.membership_config.membership().get_node(&id);
            let address = node.map(|node| node.address.clone());
            // Who leads need not be a member that is known here.
            let told = || self.board.address_of(NodeId(id)).map(|address| address.to_vec());
            (NodeId(id), address.or_else(told).unwrap_or_default())
        });
        let leads = current.state == ServerState::Leader && current.current_leader == Some(self.id.0);
        self.status.set_leader(term, leader);
        let next = if leads { Leadership::Leading(term) } else { Leadership::Other };
        leadership.send_if_modified(|now| std::mem::replace(now, next.clone()) != next);
        Ok(())
    }

    /// Asks openraft for snapshots when they are due and purges what is behind them.
    async fn take_snapshots(self) {
        let mut applied = self.applied.clone();
        let mut current = self.snapshots.watch();
        let index =
            |current: &Option<Current>| current.as_ref().map_or(LogIndex::NONE, |now| now.position.index);
        let mut asked = index(&current.borrow());
        // Bytes that were logged when the last snapshot was asked for, or came from elsewhere.
        let mut logged_before = 0;
        if !self.purge_behind_snapshot().await {
            return;
        }
        loop {
            let policy = self.snapshots.policy();
            let on_disk = index(&current.borrow_and_update());
            let last_applied = applied.borrow_and_update().index;
            if on_disk > asked {
                asked = on_disk;
                logged_before = self.log.logged_bytes();
            }
            let entries = last_applied.0.saturating_sub(asked.0);
            let log_bytes = self.log.logged_bytes().saturating_sub(logged_before);
            // One that failed is tried again as much later.
            if policy.is_due(entries, log_bytes, self.snapshots.content_bytes()) {
                asked = last_applied;
                logged_before += log_bytes;
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.scope.stopping().cancelled() => return,
                changed = current.changed() => {
                    if changed.is_err() || !self.purge_behind_snapshot().await {
                        return;
                    }
                }
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether openraft still runs.
    async fn purge_behind_snapshot(&self) -> bool {
        let Some(current) = self.snapshots.current() else { return true };
        let snapshot = current.position.index;
        let too_much = self.log.last_beyond(LOG_TRAILING_MAX_BYTES).min(snapshot);
        let mut upto = self.snapshots.policy().purge_upto(snapshot).max(too_much);
        if let Some(wanted) = self.snapshots.wanted_behind() {
            // Else a peer that installs a large snapshot would need the next one as soon as it has it.
            upto = upto.min(wanted).max(self.log.last_beyond(LOG_WANTED_MAX_BYTES).min(snapshot));
        }
        match raft_index(upto) {
            Some(upto) => self.raft.trigger().purge_log(upto).await.is_ok(),
            None => true,
        }
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
        let metrics = self.raft.metrics();
        let committed =
            metrics.borrow_watched().local_committed.map_or(LogIndex::NONE, |id| log_index(id.index));
        CurrentConfiguration { configuration, index, committed: committed.max(self.last_applied()) }
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
        let _ = tokio::time::timeout(self.election_timeout, status.wait_for(|now| !settles(now))).await;
    }

    /// The term this node is in.
    #[must_use]
    pub fn current_term(&self) -> Term {
        self.status.term()
    }

    /// The term this node leads in as far as openraft says, serving or not.
    pub(super) fn leading_term(&self) -> Option<Term> {
        leading_term(&self.raft, self.id)
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

    /// Gives up leadership by adopting the next term without a vote in it. spec: openraft-mapping 2.2.
    pub async fn step_down(&self) {
        let term = self.status.watch().borrow().term.0;
        let request = VoteRequest {
            vote: Vote::new(term + 1, 0),
            // A log that is up to date whatever is appended meanwhile.
            last_log_id: Some(RaftLogId::new(term + 1, u64::MAX)),
            leadership_transfer: true,
        };
        if let Err(error) = self.raft.vote(request).await {
            // A stopped openraft leads no more.
            warn!(%error, "step down");
        }
    }

    /// While the log cannot be written this node does not campaign, and where others can lead it gives up leadership; a vote
    /// is not answered before it is on the disk, so none is given either. A node alone waits for its disk.
    pub async fn set_log_failing(&self, failing: bool) {
        self.raft.runtime_config().elect(!failing);
        let leads = self.status.watch().borrow().serving.is_some();
        if failing && leads && !self.log.configuration().0.is_only_voter(self.id) {
            self.step_down().await;
        }
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
        self.scope.stopping().cancel();
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

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "../testing/bench.rs"]
mod peer_bench;

#[cfg(test)]
#[path = "peer_tests.rs"]
mod peer_tests;

#[cfg(test)]
#[path = "../election/election_tests.rs"]
mod election_tests;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod wire_tests;

#[cfg(test)]
#[path = "../election/timers_tests.rs"]
mod timers_tests;
