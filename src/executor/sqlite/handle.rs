//! The open connection itself, shared with its statements, and SQLite's errors.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libsqlite3_sys as sqlite;

use super::compiled::{Compiled, Noted};
use super::ended::{Ended, Shared};
use super::inside::Inside;
use crate::vfs::Vfs;

/// What SQLite answered: extended code and message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SQLite error {code}: {}", String::from_utf8_lossy(message))]
pub struct SqliteError {
    /// Extended result code.
    pub code: i32,
    /// Message, bytes as SQLite gave them.
    pub message: Vec<u8>,
}

/// The open connection. Its statements hold it, too.
#[derive(Debug)]
pub(super) struct Handle {
    raw: NonNull<sqlite::sqlite3>,
    ended: Ended,
    noted: Arc<Noted>,
    weighed: Mutex<Weighed>,
    /// Statements that were dropped: whoever drops one may not be inside SQLite.
    dropped: Mutex<Vec<Dropped>>,
    /// Keeps the VFS registered.
    vfs: Arc<Vfs>,
    is_closed: bool,
}

/// A statement that nobody holds any more. Those of virtual tables are not among them: SQLite finalizes its own.
#[derive(Debug)]
struct Dropped(NonNull<sqlite::sqlite3_stmt>);

/// What is known of the weight of the schema, so that a text that makes many objects takes linear time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weighed {
    /// The version for which it holds, and for what the connection has made on it.
    pub(super) at: Option<(u64, u32)>,
    /// At least the weight.
    pub(super) weight: u64,
}

// SAFETY: opened with SQLITE_OPEN_FULLMUTEX; in SQLite's single-thread mode the process's one permit orders all calls.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn new(raw: NonNull<sqlite::sqlite3>, ended: &Ended, vfs: &Arc<Vfs>) -> Handle {
        Handle {
            raw,
            ended: ended.clone(),
            noted: Arc::default(),
            weighed: Mutex::default(),
            dropped: Mutex::default(),
            vfs: Arc::clone(vfs),
            is_closed: false,
        }
    }

    pub(super) fn raw(&self) -> *mut sqlite::sqlite3 {
        self.raw.as_ptr()
    }

    pub(super) fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }

    /// What the authorizer writes to.
    pub(super) fn noted(&self) -> *const Noted {
        Arc::as_ptr(&self.noted)
    }

    /// Runs a statement that was not compiled to change the schema. Whether it was outdated: then it has not begun.
    pub(super) fn run_noted<T>(
        &self,
        statement: NonNull<sqlite::sqlite3_stmt>,
        work: impl FnOnce() -> T,
    ) -> (T, bool) {
        self.noted.run(statement, work)
    }

    /// What the progress handler looks at.
    pub(super) fn watched(&self) -> *const Shared {
        Arc::as_ptr(&self.ended.shared)
    }

    /// What is known of the weight of the schema.
    pub(super) fn weighed(&self) -> MutexGuard<'_, Weighed> {
        self.weighed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self) -> MutexGuard<'_, Vec<Dropped>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement was dropped: it is finalized when somebody is inside again.
    pub(super) fn statement_dropped(&self, statement: NonNull<sqlite::sqlite3_stmt>) {
        self.dropped().push(Dropped(statement));
    }

    /// Finalizes the statements that were dropped.
    pub(super) fn finalize_dropped(&self, _inside: &mut Inside) {
        let dropped = std::mem::take(&mut *self.dropped());
        for statement in dropped {
            // SAFETY: a statement of this connection that nobody holds, finalized once.
            unsafe { sqlite::sqlite3_finalize(statement.0.as_ptr()) };
        }
    }

    /// Whether no explicit transaction is open.
    pub(super) fn autocommit(&self, _inside: &Inside) -> bool {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_get_autocommit(self.raw()) != 0 }
    }

    /// A statement is going to be compiled.
    pub(super) fn forget_noted(&self) {
        self.noted.take(b"");
    }

    /// What was noted while the statement of this text was compiled.
    pub(super) fn take_noted(&self, sql: &[u8]) -> Compiled {
        self.noted.take(sql)
    }

    /// The connection's last error, which this code belongs to.
    pub(super) fn error(&self, code: c_int) -> SqliteError {
        // SAFETY: an open connection.
        let text = unsafe { sqlite::sqlite3_errmsg(self.raw()) };
        SqliteError { code, message: copy_text(text) }
    }

    /// Finalizes the statements that were dropped and closes the connection.
    ///
    /// # Errors
    /// Somebody holds a statement, be it one that is not of this library: the connection stays open, with its transaction.
    pub(super) fn close(handle: Arc<Handle>, inside: &mut Inside) -> Result<(), SqliteError> {
        let Some(mut handle) = Arc::into_inner(handle) else {
            return Err(SqliteError { code: sqlite::SQLITE_BUSY, message: b"a statement is held".to_vec() });
        };
        handle.finalize_dropped(inside);
        // SAFETY: open, and no statement of this library is left but those of virtual tables, which are SQLite's to finalize.
        let code = unsafe { sqlite::sqlite3_close(handle.raw()) };
        handle.is_closed = code == sqlite::SQLITE_OK;
        if handle.is_closed { Ok(()) } else { Err(handle.error(code)) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        // Not inside SQLite: it stays open, with all that it refers to.
        tracing::error!("a SQLite connection was not closed: it stays open");
        std::mem::forget((self.ended.clone(), Arc::clone(&self.noted), Arc::clone(&self.vfs)));
    }
}

fn copy_text(text: *const c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: not null; SQLite's texts are C strings that live until its next call.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    // As long as names in the client's text are.
    let mut copy = Vec::new();
    match copy.try_reserve_exact(text.len()) {
        Ok(()) => copy.extend_from_slice(text),
        Err(_) => copy.extend_from_slice(b"out of memory"),
    }
    copy
}
