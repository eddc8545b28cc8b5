//! SQLite as it comes, in memory: what the machine's clients should have been answered.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

use bytes::Bytes;
use dqlite::protocol::request::Value;
use libsqlite3_sys as sqlite;

/// A database in memory.
#[derive(Debug)]
pub struct Plain {
    raw: NonNull<sqlite::sqlite3>,
}

/// What a text did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ran {
    /// Rows of its last statement.
    pub rows: Vec<Vec<Value>>,
    /// `sqlite3_changes` behind it.
    pub changes: u64,
    /// `sqlite3_last_insert_rowid` behind it.
    pub rowid: i64,
}

/// SQLite's extended code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainError {
    /// Code.
    pub code: i32,
    /// Text.
    pub message: String,
}

/// Puts the process's SQLite into its single-thread mode, as go-dqlite does; before anything else uses it.
///
/// # Errors
/// SQLite's code: it is in use already.
pub fn use_single_thread_mode() -> Result<(), i32> {
    // SAFETY: this option takes nothing more, and SQLite refuses it once it is in use.
    match unsafe { sqlite::sqlite3_config(sqlite::SQLITE_CONFIG_SINGLETHREAD) } {
        sqlite::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

/// A statement that is finalized when it goes.
struct Prepared(*mut sqlite::sqlite3_stmt);

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: null or a statement that nobody else uses. The error is that of the step again.
        unsafe { sqlite::sqlite3_finalize(self.0) };
    }
}

impl Plain {
    /// An empty database, with foreign keys as the library has them.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new() -> Result<Plain, PlainError> {
        let mut raw = ptr::null_mut();
        let flags = sqlite::SQLITE_OPEN_READWRITE | sqlite::SQLITE_OPEN_CREATE;
        // SAFETY: a C string, a place for the connection, no VFS.
        let code = unsafe { sqlite::sqlite3_open_v2(c":memory:".as_ptr(), &raw mut raw, flags, ptr::null()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(PlainError { code, message: "out of memory".to_owned() });
        };
        let mut plain = Plain { raw };
        // SAFETY: an open connection.
        unsafe { sqlite::sqlite3_extended_result_codes(plain.raw.as_ptr(), 1) };
        plain.run("PRAGMA foreign_keys = 1", &[])?;
        Ok(plain)
    }

    fn error(&self, code: c_int) -> PlainError {
        // SAFETY: an open connection; its text is a C string that lives until the next call.
        let message = unsafe { CStr::from_ptr(sqlite::sqlite3_errmsg(self.raw.as_ptr())) };
        PlainError { code, message: message.to_string_lossy().into_owned() }
    }

    fn prepare(&mut self, sql: &[u8]) -> Result<(Prepared, usize), PlainError> {
        let (mut statement, mut tail) = (ptr::null_mut(), ptr::null());
        let length = c_int::try_from(sql.len()).unwrap_or(c_int::MAX);
        // SAFETY: an open connection, `length` bytes of text, two places to be set.
        let code = unsafe {
            sqlite::sqlite3_prepare_v2(
                self.raw.as_ptr(),
                sql.as_ptr().cast(),
                length,
                &raw mut statement,
                &raw mut tail,
            )
        };
        if code != sqlite::SQLITE_OK {
            return Err(self.error(code));
        }
        Ok((Prepared(statement), tail.addr() - sql.as_ptr().addr()))
    }

    fn bind(&mut self, statement: &Prepared, values: &[Value]) -> Result<(), PlainError> {
        for (position, value) in (1..).zip(values) {
            let length = |bytes: &Bytes| c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
            // SAFETY: a statement at rest; SQLite copies the bytes, whose length is told.
            let code = unsafe {
                match value {
                    Value::Integer(number) => sqlite::sqlite3_bind_int64(statement.0, position, *number),
                    Value::Float(number) => sqlite::sqlite3_bind_double(statement.0, position, *number),
                    Value::Null => sqlite::sqlite3_bind_null(statement.0, position),
                    Value::Text(text) => sqlite::sqlite3_bind_text(
                        statement.0,
                        position,
                        text.as_ptr().cast(),
                        length(text),
                        sqlite::SQLITE_TRANSIENT(),
                    ),
                    Value::Blob(blob) => sqlite::sqlite3_bind_blob(
                        statement.0,
                        position,
                        blob.as_ptr().cast(),
                        length(blob),
                        sqlite::SQLITE_TRANSIENT(),
                    ),
                }
            };
            if code != sqlite::SQLITE_OK {
                return Err(self.error(code));
            }
        }
        Ok(())
    }

    fn value(statement: &Prepared, column: c_int) -> Value {
        // SAFETY: a statement on a row that has this column; bytes are copied before the next call.
        unsafe {
            let bytes = |start: *const u8| {
                let length = usize::try_from(sqlite::sqlite3_column_bytes(statement.0, column)).unwrap_or(0);
                if start.is_null() {
                    return Bytes::new();
                }
                Bytes::copy_from_slice(std::slice::from_raw_parts(start, length))
            };
            match sqlite::sqlite3_column_type(statement.0, column) {
                sqlite::SQLITE_INTEGER => Value::Integer(sqlite::sqlite3_column_int64(statement.0, column)),
                sqlite::SQLITE_FLOAT => Value::Float(sqlite::sqlite3_column_double(statement.0, column)),
                sqlite::SQLITE_TEXT => Value::Text(bytes(sqlite::sqlite3_column_text(statement.0, column))),
                sqlite::SQLITE_BLOB => {
                    Value::Blob(bytes(sqlite::sqlite3_column_blob(statement.0, column).cast()))
                }
                _ => Value::Null,
            }
        }
    }

    /// Runs all statements of a text; the values are for the first.
    ///
    /// # Errors
    /// SQLite's; what ran before stays.
    pub fn run(&mut self, sql: &str, values: &[Value]) -> Result<Ran, PlainError> {
        let mut rest = sql.as_bytes();
        let mut values = values;
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let (statement, length) = self.prepare(rest)?;
            rest = rest.get(length..).unwrap_or_default();
            if statement.0.is_null() {
                continue;
            }
            self.bind(&statement, std::mem::take(&mut values))?;
            rows.clear();
            // SAFETY: a prepared statement.
            let columns = unsafe { sqlite::sqlite3_column_count(statement.0) };
            loop {
                // SAFETY: a prepared statement.
                match unsafe { sqlite::sqlite3_step(statement.0) } {
                    sqlite::SQLITE_ROW => {
                        rows.push((0..columns).map(|column| Plain::value(&statement, column)).collect());
                    }
                    sqlite::SQLITE_DONE => break,
                    code => return Err(self.error(code)),
                }
            }
        }
        // SAFETY: an open connection.
        let changes = unsafe { sqlite::sqlite3_changes(self.raw.as_ptr()) };
        // SAFETY: as above.
        let rowid = unsafe { sqlite::sqlite3_last_insert_rowid(self.raw.as_ptr()) };
        Ok(Ran { rows, changes: u64::from(changes.unsigned_abs()), rowid })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: an open connection without statements.
        unsafe { sqlite::sqlite3_close(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_changes_and_row_ids_are_sqlites() {
        let mut plain = Plain::new().expect("a database");
        plain.run("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2, NULL)", &[]).expect("two rows");
        let ran = plain.run("UPDATE t SET b = ?", &[Value::Float(0.5)]).expect("an update");
        assert_eq!((ran.changes, ran.rowid), (2, 2));
        let ran = plain.run("SELECT a, b FROM t", &[]).expect("rows");
        assert_eq!(ran.rows[1], [Value::Integer(2), Value::Float(0.5)]);
        assert_eq!(plain.run("SELECT * FROM u", &[]).expect_err("no table").code, 1);
    }
}
