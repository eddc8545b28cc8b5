//! Makes consensus of its parts and starts it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Engine;
use super::options::{EngineError, EngineOptions, raft_config};
use crate::peers::{Peers, PeersParts};
use crate::raft::apply::{Applied, Consensus, SnapshotsDue, StateMachine, loaded_snapshot};
use crate::raft::election::{
    Asker, Candidate, DiskParts, DiskWatch, HangUps, LeaderBoard, Leading, Publisher, Question, Standing,
    Terms, Times, Transfer, Voter,
};
use crate::raft::inbound::{Appends, Installs, RaftInbound};
use crate::raft::log::{LogStore, LogView};
use crate::raft::machine::Decoder;
use crate::raft::membership::{CatchUp, ChangeTurn, Changes, Deletions};
use crate::raft::propose::{EpochEnd, EpochHooks, ProposalQueue, Proposer};
use crate::raft::replication::Network;
use crate::raft::rounds::{Contacts, Heart, Reads};
use crate::raft::snapshot::{SnapshotReceiver, Snapshots};
use crate::raft::types::{Leadership, Scope, StatusBoard};
use crate::types::NodeId;
use crate::types::config::START_LEADING_MAX;

/// On the consensus thread, in a scope of openraft's random numbers.
pub(super) async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
    let times = Times { heartbeat: options.heartbeat_interval, election: options.election_timeout };
    let mut store = LogStore::new(&options.loaded, options.log.clone(), options.pool.clone())?;
    let restores = store.restore_first_leader(options.id);
    let config = raft_config(times, restores)?;
    let log = store.view();
    let snapshots = Snapshots::new(
        options.snapshots,
        options.pool.clone(),
        options.log,
        log.clone(),
        options.snapshot_policy,
    );
    let stopping = CancellationToken::new();
    let mut machine = StateMachine::new(options.machine, snapshots.clone(), log.clone(), stopping.clone());
    let applied = machine.applied();
    if let Some(file) = &options.loaded.snapshot {
        let current = loaded_snapshot(&file.meta, |index| log.rank_at(index));
        machine.restore(current, None).await.map_err(|error| EngineError::Restore(error.to_string()))?;
    }
    drop(options.loaded);
    let decoder = machine.decoder().map_err(|error| EngineError::Restore(error.to_string()))?;
    let random = options.random;
    let scope = Scope::new(options.consensus, random.clone(), stopping.clone());
    let spawner = scope.clone();
    let address = options.address.clone();
    let peers = Peers::new(PeersParts {
        id: options.id,
        address: options.address.into(),
        dial: options.dial,
        spawn: Arc::new(move |future| spawner.spawn(future)),
        pool: options.pool,
        payloads: options.payloads,
        patience: times.patience(),
        random: random.clone(),
        stop: stopping,
    });
    let contacts = Contacts::new();
    let network = Network {
        peers: peers.clone(),
        log: log.clone(),
        snapshots: snapshots.clone(),
        patience: times.patience(),
    };
    let raft = Consensus::new(options.id.0, config, network, store, machine)
        .await
        .map_err(|error| EngineError::Consensus(error.to_string()))?;
    let id = options.id;
    let board = LeaderBoard::new(Terms::of(&log).own(), times, random);
    let standing = Standing::new(id, log.clone(), applied.clone(), board.clone(), contacts.clone());
    let (question, asked) = Question::new();
    let asker = Asker {
        log: log.clone(),
        peers: peers.clone(),
        board: board.clone(),
        standing: standing.clone(),
        times,
    };
    scope.spawn_until_stopped(asker.run(asked));
    let status = StatusBoard::new();
    let parts = Parts {
        id,
        address,
        raft,
        log,
        applied,
        status,
        board,
        contacts,
        standing,
        question,
        snapshots,
        peers,
        scope,
        times,
    };
    let engine = parts.engine(options.hooks);
    parts.start_tasks(&engine);
    parts.listen(decoder);
    if engine.configuration().configuration.is_only_voter(id) {
        engine.lead(restores).await?;
    }
    Ok(engine)
}

/// What most components need.
struct Parts {
    id: NodeId,
    /// What others dial for this node.
    address: Vec<u8>,
    raft: Consensus,
    log: LogView,
    applied: watch::Receiver<Applied>,
    status: StatusBoard,
    board: LeaderBoard,
    contacts: Contacts,
    standing: Standing,
    question: Question,
    snapshots: Snapshots,
    peers: Peers,
    scope: Scope,
    times: Times,
}

impl Parts {
    fn engine(&self, hooks: Arc<dyn EpochHooks>) -> Engine {
        let Parts { id, raft, log, applied, status, standing, snapshots, peers, scope, times, .. } = self;
        let (id, times) = (*id, *times);
        let (queue, turn) = (Arc::<ProposalQueue>::default(), ChangeTurn::default());
        let transfer = Transfer {
            id,
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            applied: applied.clone(),
            queue: queue.clone(),
            peers: peers.clone(),
            scope: scope.clone(),
            times,
        };
        let deletions = Deletions {
            id,
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            applied: applied.clone(),
            queue: queue.clone(),
            snapshots: snapshots.clone(),
            turn: turn.clone(),
            always: Arc::default(),
        };
        let catch_up = CatchUp {
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            snapshots: snapshots.clone(),
            election_timeout: times.election,
        };
        let changes = Changes {
            id,
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            queue: queue.clone(),
            peers: peers.clone(),
            scope: scope.clone(),
            turn,
            deletions: deletions.clone(),
            transfer: transfer.clone(),
            catch_up,
        };
        Engine {
            id,
            raft: raft.clone(),
            log: log.clone(),
            applied: applied.clone(),
            status: status.clone(),
            epochs: EpochEnd { queue: queue.clone(), hooks, status: status.clone() },
            queue,
            snapshots: snapshots.clone(),
            peers: peers.clone(),
            reads: Reads::new(id, log.clone(), status.clone()),
            transfer: Arc::new(transfer),
            changes: Arc::new(changes),
            deletions: Arc::new(deletions),
            standing: standing.clone(),
            times,
            stopping: scope.stopping().clone(),
        }
    }

    fn start_tasks(&self, engine: &Engine) {
        let Parts { id, raft, log, applied, status, board, contacts, standing, .. } = self;
        let Parts { question, snapshots, peers, scope, times, .. } = self;
        let (id, times) = (*id, *times);
        let (leadership_sender, leadership) = watch::channel(Leadership::Other);
        let proposer = Proposer {
            raft: raft.clone(),
            epochs: engine.epochs.clone(),
            log: log.clone(),
            applied: applied.clone(),
            leadership: leadership.clone(),
        };
        let publisher = Publisher {
            id,
            address: self.address.clone(),
            raft: raft.clone(),
            log: log.clone(),
            board: board.clone(),
            standing: standing.clone(),
            status: status.clone(),
            stopping: scope.stopping().clone(),
        };
        let due = SnapshotsDue {
            raft: raft.clone(),
            log: log.clone(),
            snapshots: snapshots.clone(),
            applied: applied.clone(),
            stopping: scope.stopping().clone(),
        };
        let heart = Heart {
            id,
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            peers: peers.clone(),
            reads: engine.reads.clone(),
            contacts: contacts.clone(),
            beat: times.beat(),
            patience: times.patience(),
        };
        let disk = DiskParts {
            id,
            raft: raft.clone(),
            log: log.clone(),
            status: status.clone(),
            transfer: engine.transfer.clone(),
            hooks: engine.epochs.hooks.clone(),
            scope: scope.clone(),
            times,
        };
        let leading = Leading {
            id,
            log: log.clone(),
            board: board.clone(),
            contacts: contacts.clone(),
            transfer: engine.transfer.clone(),
            disk: DiskWatch::new(disk),
            times,
        };
        let hang_ups = HangUps { id, log: log.clone(), peers: peers.clone(), board: board.clone() };
        let candidate = Candidate {
            id,
            raft: raft.clone(),
            log: log.clone(),
            peers: peers.clone(),
            board: board.clone(),
            standing: standing.clone(),
            question: question.clone(),
            scope: scope.clone(),
            times,
        };
        // These two see openraft's end.
        scope.spawn(proposer.run());
        scope.spawn(publisher.run(leadership_sender));
        scope.spawn_until_stopped(due.run());
        scope.spawn_until_stopped(heart.run(leadership.clone()));
        scope.spawn_until_stopped(leading.run(leadership));
        scope.spawn_until_stopped(hang_ups.run());
        scope.spawn_until_stopped(candidate.run());
    }

    /// Takes what peers send from now on.
    fn listen(self, decoder: Arc<dyn Decoder>) {
        let Parts { id, raft, log, applied, board, standing, question, snapshots, peers, scope, .. } = self;
        let appends = Appends::new(raft.clone(), log.clone(), applied.clone(), board.clone());
        let installs = Installs {
            raft: raft.clone(),
            log: log.clone(),
            applied,
            receiver: SnapshotReceiver::new(snapshots, decoder),
            appends: appends.clone(),
            standing: standing.clone(),
        };
        let voter = Voter { id, raft, log: log.clone(), board: board.clone(), standing, question, scope };
        peers.set_inbound(Arc::new(RaftInbound { appends, voter, installs, board, log }));
    }
}

impl Engine {
    /// Waits until a node that alone votes leads, which it stands for at once. If it may not stand, nobody leads.
    async fn lead(&self, restores: bool) -> Result<(), EngineError> {
        if !restores && self.standing.hindrance().is_some() {
            return Ok(());
        }
        let mut status = self.status.watch();
        let decided = status.wait_for(|status| status.serving.is_some() || status.failed.is_some());
        let Ok(decided) = timeout(START_LEADING_MAX, decided).await else {
            warn!("this node alone has a vote, and does not lead yet: its log cannot be written");
            return Ok(());
        };
        let status = decided.map_err(|_| EngineError::Consensus("stopped while starting".to_owned()))?;
        match &status.failed {
            Some(reason) => Err(EngineError::Consensus(reason.clone())),
            None => Ok(()),
        }
    }
}
