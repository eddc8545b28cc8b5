//! Whether the process's SQLite may be used by several threads at once. spec: c-api 3.0 "SQLite coupling".

use libsqlite3_sys as sqlite;

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
    #[test]
    fn sqlite_as_distributed_has_real_mutexes() {
        assert!(!super::sqlite_is_serial());
    }
}
