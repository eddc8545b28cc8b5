//! Being inside SQLite, as a value. Every call of SQLite on a connection or a statement wants it, and only whoever holds a
//! permit makes one: a call without a permit does not compile.

use std::marker::PhantomData;

use super::threading::{SerialGuard, serial_guard, sqlite_is_serial};

/// The calling thread may call SQLite.
#[derive(Debug)]
pub struct Inside {
    /// Held if SQLite has no mutexes: hosts register and drop VFSs without a permit.
    _serial: Option<SerialGuard>,
    /// Of this thread.
    _thread: PhantomData<*const ()>,
}

impl Inside {
    /// For whoever holds a permit.
    pub(in crate::executor) fn with_permit(serial: bool) -> Inside {
        Inside { _serial: serial_guard(serial), _thread: PhantomData }
    }

    /// For whoever is alone with a connection on a thread of its own, such as a test: waits for SQLite if it has no mutexes.
    #[must_use]
    pub fn alone() -> Inside {
        Inside { _serial: serial_guard(sqlite_is_serial()), _thread: PhantomData }
    }
}
