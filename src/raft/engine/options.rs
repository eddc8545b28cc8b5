//! What an engine is made of, and what openraft is told of it. openraft-mapping 4

use std::sync::Arc;
use std::time::Duration;

use openraft::Config;

use crate::raft::election::Times;
use crate::raft::log::LogSender;
use crate::raft::machine::Machine;
use crate::raft::propose::EpochHooks;
use crate::raft::snapshot::{SnapshotPolicy, SnapshotStore};
use crate::raft::types::EntryError;
use crate::storage::load::Loaded;
use crate::transport::dial::Dial;
use crate::types::NodeId;
use crate::types::config::{INSTALL_SNAPSHOT_TIMEOUT, OPENRAFT_LEASE, REPLICATION_BATCH_ENTRIES_MAX};
use crate::types::payload::PayloadStore;
use crate::types::random::RandomSource;
use crate::types::tasks::{BlockingPool, Tasks};

/// What an engine is made of.
pub struct EngineOptions {
    /// This node.
    pub id: NodeId,
    /// What others dial for this node.
    pub address: Vec<u8>,
    /// Interval of heartbeats.
    pub heartbeat_interval: Duration,
    /// Longest election timeout; also the leader's lease.
    pub election_timeout: Duration,
    /// When snapshots are taken.
    pub snapshot_policy: SnapshotPolicy,
    /// The consensus thread.
    pub consensus: Tasks,
    /// For snapshot files.
    pub pool: Arc<dyn BlockingPool>,
    /// Seeds openraft's timers.
    pub random: Arc<RandomSource>,
    /// The log thread.
    pub log: LogSender,
    /// What the directory held.
    pub loaded: Loaded,
    /// The snapshot files.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The replicated state, empty.
    pub machine: Box<dyn Machine>,
    /// The page store's epochs.
    pub hooks: Arc<dyn EpochHooks>,
    /// Connects to other nodes.
    pub dial: Arc<dyn Dial>,
    /// Where large payloads of received entries go that need not be in memory.
    pub payloads: Option<Arc<dyn PayloadStore>>,
}

/// Why an engine did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The log cannot be used.
    #[error("loaded log: {0}")]
    Log(#[from] EntryError),
    /// The timers cannot be used.
    #[error("timers: heartbeat {heartbeat:?}, election timeout {election:?}: {reason}")]
    Timers {
        /// Heartbeat interval.
        heartbeat: Duration,
        /// Election timeout.
        election: Duration,
        /// What openraft says.
        reason: String,
    },
    /// The snapshot could not be restored.
    #[error("restore: {0}")]
    Restore(String),
    /// openraft failed.
    #[error("consensus: {0}")]
    Consensus(String),
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn raft_config(times: Times, restores: bool) -> Result<Arc<Config>, EngineError> {
    let election = milliseconds(times.election);
    let config = Config {
        cluster_name: "dqlite".to_owned(),
        // Nothing ticks, and no heartbeat is openraft's: who stands, votes and leads is decided elsewhere.
        heartbeat_interval: milliseconds(times.election / 3).max(1),
        enable_tick: false,
        enable_elect: false,
        enable_heartbeat: false,
        election_timeout_min: election / 2,
        // Also its lease, which would end with a pause of this process: how long a leader leads is decided elsewhere.
        election_timeout_max: milliseconds(OPENRAFT_LEASE),
        heartbeat_min_interval: Some(0),
        install_snapshot_timeout: milliseconds(INSTALL_SNAPSHOT_TIMEOUT),
        max_payload_entries: REPLICATION_BATCH_ENTRIES_MAX,
        // Snapshots and purging are this layer's decision.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        removed_leader_step_down: openraft::StepDownPolicy::Never,
        quorum_loss_probe_interval: None,
        enable_pre_vote: Some(false),
        enable_leader_restore: Some(restores),
        // A follower that lost acknowledged entries gets them again; the alternative is an assertion.
        allow_log_reversion: Some(true),
        broadcast_submitted_on_append: None,
        ..Config::default()
    };
    let config = config.validate().map_err(|error| EngineError::Timers {
        heartbeat: times.heartbeat,
        election: times.election,
        reason: error.to_string(),
    })?;
    Ok(Arc::new(config))
}
