//! A running node: lock, bootstrap, load, threads, listener; and its orderly end. spec: c-api 3.8, 3.9, 3.11.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::core::{Connections, Core, CoreParts, LiveSettings, StoreEpochs, take_from_sqlite};
use super::failure::Failure;
use super::options::Options;
use super::roles::EngineMembership;
use super::roles::handover::{Handover, HandoverError};
use super::roles::rounds::RoleManagement;
use super::run_parts::RunParts;
use super::threads::{LogThread, OwnThreads, Threads};
use crate::gateway::Gateway;
use crate::pages::{PageFile, PageSpace, PageStore};
use crate::raft::{Engine, EngineOptions, LogSender, SnapshotFiles, SnapshotPolicy};
use crate::state_machine::databases::Databases;
use crate::storage::bootstrap::bootstrap;
use crate::storage::directory::{Directory, DirectoryLock};
use crate::storage::disk::FileDisk;
use crate::storage::error::StorageError;
use crate::storage::load::{LoadOptions, Loaded, load};
use crate::storage::log::{LogOptions, LogStatistics, LogTrouble, LogWriter};
use crate::storage::scratch::UnnamedFiles;
use crate::transport::dial::{Dial, PooledDial};
use crate::transport::listener::{Listening, is_from_this_process};
use crate::types::clock::{SystemWallClock, WallClock};
use crate::types::payload::PayloadStore;
use crate::types::random::RandomSource;
use crate::types::tasks::{SqlSection, Tasks};
use crate::types::{NodeId, config};
use crate::vfs::{Vfs, empty_page};

/// Id of a node that bootstraps itself beside id 1. spec: c-api 3.7.
pub const BOOTSTRAP_ID: NodeId = NodeId(0x2dc1_7185_8c31_55be);

/// Why a node did not start: the text that `dqlite_node_errmsg` gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    fn raft(error: impl std::fmt::Display) -> StartError {
        StartError(format!("raft_start(): io: {error}"))
    }
}

/// What is left of a node that has stopped: threads that did not come back from SQLite or from the host's functions. Leadership,
/// log and directory are given up, and what these threads use stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped, but {threads} of its threads have not returned from {whence} after {seconds} s")]
pub struct ThreadsLeft {
    /// How many.
    pub threads: usize,
    /// Where they are.
    pub whence: &'static str,
    /// How long they were waited for.
    pub seconds: u64,
}

/// Threads and tasks of a node that was started.
pub struct Running {
    core: Option<Core>,
    log: Option<LogThread>,
    threads: Option<Threads>,
    failure: Failure,
    statistics: Arc<LogStatistics>,
    live: Arc<LiveSettings>,
    dial: Arc<dyn Dial>,
    /// Ends role management.
    roles: CancellationToken,
}

/// What the directory gave.
struct Opened {
    directory: Directory,
    lock: DirectoryLock,
    loaded: Loaded,
    /// Where pages live.
    space: PageSpace,
}

impl Running {
    /// Starts a node; returns when it serves clients.
    ///
    /// # Errors
    /// The directory is in use or cannot be loaded, the listener or a thread cannot be had.
    pub fn start(parts: RunParts) -> Result<Running, StartError> {
        let opened = open(&parts.directory, parts.id, &parts.address, &parts.options)?;
        // Before the log is read: whoever connects meanwhile waits.
        let listening = parts
            .listener
            .listen(config::LISTEN_BACKLOG)
            .map_err(|error| StartError(format!("listen: {error}")))?;
        let threads = Threads::start().map_err(|error| StartError(format!("threads: {error}")))?;
        let metadata = opened.loaded.metadata;
        let next_index = opened.loaded.last_index().next();
        let (log_failing, log_state) = watch::channel(false);
        let on_trouble = Box::new(move |trouble| match trouble {
            LogTrouble::Failing { error } => {
                tracing::error!(error, "the log cannot be written");
                log_failing.send_replace(true);
            }
            LogTrouble::Recovered => {
                tracing::info!("the log is written again");
                log_failing.send_replace(false);
            }
        });
        let options = LogOptions::new(on_trouble, Arc::new(threads.files()));
        let writer = LogWriter::new(opened.directory.clone(), opened.lock, metadata, next_index, options);
        let statistics = writer.statistics();
        let failure = Failure::default();
        let log_failure = failure.clone();
        let on_panic = move |panic: String| log_failure.report(&format!("log thread: {panic}"));
        let (sender, log) =
            LogThread::start(writer, on_panic).map_err(|error| StartError(format!("log thread: {error}")))?;
        let phase = sender.phase();
        let send = LogSender::new(move |request| sender.send(request), phase);
        let dial: Arc<dyn Dial> = Arc::new(PooledDial::new(parts.connector, Arc::new(threads.dials())));
        let core_parts = core_parts(
            &threads,
            EngineParts {
                id: parts.id,
                address: parts.address,
                options: &parts.options,
                log: send,
                directory: opened.directory,
                loaded: opened.loaded,
                space: opened.space,
                live: &parts.live,
                failure: &failure,
                dial: Arc::clone(&dial),
            },
        );
        match start_core(&threads, core_parts) {
            Ok(core) => {
                // Whatever fails from here on stops the node again.
                let running = Running {
                    core: Some(core),
                    log: Some(log),
                    threads: Some(threads),
                    failure,
                    statistics,
                    live: parts.live,
                    dial,
                    roles: CancellationToken::new(),
                };
                running.serve(listening, log_state)?;
                Ok(running)
            }
            Err(error) => {
                threads.finish_files();
                log.join();
                threads.shut_down(config::STOP_CALLBACK_MAX);
                Err(error)
            }
        }
    }

    /// Accepts clients, and ends everything when a part has failed.
    fn serve(&self, listening: Listening, log_state: watch::Receiver<bool>) -> Result<(), StartError> {
        let (Some(core), Some(threads)) = (&self.core, &self.threads) else { return Ok(()) };
        let accepting = accept(threads, listening, Arc::clone(core.gateway()))?;
        let stop = core.stopping().clone();
        core.sql_tasks().spawn(async move {
            tokio::select! { biased; () = stop.cancelled() => {} () = accepting => {} }
        });
        let (connections, stop) = (core.connections(), core.stopping().clone());
        let supervision = supervise(core.engine().clone(), connections, stop, self.failure.clone());
        threads.consensus().spawn(supervision);
        threads.consensus().spawn(follow_log(core.engine().clone(), log_state));
        let membership = Arc::new(EngineMembership(core.engine().clone()));
        let (dial, live) = (Arc::clone(&self.dial), Arc::clone(&self.live));
        let roles = RoleManagement::new(core.engine().id(), membership, dial, live);
        let stop = core.stopping().clone();
        let managing = roles.run(self.roles.clone());
        threads.consensus().spawn(async move {
            tokio::select! { biased; () = stop.cancelled() => {} () = managing => {} }
        });
        Ok(())
    }

    /// Consensus and what stands on it.
    #[must_use]
    pub fn core(&self) -> Option<&Core> {
        self.core.as_ref()
    }

    /// Why the node has stopped by itself, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.reason()
    }

    /// Where that is told.
    #[must_use]
    pub fn failure_board(&self) -> &Failure {
        &self.failure
    }

    /// The threads that may run the host's functions; none after the stop.
    #[must_use]
    pub fn own_threads(&self) -> Option<&OwnThreads> {
        self.threads.as_ref().map(Threads::own)
    }

    /// What the log has written since the start.
    #[must_use]
    pub fn log_statistics(&self) -> &LogStatistics {
        &self.statistics
    }

    /// Gives leadership and vote to other nodes; roles are not managed here any more.
    ///
    /// # Errors
    /// Nobody takes them.
    pub fn handover(&self) -> Result<(), HandoverError> {
        let (Some(core), Some(threads)) = (&self.core, &self.threads) else {
            return Err(HandoverError::NoLeader);
        };
        let handover = Handover {
            own: core.engine().id(),
            membership: Arc::new(EngineMembership(core.engine().clone())),
            dial: Arc::clone(&self.dial),
            roles: self.roles.clone(),
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        threads.consensus().spawn(async move {
            // The receiver waits for just this.
            let _ = sender.send(handover.run().await);
        });
        receiver.recv().unwrap_or(Err(HandoverError::NoLeader))
    }

    /// What may run beside the node; `None` after the stop.
    #[must_use]
    pub fn background(&self) -> Option<Background> {
        let (core, threads) = (self.core.as_ref()?, self.threads.as_ref()?);
        Some(Background {
            tasks: core.sql_tasks().clone(),
            stop: core.stopping().clone(),
            pool: Arc::new(threads.files()),
            dial: Arc::clone(&self.dial),
            membership: Arc::new(EngineMembership(core.engine().clone())),
        })
    }

    /// Ends the epoch, connections, consensus, log and threads, in this order. The directory is free afterwards, whoever is inside
    /// SQLite or a function of the host.
    ///
    /// # Errors
    /// Threads did not return from there.
    pub fn stop(&mut self) -> Result<(), ThreadsLeft> {
        let (Some(core), Some(threads)) = (self.core.take(), self.threads.take()) else { return Ok(()) };
        threads.files().hurry();
        let (sender, receiver) = std::sync::mpsc::channel();
        // The workers of the SQL runtime may all be inside SQLite.
        threads.consensus().spawn(async move {
            // The receiver waits for just this.
            let _ = sender.send(core.stop().await);
        });
        // An error means that the task panicked; the threads end all the same.
        let stopped = receiver.recv().ok();
        threads.finish_files();
        if let Some(log) = self.log.take() {
            log.join();
        }
        let inside = stopped.filter(|stopped| !stopped.is_quiet);
        let (whence, longest) = match inside {
            Some(_) => ("SQLite", config::STOP_LEFT_MAX),
            None => ("the connect function", config::STOP_CALLBACK_MAX),
        };
        let threads = threads.shut_down(longest);
        if threads > 0 {
            return Err(ThreadsLeft { threads, whence, seconds: longest.as_secs() });
        }
        if let Some(inside) = inside {
            take_in_time(&inside.vfs);
        }
        Ok(())
    }
}

/// Takes the VFS from SQLite, which its own node has left.
fn take_in_time(vfs: &Vfs) {
    let began = Instant::now();
    while !take_from_sqlite(vfs) && began.elapsed() < config::STOP_INSIDE_MAX {
        std::thread::sleep(config::SQLITE_RETRY);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(left) = self.stop() {
            tracing::error!(%left, "node dropped");
        }
    }
}

/// The directory at `path`, checked.
///
/// # Errors
/// Those of `Directory::open`.
pub fn open_directory(path: &Path) -> Result<Directory, StorageError> {
    Directory::open(Arc::new(FileDisk), path)
}

/// Waits for the first failure of any part, then ends consensus and all connections.
async fn supervise(engine: Engine, connections: Connections, stop: CancellationToken, failure: Failure) {
    let mut status = engine.status();
    let reason = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        reason = failure.reported() => reason,
        status = status.wait_for(|status| status.failed.is_some()) => {
            let failed = status.ok().and_then(|status| status.failed.clone());
            format!("consensus: {}", failed.unwrap_or_else(|| "ended".to_owned()))
        }
    };
    failure.report(&reason);
    engine.mark_failed(reason);
    connections.end();
    engine.shutdown().await;
}

/// Tells consensus when the log cannot be written, until the log thread ends.
async fn follow_log(engine: Engine, mut state: watch::Receiver<bool>) {
    while state.changed().await.is_ok() {
        let failing = *state.borrow_and_update();
        engine.set_log_failing(failing).await;
    }
}

fn open(path: &Path, id: NodeId, address: &[u8], options: &Options) -> Result<Opened, StartError> {
    let directory = open_directory(path).map_err(StartError::raft)?;
    let lock = directory.lock().map_err(|error| StartError(error.to_string()))?;
    directory.clean_up(&lock).map_err(StartError::raft)?;
    if id == NodeId(1) || id == BOOTSTRAP_ID {
        // compat: upstream gives no reason.
        bootstrap(&directory, &lock, id, address).map_err(|_| StartError("raft_bootstrap(): ".to_owned()))?;
    }
    let space = if options.disk_mode {
        let scratch = Arc::new(UnnamedFiles::new(directory.path()));
        PageSpace::on_disk(scratch, config::PAGE_CACHE_BYTES)
            .map_err(|error| StartError(format!("disk mode: no page file in the data directory: {error}")))?
    } else {
        PageSpace::memory()
    };
    let options = LoadOptions {
        auto_recovery: options.auto_recovery,
        wall_clock: Arc::new(SystemWallClock),
        payloads: payloads(&space),
    };
    let loaded = load(&directory, &lock, &options).map_err(StartError::raft)?;
    Ok(Opened { directory, lock, loaded, space })
}

/// Where payloads of entries go that need not be in memory.
fn payloads(space: &PageSpace) -> Option<Arc<dyn PayloadStore>> {
    space.file().map(|file| {
        let file: Arc<dyn PayloadStore> = Arc::<PageFile>::clone(file);
        file
    })
}

struct EngineParts<'a> {
    id: NodeId,
    address: Vec<u8>,
    options: &'a Options,
    log: LogSender,
    directory: Directory,
    loaded: Loaded,
    space: PageSpace,
    live: &'a Arc<LiveSettings>,
    failure: &'a Failure,
    dial: Arc<dyn Dial>,
}

fn core_parts(threads: &Threads, parts: EngineParts<'_>) -> CoreParts {
    let payloads = payloads(&parts.space);
    let store = PageStore::in_space(parts.space);
    let failure = parts.failure.clone();
    let started = Instant::now();
    let seed = SystemWallClock.since_epoch().as_nanos() as u64 ^ parts.id.0 ^ u64::from(std::process::id());
    let compress: Arc<AtomicBool> = Arc::clone(&parts.live.snapshot_compression);
    let wall = SystemWallClock.since_epoch();
    let timestamp_ms = move || (wall + started.elapsed()).as_millis() as u64;
    let engine = EngineOptions {
        id: parts.id,
        address: parts.address,
        heartbeat_interval: parts.options.heartbeat_interval,
        election_timeout: parts.options.election_timeout,
        snapshot_policy: SnapshotPolicy {
            threshold_entries: u64::from(parts.options.snapshot_threshold),
            trailing_entries: u64::from(parts.options.snapshot_trailing),
            pace: parts.options.snapshot_pace,
        },
        consensus: Tasks::new(threads.consensus().clone()),
        pool: Arc::new(threads.files()),
        random: Arc::new(RandomSource::from_seed(seed)),
        log: parts.log,
        loaded: parts.loaded,
        snapshots: Arc::new(SnapshotFiles::new(parts.directory, timestamp_ms, compress)),
        machine: Box::new(Databases::new(Arc::clone(&store), empty_page())),
        hooks: Arc::new(StoreEpochs(Arc::clone(&store))),
        dial: parts.dial,
        payloads,
    };
    CoreParts {
        store,
        engine,
        sql_tasks: Tasks::new(threads.sql().clone()),
        sql: SqlSection::BlockInPlace,
        sql_threads: (parts.options.pool_thread_count as usize).max(1),
        live: Arc::clone(parts.live),
        on_panic: Box::new(move |text| failure.report(&format!("SQLite callback: {text}"))),
    }
}

fn start_core(threads: &Threads, parts: CoreParts) -> Result<Core, StartError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    threads.consensus().spawn(async move {
        // The receiver waits for just this.
        let _ = sender.send(Core::start(parts).await);
    });
    match receiver.recv() {
        Ok(started) => started.map_err(|error| StartError(format!("raft_start(): {error}"))),
        Err(_) => Err(StartError("raft_start(): the consensus thread has stopped".to_owned())),
    }
}

/// Accepts clients for ever.
fn accept(
    threads: &Threads,
    listening: Listening,
    gateway: Arc<Gateway>,
) -> Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>, StartError> {
    let _entered = threads.sql().enter();
    let failed = |error: std::io::Error| StartError(format!("listen: {error}"));
    Ok(match listening {
        Listening::Tcp(listener) => {
            let listener = TcpListener::from_std(listener).map_err(failed)?;
            Box::pin(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            // Replies are whole messages: waiting for more gains nothing.
                            let _ = stream.set_nodelay(true);
                            gateway.serve(stream);
                        }
                        Err(error) => after_failed_accept(&error).await,
                    }
                }
            })
        }
        Listening::Unix(listener) => {
            let listener = UnixListener::from_std(listener).map_err(failed)?;
            Box::pin(async move {
                loop {
                    match listener.accept().await {
                        // spec: c-api 3.3: only this process may connect.
                        Ok((stream, _)) if is_from_this_process(&stream).unwrap_or(false) => {
                            gateway.serve(stream);
                        }
                        Ok(_) => {}
                        Err(error) => after_failed_accept(&error).await,
                    }
                }
            })
        }
    })
}

async fn after_failed_accept(error: &std::io::Error) {
    tracing::warn!(%error, "accept");
    tokio::time::sleep(config::ACCEPT_RETRY).await;
}

#[cfg(test)]
#[path = "running_failure_tests.rs"]
mod failure_tests;
