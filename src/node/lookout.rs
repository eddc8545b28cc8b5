//! Looks at the descriptors of a node, on a thread that needs none of them: a runtime whose own are gone notices nothing, or hangs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::Handle;

use super::failure::Failure;
use super::threads::join_until;
use crate::host::descriptors::above_standard;
use crate::host::register::{Register, Ticket};
use crate::host::{epoll, threads};
use crate::types::config::{DESCRIPTORS_LOOKED_AT_EVERY, STOP_REST_MAX};

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lookout {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    /// The runtimes' own descriptors.
    runtimes: Vec<Ticket>,
}

impl Lookout {
    /// Looks at `register`, to which the descriptors of the named runtimes are added, until this is dropped; one that is missing is a
    /// failure of the node.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(
        register: Register,
        failure: Failure,
        runtimes: &[(&Handle, &str)],
    ) -> io::Result<Lookout> {
        let runtimes = runtimes.iter().flat_map(|(runtime, name)| of_runtime(&register, runtime, name));
        let runtimes = runtimes.collect();
        register.guard_panics();
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&ended);
        let thread = threads::spawn("dqlite-lookout", None, move || {
            let (ended, changed) = &*shared;
            loop {
                let waiting = ended.lock().unwrap_or_else(PoisonError::into_inner);
                let waited =
                    changed.wait_timeout_while(waiting, DESCRIPTORS_LOOKED_AT_EVERY, |ended| !*ended);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                if let Some(lost) = register.look() {
                    failure.report(&lost.to_string());
                }
            }
        })?;
        Ok(Lookout { ended, thread: Some(thread), runtimes })
    }
}

impl Lookout {
    /// Whether the runtimes have all that they have opened. One that has not must not be ended: it would close what has the number by
    /// now.
    pub(super) fn has_whole_runtimes(&self) -> bool {
        self.runtimes.iter().all(|ticket| ticket.check().is_ok())
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        let (ended, changed) = &*self.ended;
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        // It does nothing that panics. A file system that hangs may keep it.
        if let Some(thread) = self.thread.take() {
            join_until(thread, Instant::now() + STOP_REST_MAX);
        }
    }
}

/// Enters what a runtime itself has open: nobody tells, so it is found as what watches a socket that is given to it. Nothing where the
/// system has no /proc.
fn of_runtime(register: &Register, runtime: &Handle, name: &str) -> Vec<Ticket> {
    let probe = || -> io::Result<tokio::net::UnixDatagram> {
        let socket = UnixDatagram::from(above_standard(OwnedFd::from(UnixDatagram::unbound()?))?);
        socket.set_nonblocking(true)?;
        let _entered = runtime.enter();
        tokio::net::UnixDatagram::from_std(socket)
    };
    let Ok(probe) = probe() else { return Vec::new() };
    let found = epoll::watching(probe.as_raw_fd());
    let polls = found.polls.into_iter().map(|number| (number, format!("epoll of {name}")));
    let events = found.others.into_iter().map(|number| (number, format!("eventfd of {name}")));
    // One for which there is no spare is not looked at.
    polls.chain(events).filter_map(|(number, what)| register.enter_with_spare(number, &what).ok()).collect()
}
