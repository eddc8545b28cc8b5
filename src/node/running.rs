//! A running node: lock, bootstrap, load, threads, listener; and its orderly end. spec: c-api 3.8, 3.9, 3.11.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::accepting::accept;
use super::background::Background;
use super::core::{Core, CoreParts, LiveSettings, take_from_sqlite};
use super::failure::Failure;
use super::handing_over::HandingOver;
use super::lookout::Lookout;
use super::opening::{EngineParts, core_parts, open};
use super::roles::EngineMembership;
use super::roles::handover::Handover;
use super::roles::rounds::RoleManagement;
use super::run_parts::RunParts;
use super::start::{StartError, ThreadsLeft, Watch};
use super::supervision::{supervise, watch_directory};
use super::threads::{Threads, WithoutDescriptors};
use super::vault_thread::VaultQueue;
use super::writers::{Begun, Writers};
use crate::host::room;
use crate::storage::directory::LockWatch;
use crate::storage::load::SetAside;
use crate::storage::log::LogStatistics;
use crate::transport::dial::{Dial, PooledDial};
use crate::transport::listener::Listening;
use crate::transport::spares::Spares;
use crate::types::config;
use crate::vfs::Vfs;

/// Threads and tasks of a node that was started.
pub struct Running {
    core: Option<Core>,
    writers: Option<Writers>,
    threads: Option<Threads>,
    failure: Failure,
    statistics: Arc<LogStatistics>,
    live: Arc<LiveSettings>,
    set_aside: Vec<SetAside>,
    dial: Arc<dyn Dial>,
    /// Ends role management.
    roles: CancellationToken,
    lookout: Option<Lookout>,
    end_accepting: Option<Box<dyn FnOnce() + Send>>,
}

/// What clients are served with.
struct Serving {
    listening: Listening,
    spares: Arc<Spares>,
    vault: VaultQueue,
    lock: LockWatch,
}

impl Running {
    /// Starts a node; returns when it serves clients.
    ///
    /// # Errors
    /// The directory is in use or cannot be loaded, the listener or a thread cannot be had.
    pub fn start(parts: RunParts) -> Result<Running, StartError> {
        Running::start_unless(parts, &Watch::default())
    }

    /// The same, unless it is told to give up meanwhile.
    ///
    /// # Errors
    /// As above; it was told to.
    pub fn start_unless(parts: RunParts, watch: &Watch) -> Result<Running, StartError> {
        let opened = open(parts.directory, parts.lock, parts.id, &parts.address, &parts.options)?;
        let register = opened.directory.descriptors();
        // Before the log is read: whoever connects meanwhile waits.
        let listening = parts
            .listener
            .listen(config::LISTEN_BACKLOG, &register)
            .map_err(|error| StartError(format!("listen: {error}")))?;
        watch.still_wanted()?;
        let failure = watch.failure.clone();
        check_addresses()?;
        let threads = Threads::start(&failure, watch.own.clone(), &register);
        let threads = threads.map_err(|error| StartError(format!("threads: {error}")))?;
        failure.watch_descriptors(register.clone());
        let lookout = Lookout::start(register.clone(), failure.clone());
        let lookout = lookout.map_err(|error| StartError(format!("threads: {error}")))?;
        let set_aside = opened.loaded.set_aside.clone();
        let lock = opened.lock.watch();
        let begun =
            Writers::start(&opened.directory, opened.lock, &opened.loaded, threads.files(), &failure)?;
        let Begun { writers, sender, statistics, votes } = begun;
        let spares = Spares::hold(&register);
        let dials = Arc::new(threads.dials());
        let dial: Arc<dyn Dial> = Arc::new(PooledDial::new(parts.connector, dials, Arc::clone(&spares)));
        let core_parts = core_parts(
            &threads,
            EngineParts {
                id: parts.id,
                address: parts.address,
                options: &parts.options,
                log: sender,
                directory: opened.directory,
                loaded: opened.loaded,
                space: opened.space,
                live: &parts.live,
                failure: &failure,
                dial: Arc::clone(&dial),
            },
        );
        // Behind the threads, whose stacks count where addresses are limited.
        let core = check_memory().and_then(|()| start_core(&threads, core_parts));
        // Whatever has failed, or fails from here on, stops the node again.
        let mut running = Running {
            core: None,
            writers: Some(writers),
            threads: Some(threads),
            failure,
            statistics,
            live: parts.live,
            set_aside,
            dial,
            roles: CancellationToken::new(),
            lookout: Some(lookout),
            end_accepting: None,
        };
        running.core = Some(core?);
        running.serve(Serving { listening, spares, vault: votes, lock })?;
        Ok(running)
    }

    /// Accepts clients, and ends everything when a part has failed.
    fn serve(&mut self, serving: Serving) -> Result<(), StartError> {
        let (Some(core), Some(threads)) = (&self.core, &self.threads) else { return Ok(()) };
        let Serving { listening, spares, vault, lock } = serving;
        let accepting = accept(threads, listening, Arc::clone(core.gateway()), spares)
            .map_err(|error| StartError(format!("listen: {error}")))?;
        self.end_accepting = Some(accepting.end);
        let stop = core.stopping();
        let until_stopped = |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = stop.clone();
            async move {
                tokio::select! { biased; () = stop.cancelled() => {} () = task => {} }
            }
        };
        core.sql_tasks().spawn(until_stopped(accepting.task));
        let (connections, stop) = (core.connections(), core.stopping().clone());
        let supervision = supervise(core.engine().clone(), connections, stop, self.failure.clone(), vault);
        threads.consensus().spawn(supervision);
        let membership = Arc::new(EngineMembership(core.engine().clone()));
        let (dial, live) = (Arc::clone(&self.dial), Arc::clone(&self.live));
        let roles = RoleManagement::new(core.engine().id(), membership, dial, live);
        let managing = roles.run(self.roles.clone());
        threads.consensus().spawn(until_stopped(Box::pin(managing)));
        let (pool, stop, failure) = (threads.files(), core.stopping().clone(), self.failure.clone());
        threads.consensus().spawn(watch_directory(lock, pool, stop, failure));
        Ok(())
    }

    /// Segments that the start has set aside.
    #[must_use]
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
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

    /// What the log has written since the start.
    #[must_use]
    pub fn log_statistics(&self) -> &LogStatistics {
        &self.statistics
    }

    /// Gives leadership and vote to other nodes, while the node may be stopped; roles are not managed here any more. `None` after
    /// the stop.
    #[must_use]
    pub fn handing_over(&self) -> Option<HandingOver> {
        let (core, threads) = (self.core.as_ref()?, self.threads.as_ref()?);
        let handover = Handover {
            own: core.engine().id(),
            membership: Arc::new(EngineMembership(core.engine().clone())),
            dial: Arc::clone(&self.dial),
            roles: self.roles.clone(),
        };
        let (consensus, stop) = (threads.consensus().clone(), core.stopping().clone());
        Some(HandingOver { handover, consensus, stop, failure: self.failure.clone() })
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
            failure: self.failure.clone(),
        })
    }

    /// Ends the epoch, connections, consensus, log and threads, in this order. The directory is free afterwards, whoever is inside
    /// SQLite or a function of the host.
    ///
    /// # Errors
    /// Threads did not return from there, or from the disk: then they keep the directory.
    pub fn stop(&mut self) -> Result<(), ThreadsLeft> {
        let Some(threads) = self.threads.take() else { return Ok(()) };
        threads.files().hurry();
        if let Some(writers) = &self.writers {
            writers.give_up();
        }
        // The workers of the SQL runtime may all be inside SQLite. An error means that the task panicked; the threads end all the same.
        let stopped = self.core.take().and_then(|core| threads.wait_for(core.stop(), config::STOP_CORE_MAX));
        if let Some(end_accepting) = self.end_accepting.take() {
            end_accepting();
        }
        // Until here, since it puts back what it can.
        drop(self.lookout.take());
        let is_late = stopped.is_none() && self.failure.has_lost_descriptors();
        if is_late || !threads.are_whole() {
            return self.leave(threads);
        }
        // What does not return from the disk keeps the directory.
        let deadline = Instant::now() + config::STOP_DISK_MAX;
        let at_files = threads.finish_files_until(deadline);
        let writing = self.writers.take().map_or(0, |writers| writers.join_until(deadline));
        if at_files + writing > 0 {
            let left = threads.shut_down(config::STOP_REST_MAX);
            let left = left.unwrap_or_else(|WithoutDescriptors(left)| left).max(at_files) + writing;
            let seconds = config::STOP_DISK_MAX.as_secs();
            return Err(ThreadsLeft::Inside {
                threads: left,
                whence: "the disk, and keep the directory,",
                seconds,
            });
        }
        let has_answered = stopped.is_some();
        let inside = stopped.filter(|stopped| !stopped.is_quiet);
        let (whence, longest) = match inside {
            // Its tasks may never be woken again.
            Some(_) if self.failure.has_lost_descriptors() => ("SQLite", config::STOP_LOST_MAX),
            Some(_) => ("SQLite", config::STOP_LEFT_MAX),
            None if has_answered => ("the connect function", config::STOP_CALLBACK_MAX),
            None => ("consensus, or the connect function", config::STOP_CALLBACK_MAX),
        };
        match threads.shut_down(longest) {
            Ok(0) => {}
            Ok(threads) => return Err(ThreadsLeft::Inside { threads, whence, seconds: longest.as_secs() }),
            Err(WithoutDescriptors(threads)) => return Err(ThreadsLeft::WithoutDescriptors { threads }),
        }
        if let Some(inside) = inside {
            take_in_time(&inside.vfs);
        }
        Ok(())
    }

    /// Leaves runtimes of which others have closed descriptors, and gives the directory back, if nobody writes to it any more.
    fn leave(&mut self, threads: Threads) -> Result<(), ThreadsLeft> {
        let deadline = Instant::now() + config::STOP_LOST_MAX;
        let left = threads.leave(deadline);
        let left = left + self.writers.take().map_or(0, |writers| writers.join_until(deadline));
        match left {
            0 => Ok(()),
            threads => Err(ThreadsLeft::WithoutDescriptors { threads }),
        }
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

/// Whether there are addresses for that and for a thread that comes meanwhile.
fn check_addresses() -> Result<(), StartError> {
    let bytes = config::START_ADDRESS_BYTES;
    room::check(bytes)
        .map_err(|error| StartError(format!("memory: a node needs {bytes} bytes to start with: {error}")))
}

/// Whether there is memory for what every node has, of which some parts, when they are refused, end the process: 13 MB in one piece for a
/// table of openraft's, for example.
fn check_memory() -> Result<(), StartError> {
    check_addresses()?;
    let bytes = config::START_MEMORY_BYTES;
    // Nothing is written there: it costs no more than the question.
    match Vec::<u8>::new().try_reserve_exact(bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(StartError(format!("memory: a node needs {bytes} bytes to start with"))),
    }
}

fn start_core(threads: &Threads, parts: CoreParts) -> Result<Core, StartError> {
    // A large snapshot takes as long as it takes.
    match threads.wait_for(Core::start(parts), Duration::MAX) {
        Some(started) => started.map_err(|error| StartError(format!("raft_start(): {error}"))),
        None => Err(StartError("raft_start(): the consensus thread has stopped".to_owned())),
    }
}

#[cfg(test)]
#[path = "running_failure_tests.rs"]
mod failure_tests;
