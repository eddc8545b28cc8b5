//! One SQLite connection.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsqlite3_sys as sqlite;
use tokio::sync::watch;

use super::authorizer::{self, Asked};
use super::nesting;
use super::schema::Weighed;
use super::statement::Statement;
use super::threading::{serial_guard, sqlite_is_serial};
use crate::pages::{NameError, check_name};
use crate::types::config::{SQL_ON_WORKER_MAX, SQL_WORKER_OFFERED_EVERY};
use crate::types::tasks::{Expected, SqlSection};
use crate::vfs::{Vfs, View};

/// Virtual machine instructions between two looks at the interrupt flag.
const PROGRESS_INSTRUCTIONS: c_int = 1000;

/// Share of the time between two offers of a worker in which somebody may come for it.
const WORKER_OFFER_SHARE: u32 = 50;

/// What SQLite answered: extended code and message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SQLite error {code}: {}", String::from_utf8_lossy(message))]
pub struct SqliteError {
    /// Extended result code.
    pub code: i32,
    /// Message, bytes as SQLite gave them.
    pub message: Vec<u8>,
}

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

/// Stops whatever the connection runs.
#[derive(Clone, Debug, Default)]
pub struct InterruptHandle {
    watched: Arc<Watched>,
}

/// What is looked at while a statement runs.
#[derive(Debug, Default)]
struct Watched {
    interrupted: AtomicBool,
    /// Set while a statement runs on a worker of the runtime.
    on_worker: Mutex<Option<OnWorker>>,
    /// Epoch of a statement that runs and takes long, or may.
    runs_long: watch::Sender<Option<u64>>,
}

/// A statement that is expected to be short.
#[derive(Clone, Copy, Debug)]
struct OnWorker {
    since: Instant,
    /// When it offers its worker to others, and how long after that again: nobody may have come in time.
    offers_after: Duration,
    again_after: Duration,
    section: SqlSection,
    epoch: u64,
}

impl OnWorker {
    fn begin(section: SqlSection, epoch: u64) -> OnWorker {
        let (offers_after, again_after) = (SQL_ON_WORKER_MAX, SQL_ON_WORKER_MAX);
        OnWorker { since: Instant::now(), offers_after, again_after, section, epoch }
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Option<OnWorker>> {
        self.on_worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement that was expected to be short and is not leaves its worker to others. It is not told whether one has
    /// come, so that it offers the worker again and again.
    fn look(&self) {
        let mut on_worker = self.lock();
        let Some(run) = on_worker.as_mut() else { return };
        let elapsed = run.since.elapsed();
        if elapsed < run.offers_after {
            return;
        }
        let (section, epoch, patience) = (run.section, run.epoch, run.again_after / WORKER_OFFER_SHARE);
        run.offers_after = elapsed + run.again_after;
        run.again_after = (run.again_after * 2).min(SQL_WORKER_OFFERED_EVERY);
        drop(on_worker);
        self.runs_long.send_if_modified(|long| long.replace(epoch).is_none());
        section.let_others_run(patience);
    }
}

impl InterruptHandle {
    /// Makes running and later statements fail with SQLITE_INTERRUPT until `clear`.
    pub fn interrupt(&self) {
        self.watched.interrupted.store(true, Ordering::Release);
    }

    /// Lets statements run again.
    pub fn clear(&self) {
        self.watched.interrupted.store(false, Ordering::Release);
    }

    /// Runs `work`, which uses the connection in this epoch, in the calling task.
    pub fn run<T>(&self, section: SqlSection, expected: Expected, epoch: u64, work: impl FnOnce() -> T) -> T {
        if section == SqlSection::Inline {
            // There is one thread: nobody can look after the connection meanwhile, and a simulation must not depend on how long
            // a statement takes in fact.
            return section.run(expected, work);
        }
        match expected {
            Expected::Short => *self.watched.lock() = Some(OnWorker::begin(section, epoch)),
            Expected::Unknown => drop(self.watched.runs_long.send_replace(Some(epoch))),
        }
        let result = section.run(expected, work);
        *self.watched.lock() = None;
        self.watched.runs_long.send_if_modified(|long| long.take().is_some());
        result
    }

    /// The epoch of a statement that runs and takes long, or may: then somebody else has to look after its connection.
    #[must_use]
    pub fn runs_long(&self) -> watch::Receiver<Option<u64>> {
        self.watched.runs_long.subscribe()
    }

    /// Whether statements are being stopped.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.watched.interrupted.load(Ordering::Acquire)
    }
}

/// The open connection, shared with its statements; closed when the last of them has gone.
#[derive(Debug)]
pub(super) struct Handle {
    raw: NonNull<sqlite::sqlite3>,
    interrupt: InterruptHandle,
    asked: Box<Asked>,
    /// What the schema weighs, as far as this connection knows.
    pub(super) weighed: Mutex<Weighed>,
    /// Whether SQLite has no mutexes.
    pub(super) serial: bool,
    /// Keeps the VFS registered.
    vfs: Arc<Vfs>,
}

// SAFETY: opened with SQLITE_OPEN_FULLMUTEX; in SQLite's single-thread mode the caller's one permit orders all calls.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn raw(&self) -> *mut sqlite::sqlite3 {
        self.raw.as_ptr()
    }

    /// The connection's last error, which this code belongs to.
    pub(super) fn error(&self, code: c_int) -> SqliteError {
        // SAFETY: an open connection.
        let text = unsafe { sqlite::sqlite3_errmsg(self.raw()) };
        SqliteError { code, message: copy_text(text) }
    }

    /// As `Connection::prepare`.
    pub(super) fn prepare(self: &Arc<Handle>, sql: &[u8]) -> Result<(Option<Statement>, usize), SqliteError> {
        nesting::check_statement(sql)?;
        self.asked.take_schema_change();
        let Ok(length) = c_int::try_from(sql.len()) else {
            let message = b"string or blob too big".to_vec();
            return Err(SqliteError { code: sqlite::SQLITE_TOOBIG, message });
        };
        let mut raw = ptr::null_mut();
        let mut tail = ptr::null();
        // SAFETY: an open connection, `length` bytes of text, two places to be set.
        let code = unsafe {
            sqlite::sqlite3_prepare_v2(self.raw(), sql.as_ptr().cast(), length, &raw mut raw, &raw mut tail)
        };
        if code != sqlite::SQLITE_OK {
            return Err(self.error(code));
        }
        let start = sql.as_ptr().addr();
        let mut offset = tail.addr().checked_sub(start).map_or(sql.len(), |offset| offset.min(sql.len()));
        // SQLite reads nothing after a NUL.
        if sql.get(offset) == Some(&0) {
            offset = sql.len();
        }
        let schema_change = self.asked.take_schema_change();
        let statement = NonNull::new(raw).map(|raw| {
            // Tables of functions are declared as if they were made.
            // SAFETY: a live statement.
            let read_only = unsafe { sqlite::sqlite3_stmt_readonly(raw.as_ptr()) } != 0;
            // SAFETY: a live statement.
            let is_explained = unsafe { sqlite::sqlite3_stmt_isexplain(raw.as_ptr()) } != 0;
            let changes = !read_only && !is_explained;
            Statement::new(raw, Arc::clone(self), schema_change.filter(|_| changes))
        });
        Ok((statement, offset))
    }

    /// As `Connection::execute`.
    pub(super) fn execute(self: &Arc<Handle>, sql: &[u8]) -> Result<(), SqliteError> {
        let mut rest = sql;
        while !rest.is_empty() {
            let (statement, offset) = self.prepare(rest)?;
            if let Some(mut statement) = statement {
                while statement.step()? == super::Step::Row {}
            }
            rest = rest.get(offset..).unwrap_or_default();
        }
        Ok(())
    }

    /// Whether no explicit transaction is open.
    pub(super) fn autocommit(&self) -> bool {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_get_autocommit(self.raw()) != 0 }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _serial = serial_guard(self.serial);
        // SAFETY: open, and no statement is left: each held this handle.
        unsafe { sqlite::sqlite3_close(self.raw()) };
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

/// A connection to one replicated database. It closes when it and its statements are dropped.
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
    pub fn open(vfs: &Arc<Vfs>, database: &[u8]) -> Result<Connection, OpenError> {
        Connection::open_with(vfs, database, &InterruptHandle::default())
    }

    /// As `open`; statements are stopped through `interrupt`.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(
        vfs: &Arc<Vfs>,
        database: &[u8],
        interrupt: &InterruptHandle,
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
        let serial = sqlite_is_serial();
        let handle = Handle {
            raw,
            interrupt: interrupt.clone(),
            asked: Box::default(),
            weighed: Mutex::default(),
            serial,
            vfs: Arc::clone(vfs),
        };
        let handle = Arc::new(handle);
        if code != sqlite::SQLITE_OK {
            return Err(handle.error(code).into());
        }
        // SAFETY: an open connection that nobody else uses.
        let Some(view) = (unsafe { Vfs::view_of(handle.raw()) }) else {
            let message = b"unable to open database file".to_vec();
            return Err(SqliteError { code: sqlite::SQLITE_CANTOPEN, message }.into());
        };
        let connection = Connection { handle, view, _one_task: std::marker::PhantomData };
        connection.configure()?;
        Ok(connection)
    }

    fn configure(&self) -> Result<(), SqliteError> {
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
        self.execute(b"PRAGMA synchronous=OFF")?;
        if self.handle.vfs.serves_journals() {
            // Truncated, not deleted: no name is ever asked for.
            self.execute(b"PRAGMA journal_mode=TRUNCATE")?;
        } else {
            self.execute(b"PRAGMA journal_mode=MEMORY")?;
            // Any number but 0: pages are in memory, and read where they lie.
            self.execute(b"PRAGMA main.mmap_size=1")?;
        }
        self.view.clear_seen();
        // SAFETY: an open connection that nobody else uses, and that the handle closes before `asked` goes.
        let code = unsafe { authorizer::restrict(raw, &self.handle.asked) };
        if code != sqlite::SQLITE_OK {
            return Err(self.handle.error(code));
        }
        let watched = Arc::as_ptr(&self.handle.interrupt.watched).cast_mut().cast();
        // SAFETY: `watched` lives as long as the handle, which closes the connection before it goes.
        unsafe { sqlite::sqlite3_progress_handler(raw, PROGRESS_INSTRUCTIONS, Some(progress), watched) };
        Ok(())
    }

    /// What is shared with the open file.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Stops statements from elsewhere.
    #[must_use]
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.handle.interrupt.clone()
    }

    /// Prepares the first statement of a text. `None`: only blanks and comments. The offset is that of what follows.
    ///
    /// # Errors
    /// SQLite refuses; SQLITE_TOOBIG for a text of 2 GiB; a statement that nests too deep.
    pub fn prepare(&self, sql: &[u8]) -> Result<(Option<Statement>, usize), SqliteError> {
        self.handle.prepare(sql)
    }

    /// Runs all statements of a text and drops their rows.
    ///
    /// # Errors
    /// The first error; what came before it stays.
    pub fn execute(&self, sql: &[u8]) -> Result<(), SqliteError> {
        self.handle.execute(sql)
    }

    /// Whether no explicit transaction is open.
    #[must_use]
    pub fn autocommit(&self) -> bool {
        self.handle.autocommit()
    }

    /// Transaction state of the main database; temporary tables do not count.
    #[must_use]
    pub fn transaction_state(&self) -> TransactionState {
        // SAFETY: an open connection, a C string.
        match unsafe { sqlite::sqlite3_txn_state(self.handle.raw(), c"main".as_ptr()) } {
            sqlite::SQLITE_TXN_WRITE => TransactionState::Write,
            sqlite::SQLITE_TXN_READ => TransactionState::Read,
            _ => TransactionState::None,
        }
    }

    /// Rowid of the last inserted row.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_last_insert_rowid(self.handle.raw()) }
    }

    /// Rows changed by the last statement.
    #[must_use]
    pub fn changes(&self) -> i32 {
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_changes(self.handle.raw()) }
    }

    /// Extended code and message of the last call.
    #[must_use]
    pub fn last_error(&self) -> SqliteError {
        // SAFETY: an open connection.
        let code = unsafe { sqlite::sqlite3_extended_errcode(self.handle.raw()) };
        self.handle.error(code)
    }
}

unsafe extern "C" fn progress(watched: *mut c_void) -> c_int {
    // SAFETY: what the handle watches, which outlives the connection.
    let watched = unsafe { &*watched.cast::<Watched>() };
    // A panic is as good a reason to stop as any.
    let looked = catch_unwind(AssertUnwindSafe(|| watched.look()));
    c_int::from(looked.is_err() || watched.interrupted.load(Ordering::Acquire))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
