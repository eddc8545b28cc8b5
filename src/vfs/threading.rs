//! Whether the process's SQLite may be used by several threads at once, and the one place for a thread in it if not.
//! spec: c-api 3.0 "SQLite coupling".

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use libsqlite3_sys as sqlite;

use crate::host::per_process::PerProcess;

/// The one thread inside a SQLite that has no mutexes.
static SERIAL: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);

thread_local! {
    /// Guards that this thread holds.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Keeps other threads out of SQLite. The thread that holds one may take more.
#[derive(Debug)]
pub struct SerialGuard {
    _guard: Option<MutexGuard<'static, ()>>,
}

impl SerialGuard {
    fn new(guard: Option<MutexGuard<'static, ()>>) -> SerialGuard {
        HELD.set(HELD.get() + 1);
        SerialGuard { _guard: guard }
    }
}

impl Drop for SerialGuard {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// Holds SQLite for the calling thread if SQLite has no mutexes of its own.
#[must_use]
pub fn serial_guard(serial: bool) -> Option<SerialGuard> {
    if !serial {
        return None;
    }
    if HELD.get() > 0 {
        return Some(SerialGuard::new(None));
    }
    Some(SerialGuard::new(Some(SERIAL.get().lock().unwrap_or_else(PoisonError::into_inner))))
}

/// Holds SQLite for the calling thread unless another one does.
#[must_use]
pub fn try_serial_guard() -> Option<SerialGuard> {
    if HELD.get() > 0 {
        return Some(SerialGuard::new(None));
    }
    match SERIAL.get().try_lock() {
        Ok(guard) => Some(SerialGuard::new(Some(guard))),
        Err(TryLockError::Poisoned(poisoned)) => Some(SerialGuard::new(Some(poisoned.into_inner()))),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// What `sqlite3_mutex_alloc` returns for a static mutex when mutexes do nothing.
const DUMMY_MUTEX: usize = 8;

/// Whether every SQLite call of the process must be made one at a time: SQLite was built or configured for a single
/// thread. Initialises SQLite: not before `dqlite_node_create`.
#[must_use]
pub fn sqlite_is_serial() -> bool {
    // SAFETY: takes nothing, returns a constant.
    if unsafe { sqlite::sqlite3_threadsafe() } == 0 {
        return true;
    }
    // SAFETY: a static mutex is neither made nor to be freed.
    let mutex = unsafe { sqlite::sqlite3_mutex_alloc(sqlite::SQLITE_MUTEX_STATIC_MAIN) };
    mutex.is_null() || mutex.addr() == DUMMY_MUTEX
}

#[cfg(test)]
mod tests {
    use super::{serial_guard, try_serial_guard};

    #[test]
    fn a_thread_may_hold_sqlite_twice_and_keeps_others_out_until_it_holds_it_no_more() {
        let outer = serial_guard(true);
        let inner = serial_guard(true);
        drop(inner);

        assert!(std::thread::spawn(|| try_serial_guard().is_none()).join().unwrap());
        drop(outer);
        assert!(std::thread::spawn(|| serial_guard(true).is_some()).join().unwrap());
        assert!(serial_guard(false).is_none());
        assert!(std::thread::spawn(|| try_serial_guard().is_some()).join().unwrap());
        let again = serial_guard(true);
        assert!(try_serial_guard().is_some());
        assert!(std::thread::spawn(|| try_serial_guard().is_none()).join().unwrap());
        drop(again);
    }

    #[test]
    fn sqlite_as_distributed_has_real_mutexes() {
        assert!(!super::sqlite_is_serial());
    }
}
