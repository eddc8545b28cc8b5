//! One SQLite connection. It is closed by `close` alone: one that is dropped stays open for ever, since whoever drops it may not
//! be inside SQLite.

use std::ffi::{CString, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::authorizer;
use super::compile;
use super::ended::{Ended, Shared};
use super::handle::{Handle, SqliteError};
use super::inside::Inside;
use super::schema;
use super::statement::Statement;
use crate::pages::{NameError, check_name};
use crate::types::config::SQL_PROGRESS_INSTRUCTIONS;
use crate::vfs::{Vfs, View};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A refused name; clients get SQLITE_CANTOPEN.
    #[error(transparent)]
    Name(#[from] NameError),
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

/// `sqlite3_txn_state` of the main database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// No snapshot is held.
    None,
    /// A snapshot is held.
    Read,
    /// RESERVED is held.
    Write,
}

/// A connection to one replicated database.
#[derive(Debug)]
pub struct Connection {
    handle: Arc<Handle>,
    view: Arc<View>,
    /// Not `Sync`: one task at a time.
    _one_task: std::marker::PhantomData<std::cell::Cell<()>>,
}

impl Connection {
    /// Opens a database of this VFS, never as a URI, with the settings of state-machine 4.8 and the restrictions of
    /// 4.3 (column 1.18.6). Creates the database if there is none.
    ///
    /// # Errors
    /// A refused name; SQLite refuses.
    pub fn open(inside: &mut Inside, vfs: &Arc<Vfs>, database: &[u8]) -> Result<Connection, OpenError> {
        let ended = Ended::new(Arc::clone(vfs.store()));
        Connection::open_with(inside, vfs, database, &ended)
    }

    /// As `open`; statements are stopped by what is `ended`.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(
        inside: &mut Inside,
        vfs: &Arc<Vfs>,
        database: &[u8],
        ended: &Ended,
    ) -> Result<Connection, OpenError> {
        check_name(database)?;
        let name = CString::new(database).map_err(|_| NameError::Nul)?;
        let flags =
            sqlite::SQLITE_OPEN_READWRITE | sqlite::SQLITE_OPEN_CREATE | sqlite::SQLITE_OPEN_FULLMUTEX;
        let mut raw = ptr::null_mut();
        // SAFETY: both names are C strings; `raw` is a place for the connection.
        let code =
            unsafe { sqlite::sqlite3_open_v2(name.as_ptr(), &raw mut raw, flags, vfs.name().as_ptr()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(SqliteError { code, message: b"out of memory".to_vec() }.into());
        };
        let handle = Arc::new(Handle::new(raw, ended, vfs));
        if code != sqlite::SQLITE_OK {
            let error = handle.error(code);
            // It has begun nothing; that it stays open is told where it is dropped. So below.
            let _ = Handle::close(handle, inside);
            return Err(error.into());
        }
        // SAFETY: an open connection that nobody else uses.
        let Some(view) = (unsafe { Vfs::view_of(handle.raw()) }) else {
            let _ = Handle::close(handle, inside);
            let message = b"unable to open database file".to_vec();
            return Err(SqliteError { code: sqlite::SQLITE_CANTOPEN, message }.into());
        };
        let connection = Connection { handle, view, _one_task: std::marker::PhantomData };
        match connection.configure(inside) {
            Ok(()) => Ok(connection),
            Err(error) => {
                let _ = connection.close(inside);
                Err(error.into())
            }
        }
    }

    fn configure(&self, inside: &mut Inside) -> Result<(), SqliteError> {
        let raw = self.handle.raw();
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_extended_result_codes(raw, 1) };
        let no_answer = ptr::null_mut::<c_int>();
        // SAFETY: this option takes an int and a place for an int or null.
        let code = unsafe {
            sqlite::sqlite3_db_config(raw, sqlite::SQLITE_DBCONFIG_ENABLE_FKEY, 1 as c_int, no_answer)
        };
        if code != sqlite::SQLITE_OK {
            return Err(self.handle.error(code));
        }
        self.execute(inside, b"PRAGMA synchronous=OFF")?;
        // Zeros over every page that is freed would go through the log, where the old page stays all the same.
        self.execute(inside, b"PRAGMA secure_delete=FAST")?;
        if self.handle.vfs().serves_journals() {
            // Truncated, not deleted: no name is ever asked for.
            self.execute(inside, b"PRAGMA journal_mode=TRUNCATE")?;
        } else {
            self.execute(inside, b"PRAGMA journal_mode=MEMORY")?;
            // Any number but 0: pages are in memory, and read where they lie.
            self.execute(inside, b"PRAGMA main.mmap_size=1")?;
        }
        self.view.clear_seen();
        // SAFETY: an open connection that nobody else uses; what is noted lives as long as the handle, and longer if that is never
        // closed.
        let code = unsafe { authorizer::restrict(raw, self.handle.noted()) };
        if code != sqlite::SQLITE_OK {
            return Err(self.handle.error(code));
        }
        let watched = self.handle.watched().cast_mut().cast();
        // SAFETY: what is watched lives as what is noted.
        unsafe { sqlite::sqlite3_progress_handler(raw, SQL_PROGRESS_INSTRUCTIONS, Some(progress), watched) };
        Ok(())
    }

    /// Closes it with all its statements. A statement in the middle of its rows is not committed: the view refuses.
    ///
    /// # Errors
    /// It stays open, with its transaction: somebody holds a statement.
    pub fn close(self, inside: &mut Inside) -> Result<(), SqliteError> {
        self.view.set_refuse_commit(true);
        Handle::close(self.handle, inside)
    }

    /// What is shared with the open file.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Prepares the first statement of a text. `None`: only blanks and comments. The offset is that of what follows. SQLite
    /// copies a text that does not end with a NUL.
    ///
    /// # Errors
    /// SQLite refuses; SQLITE_TOOBIG for a text of 2 GiB; a statement that nests too deep.
    pub fn prepare(
        &self,
        inside: &mut Inside,
        sql: &[u8],
    ) -> Result<(Option<Statement>, usize), SqliteError> {
        compile::prepare(&self.handle, inside, sql)
    }

    /// Runs all statements of a text and drops their rows.
    ///
    /// # Errors
    /// The first error; what came before it stays.
    pub fn execute(&self, inside: &mut Inside, sql: &[u8]) -> Result<(), SqliteError> {
        compile::each(&self.handle, inside, sql, schema::step)
    }

    /// Finalizes the statements that were dropped since: whoever drops one may not be inside SQLite.
    pub fn finalize_dropped(&self, inside: &mut Inside) {
        self.handle.finalize_dropped(inside);
    }

    /// Whether no explicit transaction is open.
    #[must_use]
    pub fn autocommit(&self, inside: &Inside) -> bool {
        self.handle.autocommit(inside)
    }

    /// Transaction state of the main database; temporary tables do not count.
    #[must_use]
    pub fn transaction_state(&self, _inside: &Inside) -> TransactionState {
        // SAFETY: an open connection, a C string.
        match unsafe { sqlite::sqlite3_txn_state(self.handle.raw(), c"main".as_ptr()) } {
            sqlite::SQLITE_TXN_WRITE => TransactionState::Write,
            sqlite::SQLITE_TXN_READ => TransactionState::Read,
            _ => TransactionState::None,
        }
    }

    /// Rowid of the last inserted row.
    #[must_use]
    pub fn last_insert_rowid(&self, _inside: &Inside) -> i64 {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_last_insert_rowid(self.handle.raw()) }
    }

    /// Rows changed by the last statement.
    #[must_use]
    pub fn changes(&self, _inside: &Inside) -> i32 {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_changes(self.handle.raw()) }
    }
}

unsafe extern "C" fn progress(watched: *mut c_void) -> c_int {
    // SAFETY: what the handle watches, which outlives the connection.
    let watched = unsafe { &*watched.cast::<Shared>() };
    // A panic is as good a reason to stop as any.
    let stops = catch_unwind(AssertUnwindSafe(|| watched.look()));
    c_int::from(stops.unwrap_or(true))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
