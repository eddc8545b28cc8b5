//! Looks at the descriptors of a node, on a thread that needs none of them: a runtime whose own are gone notices nothing, or hangs.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::failure::Failure;
use super::threads::join_until;
use crate::host::register::Register;
use crate::host::threads;
use crate::types::config::{DESCRIPTORS_LOOKED_AT_EVERY, STOP_REST_MAX};

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lookout {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Looks at `register` until this is dropped; what is missing is a failure of the node.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(register: Register, failure: Failure) -> io::Result<Lookout> {
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
        Ok(Lookout { ended, thread: Some(thread) })
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
