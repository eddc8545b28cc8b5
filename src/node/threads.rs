//! The runtimes of a node and their threads: consensus, SQL. architecture "Threads".

use std::any::Any;
use std::cell::OnceCell;
use std::convert::identity;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::opened::Opened;
use super::own_threads::OwnThreads;
use super::pool::Pool;
use super::sql_runtime;
use crate::host::register::Register;
use crate::host::{descriptors, panics, threads};
use crate::types::config;
use crate::types::tasks::{OnPanic, Tasks};

/// The runtimes of a node, which `shut_down` ends.
#[derive(Debug)]
pub struct Threads {
    sql: Option<Runtime>,
    own: OwnThreads,
    files: Pool,
    dials: Pool,
    consensus: Consensus,
    consensus_tasks: Tasks,
    failure: Failure,
    /// What the runtimes have opened themselves.
    opened: Opened,
}

/// The consensus thread, which is told to end when this is dropped.
#[derive(Debug)]
struct Consensus {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Consensus {
    fn start(failure: Failure) -> io::Result<Consensus> {
        let build = || Builder::new_current_thread().enable_all().build();
        let runtime = descriptors::with_standard_taken(build)
            .and_then(identity)
            .map_err(|error| io::Error::new(error.kind(), format!("no runtime for consensus: {error}")))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = threads::spawn("dqlite-raft", None, move || {
            panics::stay_without_descriptors();
            run_consensus(runtime, stopped, &failure);
        })?;
        Ok(Consensus { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Consensus {
    /// Ends the thread; whether it has ended by `deadline`. One whose runtime cannot be woken stays.
    fn end(&mut self, deadline: Instant) -> bool {
        // Waking a runtime whose descriptors others have closed panics; its thread ends all the same.
        drop(catch_unwind(AssertUnwindSafe(|| drop(self.stop.take()))));
        // Its panics were caught inside.
        self.thread.take().is_none_or(|thread| join_until(thread, deadline))
    }
}

impl Consensus {
    /// Leaves the thread as it is.
    fn leave(&mut self) {
        std::mem::forget(self.stop.take());
        self.thread = None;
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.end(Instant::now() + config::STOP_LOST_MAX);
    }
}

fn run_consensus(runtime: Runtime, stopped: oneshot::Receiver<()>, failure: &Failure) {
    // Ends when the sender goes, too.
    match catch_unwind(AssertUnwindSafe(|| drop(runtime.block_on(stopped)))) {
        Ok(()) => runtime.shutdown_background(),
        Err(panic) => {
            // Panics of tasks are caught elsewhere: the runtime has lost its descriptors. Their numbers may be others' by now, and
            // what wakes its tasks panics, so nothing of it is ever dropped.
            std::mem::forget(runtime);
            failure.report(&format!("consensus thread: {}", panic_text(panic.as_ref())));
        }
    }
}

impl Threads {
    /// Starts the consensus thread and the SQL runtime, whose threads are `own`. One that ends by itself is a `failure`. What they open
    /// is entered in the register.
    ///
    /// # Errors
    /// The operating system's; nothing is left.
    pub fn start(failure: &Failure, own: OwnThreads, register: &Register) -> io::Result<Threads> {
        let consensus = Consensus::start(failure.clone())?;
        let sql = sql_runtime::build(&own, failure)?;
        let files = Pool::start(sql.handle().clone(), "dqlite-files", || {})?;
        let joins = own.clone();
        let dials = match Pool::start(sql.handle().clone(), "dqlite-dial", move || joins.join()) {
            Ok(dials) => dials,
            Err(error) => {
                files.end(None);
                return Err(error);
            }
        };
        let hears = failure.clone();
        let on_panic: OnPanic = Arc::new(move |panic: &(dyn Any + Send)| {
            hears.report(&format!("task of consensus: {}", panic_text(panic)));
        });
        let consensus_tasks = Tasks::telling(consensus.handle.clone(), on_panic);
        let failure = failure.clone();
        let opened = Opened::by(&[(&consensus.handle, "consensus"), (sql.handle(), "SQL")], register);
        Ok(Threads { files, dials, sql: Some(sql), own, consensus, consensus_tasks, failure, opened })
    }

    /// Tasks on the consensus thread; the node has failed when one panics.
    #[must_use]
    pub fn consensus(&self) -> &Tasks {
        &self.consensus_tasks
    }

    /// Whether consensus has ended by itself, since its descriptors were closed by others.
    #[must_use]
    pub fn have_lost_descriptors(&self) -> bool {
        self.consensus.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Whether they can be ended: consensus has not ended by itself, and all that the runtimes have opened is there. One that has not all
    /// would close what has the number by now.
    #[must_use]
    pub fn are_whole(&self) -> bool {
        !self.have_lost_descriptors() && self.opened.are_there()
    }

    /// Runs a task of consensus and blocks the caller until it has ended; `None` if the runtime ended first, if the task panicked, or
    /// if it takes long without descriptors that others have closed: then the runtime may be of no use though it runs; or `longest`,
    /// since the thread itself may be held up, and with it every time limit of the task.
    pub fn wait_for<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
        longest: Duration,
    ) -> Option<T> {
        let began = Instant::now();
        let lost_since = OnceCell::new();
        let is_late = || {
            self.failure.has_lost_descriptors()
                && lost_since.get_or_init(Instant::now).elapsed() > config::STOP_LOST_MAX
        };
        wait_for(self.consensus(), task, || {
            self.have_lost_descriptors() || is_late() || began.elapsed() > longest
        })
    }

    /// Where connections and SQL run.
    #[must_use]
    pub fn sql(&self) -> &Handle {
        // Only `shut_down`, which takes the object, removes the runtime.
        self.sql.as_ref().map_or(&self.consensus.handle, Runtime::handle)
    }

    /// A pool for work on files, which ends by itself.
    #[must_use]
    pub fn files(&self) -> Pool {
        self.files.clone()
    }

    /// A pool for the host's connect function, which may never return.
    #[must_use]
    pub fn dials(&self) -> Pool {
        self.dials.clone()
    }

    /// Waits until no file is worked on, or until `deadline`, and takes no such work any more. How many are still worked on.
    pub fn finish_files_until(&self, deadline: Instant) -> usize {
        self.files.hurry();
        self.files.end(Some(deadline))
    }

    /// Leaves the runtimes, of which others have closed descriptors, as they are: their ends would close what has the numbers by now,
    /// and wake what cannot be woken. Files are waited for. How many threads are left.
    #[must_use]
    pub fn leave(mut self, deadline: Instant) -> usize {
        self.finish_files_until(deadline);
        self.sql.take().map_or(0, |sql| self.leave_runtimes(sql))
    }

    fn leave_runtimes(&mut self, sql: Runtime) -> usize {
        let left = self.own.alive() + usize::from(!self.have_lost_descriptors());
        self.consensus.leave();
        // A thread that panics asks whether what was opened is there.
        std::mem::forget((sql, std::mem::take(&mut self.opened)));
        left
    }

    /// Ends all threads; tasks that are left are dropped. What is inside SQLite or the host's functions is waited for at most so
    /// long. How many threads are left.
    ///
    /// # Errors
    /// Others have closed meanwhile what the runtimes have opened: how many threads are left then.
    pub(super) fn shut_down(mut self, longest: Duration) -> Result<usize, WithoutDescriptors> {
        self.end(longest)
    }

    /// Once: what was ended or left has no runtime any more.
    fn end(&mut self, longest: Duration) -> Result<usize, WithoutDescriptors> {
        let Some(sql) = self.sql.take() else { return Ok(0) };
        let deadline = Instant::now() + longest;
        self.finish_files_until(deadline);
        self.dials.end(Some(deadline));
        // Asked last, since a host that closes something does so at any time.
        if !self.are_whole() {
            return Err(WithoutDescriptors(self.leave_runtimes(sql)));
        }
        let was_woken = end_runtime(sql, deadline);
        let has_ended = self.consensus.end(Instant::now() + config::STOP_REST_MAX);
        let left = self.own.alive() + usize::from(!has_ended);
        if was_woken { Ok(left) } else { Err(WithoutDescriptors(left + 1)) }
    }
}

impl Drop for Threads {
    // Those of a start that failed. Nobody is told what is left of them.
    fn drop(&mut self) {
        let _ = self.end(config::STOP_CALLBACK_MAX);
    }
}

/// So many threads are left in runtimes whose descriptors others have closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WithoutDescriptors(pub usize);

/// Ends a runtime by `deadline`; whether it could be woken. To wake one whose descriptors others have closed panics, and what that would
/// unwind wakes it again, or waits for its threads without end: so it is done on a thread of its own, which is left then.
fn end_runtime(runtime: Runtime, deadline: Instant) -> bool {
    let runtime = Arc::new(Mutex::new(Some(runtime)));
    let take =
        |runtime: &Mutex<Option<Runtime>>| runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
    let end = move |runtime: Option<Runtime>| {
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    };
    let its = Arc::clone(&runtime);
    let work = move || {
        panics::stay_without_descriptors();
        end(take(&its));
    };
    match threads::spawn("dqlite-end", None, work) {
        Ok(thread) => join_until(thread, deadline + config::STOP_LOST_MAX),
        Err(_) => {
            end(take(&runtime));
            true
        }
    }
}

/// Runs a task and blocks the caller until it has ended, or `is_over`.
pub(super) fn wait_for<T: Send + 'static>(
    tasks: &Tasks,
    task: impl Future<Output = T> + Send + 'static,
    is_over: impl Fn() -> bool,
) -> Option<T> {
    let (sender, receiver) = channel();
    let task = async move {
        // The receiver waits for just this.
        let _ = sender.send(task.await);
    };
    // A runtime whose descriptors others have closed cannot be woken, which panics.
    catch_unwind(AssertUnwindSafe(|| drop(tasks.another().spawn(task)))).ok()?;
    receive(&receiver, is_over)
}

/// What a task sends that may be lost with its runtime; `None` if it cannot send any more, or `is_over`.
pub(super) fn receive<T>(receiver: &Receiver<T>, is_over: impl Fn() -> bool) -> Option<T> {
    loop {
        match receiver.recv_timeout(config::RUNTIME_LOOKED_AT_EVERY) {
            Ok(result) => return Some(result),
            Err(RecvTimeoutError::Timeout) if !is_over() => {}
            Err(_) => return None,
        }
    }
}

/// Joins a thread that ends by `deadline`; whether it has ended, and without a panic. Another one is left.
pub(super) fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(config::DESTROY_LOOKS_EVERY);
    }
    thread.join().is_ok()
}

/// The text of a panic.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a text".to_owned()
    }
}
