//! A node without its threads: everything between the listener and the log, on runtimes, clock and disk that are handed
//! in. The same code runs in production (`running`) and on one thread in a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::tidying;
use crate::executor::permits::SqlPermits;
use crate::executor::sqlite::threading::{self, sqlite_is_serial};
use crate::executor::{Executor, ExecutorParts};
use crate::gateway::{Gateway, GatewayParts, PeerConnection, PeerSink};
use crate::pages::PageStore;
use crate::raft::{Engine, EngineError, EngineOptions, EpochHooks};
use crate::transport::client_stream::ClientStream;
use crate::types::config;
use crate::types::tasks::{SqlSection, Tasks};
use crate::vfs::{PanicReport, Vfs, VfsError, VfsOptions};

/// Settings that a host may change while the node runs.
#[derive(Debug)]
pub struct LiveSettings {
    /// Reported by DESCRIBE.
    pub failure_domain: Arc<AtomicU64>,
    /// Reported by DESCRIBE, set by WEIGHT.
    pub weight: Arc<AtomicU64>,
    /// How long writers wait for a client's open transaction.
    pub busy_timeout_ms: Arc<AtomicU32>,
    /// Whether the next snapshot is compressed.
    pub snapshot_compression: Arc<AtomicBool>,
    /// Voters that role management aims at.
    pub target_voters: Arc<AtomicI32>,
    /// Stand-bys that role management aims at.
    pub target_standbys: Arc<AtomicI32>,
    /// Whether the library manages roles.
    pub role_management: Arc<AtomicBool>,
    /// Whether databases may be deleted whoever is a member; read when the node starts.
    pub deletions_always: AtomicBool,
}

impl Default for LiveSettings {
    fn default() -> LiveSettings {
        LiveSettings {
            failure_domain: Arc::default(),
            weight: Arc::default(),
            busy_timeout_ms: Arc::default(),
            snapshot_compression: Arc::new(AtomicBool::new(true)),
            target_voters: Arc::new(AtomicI32::new(config::TARGET_VOTERS)),
            target_standbys: Arc::default(),
            role_management: Arc::default(),
            deletions_always: AtomicBool::default(),
        }
    }
}

/// What a core is made of.
pub struct CoreParts {
    /// Databases, empty; the engine fills them from snapshot and log.
    pub store: Arc<PageStore>,
    /// Everything that raft needs.
    pub engine: EngineOptions,
    /// Where connections run.
    pub sql_tasks: Tasks,
    /// How SQL runs inside a task.
    pub sql: SqlSection,
    /// Statements inside SQLite at once.
    pub sql_threads: usize,
    /// Settings that the host may change.
    pub live: Arc<LiveSettings>,
    /// Hears of a panic inside a callback of SQLite, which is final for the node.
    pub on_panic: PanicReport,
}

/// Why a core did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// Consensus.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// SQLite.
    #[error(transparent)]
    Vfs(#[from] VfsError),
}

/// A running node.
#[derive(Debug)]
pub struct Core {
    engine: Engine,
    gateway: Arc<Gateway>,
    executor: Arc<Executor>,
    vfs: Arc<Vfs>,
    sql_tasks: Tasks,
    stop: CancellationToken,
}

/// All connections of a node, to be ended.
#[derive(Clone, Debug)]
pub struct Connections {
    executor: Arc<Executor>,
    stop: CancellationToken,
}

impl Connections {
    /// Ends them. Sessions know of it before anybody is woken.
    pub fn end(&self) {
        self.executor.stop_all();
        self.stop.cancel();
    }
}

/// What has ended of a node.
#[derive(Debug)]
pub struct Stopped {
    /// SQLite's view of the databases, taken from SQLite if all connections have ended.
    pub vfs: Arc<Vfs>,
    /// Whether all connections have ended; others may be inside SQLite.
    pub is_quiet: bool,
}

/// The page store as raft sees it.
#[derive(Debug)]
pub struct StoreEpochs(pub Arc<PageStore>);

impl EpochHooks for StoreEpochs {
    fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.0.watch_epoch()
    }

    fn end_this_epoch(&self, epoch: u64, refused_from: Option<u64>) {
        self.0.end_this_epoch(epoch, refused_from);
    }
}

/// Hands raft connections to consensus.
#[derive(Debug)]
struct EnginePeers(Engine);

impl PeerSink for EnginePeers {
    fn accept(&self, peer: PeerConnection) {
        let PeerConnection { id, address, received, stream } = peer;
        self.0.peers().accept(id, address, received, stream);
    }
}

impl Core {
    /// Starts consensus and what stands on it; a single voter leads when this returns.
    ///
    /// # Errors
    /// Those of consensus and of SQLite.
    pub async fn start(parts: CoreParts) -> Result<Core, CoreError> {
        parts.store.room().set_disk(parts.engine.log.space());
        let vfs = Vfs::register(Arc::clone(&parts.store), VfsOptions::default(), parts.on_panic)?;
        let engine = match Engine::start(parts.engine).await {
            Ok(engine) => engine,
            Err(error) => {
                give_back(&vfs).await;
                return Err(error.into());
            }
        };
        engine.set_deletions_always(parts.live.deletions_always.load(Ordering::Relaxed));
        let (returned, sql) = (parts.store.space().returned().clone(), parts.sql.clone());
        let executor = Executor::new(ExecutorParts {
            store: parts.store,
            vfs: Arc::clone(&vfs),
            engine: engine.clone(),
            permits: match sqlite_is_serial() {
                true => SqlPermits::of_process(),
                false => SqlPermits::new(parts.sql_threads),
            },
            busy_timeout_ms: Arc::clone(&parts.live.busy_timeout_ms),
            sql: parts.sql,
            tasks: parts.sql_tasks.clone(),
        });
        if matches!(sql, SqlSection::BlockInPlace) {
            tidying::start(&parts.sql_tasks, &returned, sql);
        }
        let stop = CancellationToken::new();
        let gateway = Gateway::new(GatewayParts {
            executor: Arc::clone(&executor),
            engine: engine.clone(),
            failure_domain: Arc::clone(&parts.live.failure_domain),
            weight: Arc::clone(&parts.live.weight),
            peers: Arc::new(EnginePeers(engine.clone())),
            tasks: parts.sql_tasks.clone(),
            stop: stop.clone(),
        });
        Ok(Core { engine, gateway, executor, vfs, sql_tasks: parts.sql_tasks, stop })
    }

    /// Serves one client.
    pub fn serve(&self, stream: impl ClientStream) {
        self.gateway.serve(stream);
    }

    /// Serves clients from another task.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Runs SQL.
    #[must_use]
    pub fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }

    /// Consensus.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where connections run.
    #[must_use]
    pub fn sql_tasks(&self) -> &Tasks {
        &self.sql_tasks
    }

    /// Cancelled when the node stops.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// All connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections { executor: Arc::clone(&self.executor), stop: self.stop.clone() }
    }

    /// Ends the epoch, so that nothing is proposed any more whatever SQLite still commits; then connections, then consensus.
    /// Connections that are inside SQLite are waited for at most `STOP_INSIDE_MAX`.
    pub async fn stop(self) -> Stopped {
        self.engine.end_proposals();
        self.connections().end();
        let ended = timeout(config::STOP_INSIDE_MAX, self.sql_tasks.finished()).await;
        // Consensus may wait for a disk that does not return: whoever owns the disk's threads tells.
        if timeout(config::STOP_CONSENSUS_MAX, self.engine.shutdown()).await.is_err() {
            tracing::warn!("consensus waits for the disk, and is left behind");
        }
        if ended.is_ok() {
            give_back(&self.vfs).await;
        } else {
            tracing::warn!("the node stops while connections are inside SQLite");
        }
        Stopped { vfs: self.vfs, is_quiet: ended.is_ok() }
    }
}

/// Takes the VFS of a node without connections from SQLite; false if that must be tried again: in SQLite's single-thread mode
/// another node of the process may be inside.
#[must_use]
pub fn take_from_sqlite(vfs: &Vfs) -> bool {
    let inside = threading::try_serial_guard();
    if inside.is_some() {
        vfs.unregister();
    }
    inside.is_some()
}

/// The same, as long as that may take. A VFS that stays registered opens nothing.
async fn give_back(vfs: &Vfs) {
    let taking = async {
        while !take_from_sqlite(vfs) {
            sleep(config::SQLITE_RETRY).await;
        }
    };
    if timeout(config::STOP_INSIDE_MAX, taking).await.is_err() {
        tracing::warn!("another node is inside SQLite for long: a VFS stays registered");
    }
}
