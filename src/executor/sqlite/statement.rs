//! One prepared statement. One that is dropped is finalized when somebody is inside SQLite with its connection again.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use libsqlite3_sys as sqlite;

use super::compiled::Compiled;
use super::handle::{Handle, SqliteError};
use super::inside::Inside;
use super::speed::Speed;
use crate::types::tasks::Expected;

/// A value of SQLite: a parameter to bind, or a column that lives until the next call on the statement.
pub use crate::protocol::rows::ColumnValue as Value;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row can be read.
    Row,
    /// The statement is finished.
    Done,
}

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    raw: NonNull<sqlite::sqlite3_stmt>,
    handle: Arc<Handle>,
    has_row: bool,
    is_outdated: bool,
    is_finalized: bool,
    speed: Speed,
    compiled: Compiled,
    read_only: bool,
    parameter_count: usize,
    column_count: usize,
    /// Not `Sync`: one task at a time.
    _one_task: std::marker::PhantomData<std::cell::Cell<()>>,
}

// SAFETY: as the connection, which it keeps open.
unsafe impl Send for Statement {}

impl Drop for Statement {
    /// Whoever drops it may not be inside SQLite.
    fn drop(&mut self) {
        if !self.is_finalized {
            self.handle.statement_dropped(self.raw);
        }
    }
}

impl Statement {
    pub(super) fn new(
        raw: NonNull<sqlite::sqlite3_stmt>,
        handle: &Arc<Handle>,
        compiled: Compiled,
    ) -> Statement {
        // SAFETY: a live statement.
        let parameters = unsafe { sqlite::sqlite3_bind_parameter_count(raw.as_ptr()) };
        // SAFETY: a live statement.
        let columns = unsafe { sqlite::sqlite3_column_count(raw.as_ptr()) };
        Statement {
            raw,
            handle: Arc::clone(handle),
            has_row: false,
            is_finalized: false,
            is_outdated: false,
            speed: Speed::UNKNOWN,
            compiled,
            // SAFETY: a live statement.
            read_only: unsafe { sqlite::sqlite3_stmt_readonly(raw.as_ptr()) != 0 },
            parameter_count: usize::try_from(parameters).unwrap_or(0),
            column_count: usize::try_from(columns).unwrap_or(0),
            _one_task: std::marker::PhantomData,
        }
    }

    /// Frees it.
    pub fn finalize(mut self, _inside: &mut Inside) {
        self.is_finalized = true;
        // SAFETY: a live statement, finalized once; its connection is still open.
        unsafe { sqlite::sqlite3_finalize(self.raw()) };
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// What was noted when it was compiled.
    #[must_use]
    pub fn compiled(&self) -> Compiled {
        self.compiled
    }

    fn raw(&self) -> *mut sqlite::sqlite3_stmt {
        self.raw.as_ptr()
    }

    fn checked(&self, code: c_int) -> Result<(), SqliteError> {
        if code == sqlite::SQLITE_OK { Ok(()) } else { Err(self.handle.error(code)) }
    }

    /// How long its next run, or the next part of it, is expected to take.
    #[must_use]
    pub fn expected(&self) -> Expected {
        self.speed.expected()
    }

    /// How long a run, or a part of it, took.
    pub fn took(&mut self, time: Duration) {
        self.speed.took(time);
    }

    /// Its SQL.
    #[must_use]
    pub fn sql<'a>(&'a self, _inside: &'a Inside) -> &'a [u8] {
        // SAFETY: a live statement.
        let sql = unsafe { sqlite::sqlite3_sql(self.raw()) };
        if sql.is_null() {
            return &[];
        }
        // SAFETY: NUL-terminated, and the statement keeps it as long as it lives.
        unsafe { std::ffi::CStr::from_ptr(sql) }.to_bytes()
    }

    /// SQLite's guess that it writes nothing, made when it was compiled.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it may write: SQLite takes it for no read, and it does not only tell how it would run.
    #[must_use]
    pub fn writes(&self) -> bool {
        // SAFETY: a live statement.
        !self.read_only && unsafe { sqlite::sqlite3_stmt_isexplain(self.raw()) } == 0
    }

    /// Highest parameter number.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.parameter_count
    }

    /// Columns that a row had when it was compiled; 0 for a statement without rows.
    #[must_use]
    pub fn declared_columns(&self) -> usize {
        self.column_count
    }

    /// Binds parameter `index`, from 1 on; bytes are copied. After an error every parameter is NULL again: what was bound before
    /// it must not be in the next run.
    ///
    /// # Errors
    /// SQLITE_RANGE, SQLITE_TOOBIG, SQLITE_MISUSE while it runs.
    pub fn bind(&mut self, inside: &mut Inside, index: usize, value: Value<'_>) -> Result<(), SqliteError> {
        let index = c_int::try_from(index).unwrap_or(0);
        let raw = self.raw();
        let transient = sqlite::SQLITE_TRANSIENT();
        let code = match value {
            // SAFETY: a live statement.
            Value::Null => unsafe { sqlite::sqlite3_bind_null(raw, index) },
            // SAFETY: a live statement.
            Value::Integer(value) => unsafe { sqlite::sqlite3_bind_int64(raw, index, value) },
            // SAFETY: a live statement.
            Value::Float(value) => unsafe { sqlite::sqlite3_bind_double(raw, index, value) },
            // SAFETY: a live statement; SQLite copies these bytes.
            Value::Text(bytes) => unsafe {
                let (start, length) = (bytes.as_ptr().cast(), bytes.len() as u64);
                sqlite::sqlite3_bind_text64(raw, index, start, length, transient, sqlite::SQLITE_UTF8 as u8)
            },
            // A null pointer would bind NULL: an empty slice has a dangling one, which is not read.
            // SAFETY: a live statement; SQLite copies these bytes.
            Value::Blob(bytes) => unsafe {
                let (start, length) = (bytes.as_ptr().cast(), bytes.len() as u64);
                sqlite::sqlite3_bind_blob64(raw, index, start, length, transient)
            },
        };
        let bound = self.checked(code);
        if bound.is_err() {
            self.clear_bindings(inside);
        }
        bound
    }

    /// Makes every parameter NULL.
    pub fn clear_bindings(&mut self, _inside: &mut Inside) {
        // SAFETY: a live statement.
        unsafe { sqlite::sqlite3_clear_bindings(self.raw()) };
    }

    /// The same for one that was not compiled to change the schema. If it is outdated, SQLite having compiled it anew for another
    /// schema in which it would change that, it fails and has not begun: it is to be compiled here again.
    ///
    /// # Errors
    /// As `step`.
    pub(super) fn step_as_compiled(&mut self, inside: &mut Inside) -> Result<Step, SqliteError> {
        let (handle, raw) = (Arc::clone(&self.handle), self.raw);
        let (stepped, is_outdated) = handle.run_noted(raw, || self.step(inside));
        self.is_outdated |= is_outdated;
        stepped
    }

    /// Whether what was noted of it when it was compiled does not hold any more.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Runs to the next row or to the end.
    ///
    /// # Errors
    /// What SQLite answers; the statement is to be reset.
    pub fn step(&mut self, _inside: &mut Inside) -> Result<Step, SqliteError> {
        // SAFETY: a live statement.
        let code = unsafe { sqlite::sqlite3_step(self.raw()) };
        self.has_row = code == sqlite::SQLITE_ROW;
        match code {
            sqlite::SQLITE_ROW => Ok(Step::Row),
            sqlite::SQLITE_DONE => Ok(Step::Done),
            code => Err(self.handle.error(code)),
        }
    }

    /// Makes it ready to run again. After a row this commits what it wrote, unless the view refuses.
    ///
    /// # Errors
    /// The error of the last step again, or that of the commit.
    pub fn reset(&mut self, _inside: &mut Inside) -> Result<(), SqliteError> {
        self.has_row = false;
        // SAFETY: a live statement.
        let code = unsafe { sqlite::sqlite3_reset(self.raw()) };
        self.checked(code)
    }

    /// Columns of a row; 0 for a statement without rows.
    #[must_use]
    pub fn column_count(&self, _inside: &Inside) -> usize {
        // SAFETY: a live statement.
        usize::try_from(unsafe { sqlite::sqlite3_column_count(self.raw()) }).unwrap_or(0)
    }

    /// Name of a column, from 0 on; empty if there is none.
    #[must_use]
    pub fn column_name<'a>(&'a self, _inside: &'a Inside, index: usize) -> &'a [u8] {
        let index = c_int::try_from(index).unwrap_or(-1);
        // SAFETY: a live statement; SQLite checks the index.
        let name = unsafe { sqlite::sqlite3_column_name(self.raw(), index) };
        if name.is_null() {
            return b"";
        }
        // SAFETY: a C string that lives until the statement is prepared again or asked again.
        unsafe { CStr::from_ptr(name) }.to_bytes()
    }

    /// Declared type of a column, from 0 on.
    #[must_use]
    pub fn column_decltype<'a>(&'a self, _inside: &'a Inside, index: usize) -> Option<&'a [u8]> {
        let index = c_int::try_from(index).unwrap_or(-1);
        // SAFETY: a live statement; SQLite checks the index.
        let name = unsafe { sqlite::sqlite3_column_decltype(self.raw(), index) };
        // SAFETY: not null, a C string as above.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes())
    }

    /// Value of a column of the row, from 0 on; NULL if there is no row or no such column.
    #[must_use]
    pub fn value<'a>(&'a self, inside: &'a Inside, index: usize) -> Value<'a> {
        if !self.has_row || index >= self.column_count(inside) {
            return Value::Null;
        }
        let (raw, index) = (self.raw(), index as c_int);
        // SAFETY: the statement has a row with this column.
        match unsafe { sqlite::sqlite3_column_type(raw, index) } {
            // SAFETY: as above.
            sqlite::SQLITE_INTEGER => Value::Integer(unsafe { sqlite::sqlite3_column_int64(raw, index) }),
            // SAFETY: as above.
            sqlite::SQLITE_FLOAT => Value::Float(unsafe { sqlite::sqlite3_column_double(raw, index) }),
            sqlite::SQLITE_TEXT => {
                // SAFETY: as above; the text before its length, as SQLite demands.
                let start = unsafe { sqlite::sqlite3_column_text(raw, index) };
                Value::Text(self.column_bytes(start, index))
            }
            sqlite::SQLITE_BLOB => {
                // SAFETY: as above.
                let start = unsafe { sqlite::sqlite3_column_blob(raw, index) };
                Value::Blob(self.column_bytes(start.cast(), index))
            }
            _ => Value::Null,
        }
    }

    fn column_bytes(&self, start: *const u8, index: c_int) -> &[u8] {
        // SAFETY: the statement has a row with this column.
        let length = usize::try_from(unsafe { sqlite::sqlite3_column_bytes(self.raw(), index) }).unwrap_or(0);
        if start.is_null() || length == 0 {
            return b"";
        }
        // SAFETY: SQLite's bytes of this column; they live until the next step, reset or drop, which need `&mut self`.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}
