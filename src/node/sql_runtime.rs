//! The runtime of connections and SQL. tokio makes its first threads while it is built, and if one of them cannot be had, it panics and
//! then waits for those that it has: so these wait at a gate, and leave when it does not open in time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Builder, Runtime};

use super::failure::Failure;
use super::own_threads::{OwnThreads, leave_runtime};
use super::threads::panic_text;
use crate::host::{descriptors, panics, signals, threads};
use crate::types::config;

const NAME: &str = "dqlite-sql";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// The runtime is being built.
    Waiting,
    /// It has been built.
    Open,
    /// It has not, in time.
    Closed,
}

#[derive(Debug)]
struct Gate {
    entry: Mutex<Entry>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the calling thread may go in.
    fn enter(&self) -> bool {
        let waiting = |entry: &mut Entry| *entry == Entry::Waiting;
        let waited = self.changed.wait_timeout_while(self.lock(), config::THREADS_START_MAX, waiting);
        let (mut entry, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *entry == Entry::Waiting {
            *entry = Entry::Closed;
        }
        *entry == Entry::Open
    }

    /// Lets threads in; false if some have given up.
    fn open(&self) -> bool {
        let mut entry = self.lock();
        if *entry == Entry::Waiting {
            *entry = Entry::Open;
        }
        self.changed.notify_all();
        *entry == Entry::Open
    }
}

/// Builds the runtime; threads of it belong to `own`, and one that ends by a panic is a `failure`.
///
/// # Errors
/// A thread or a descriptor cannot be had.
pub(super) fn build(own: &OwnThreads, failure: &Failure) -> io::Result<Runtime> {
    threads::probe(NAME, config::SQL_WORKER_THREADS, config::SQL_STACK_BYTES)?;
    let gate = Arc::new(Gate { entry: Mutex::new(Entry::Waiting), changed: Condvar::new() });
    let (entrance, own, failure) = (Arc::clone(&gate), own.clone(), failure.clone());
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(config::SQL_WORKER_THREADS)
        .max_blocking_threads(config::BLOCKING_THREADS_MAX)
        .thread_name(NAME)
        .on_thread_start(move || {
            panics::log_here();
            panics::stay_without_descriptors();
            if !entrance.enter() {
                // It ends; nothing is told, since whoever builds the runtime tells it.
                resume_unwind(Box::new("the runtime was not built"));
            }
            own.clone().join_runtime(failure.clone());
        })
        .on_thread_stop(leave_runtime)
        .thread_stack_size(config::SQL_STACK_BYTES)
        .enable_all();
    let build = || descriptors::with_standard_taken(|| signals::blocked(|| builder.build()));
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(Ok(Ok(runtime))) if gate.open() => Ok(runtime),
        Ok(Ok(Ok(runtime))) => {
            runtime.shutdown_background();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("threads {NAME} took too long to start")))
        }
        Ok(Ok(Err(error)) | Err(error)) => {
            Err(io::Error::new(error.kind(), format!("no runtime {NAME}: {error}")))
        }
        Err(panic) => Err(io::Error::other(format!("no thread {NAME}: {}", panic_text(panic.as_ref())))),
    }
}
