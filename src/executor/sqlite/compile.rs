//! Compiling statements of a connection, and running those that nobody else looks at.

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::handle::{Handle, SqliteError};
use super::inside::Inside;
use super::nesting;
use super::statement::{Statement, Step};

/// As `Connection::prepare`.
pub(super) fn prepare(
    handle: &Arc<Handle>,
    _inside: &mut Inside,
    sql: &[u8],
) -> Result<(Option<Statement>, usize), SqliteError> {
    nesting::check_statement(sql)?;
    let Ok(length) = c_int::try_from(sql.len()) else {
        let message = b"string or blob too big".to_vec();
        return Err(SqliteError { code: sqlite::SQLITE_TOOBIG, message });
    };
    let mut raw = ptr::null_mut();
    let mut tail = ptr::null();
    handle.forget_noted();
    // SAFETY: an open connection, `length` bytes of text, two places to be set.
    let code = unsafe {
        sqlite::sqlite3_prepare_v2(handle.raw(), sql.as_ptr().cast(), length, &raw mut raw, &raw mut tail)
    };
    if code != sqlite::SQLITE_OK {
        return Err(handle.error(code));
    }
    let start = sql.as_ptr().addr();
    let mut offset = tail.addr().checked_sub(start).map_or(sql.len(), |offset| offset.min(sql.len()));
    // SQLite reads nothing after a NUL.
    if sql.get(offset) == Some(&0) {
        offset = sql.len();
    }
    let statement =
        NonNull::new(raw).map(|raw| Statement::new(raw, handle, handle.take_noted(&sql[..offset])));
    Ok((statement, offset))
}

/// Compiles a statement again.
///
/// # Errors
/// As `prepare`; the statement is as it was.
pub fn again(statement: &mut Statement, inside: &mut Inside) -> Result<(), SqliteError> {
    let sql = statement.sql(inside).to_vec();
    let (compiled, _) = prepare(&Arc::clone(statement.handle()), inside, &sql)?;
    if let Some(compiled) = compiled {
        std::mem::replace(statement, compiled).finalize(inside);
    }
    Ok(())
}

/// Runs the statements of a text, which is ours, and drops their rows.
pub(super) fn run(handle: &Arc<Handle>, inside: &mut Inside, sql: &[u8]) -> Result<(), SqliteError> {
    each(handle, inside, sql, |statement, inside| statement.step(inside))
}

/// Steps each statement of a text to its end.
pub(super) fn each(
    handle: &Arc<Handle>,
    inside: &mut Inside,
    sql: &[u8],
    mut step: impl FnMut(&mut Statement, &mut Inside) -> Result<Step, SqliteError>,
) -> Result<(), SqliteError> {
    let mut rest = sql;
    while !rest.is_empty() {
        let (statement, offset) = prepare(handle, inside, rest)?;
        if let Some(mut statement) = statement {
            let mut was_outdated = false;
            let ended = loop {
                match step(&mut statement, inside) {
                    Ok(Step::Row) => {}
                    Ok(Step::Done) => break Ok(()),
                    Err(_) if statement.is_outdated() && !std::mem::replace(&mut was_outdated, true) => {
                        // The error of the step again.
                        let _ = statement.reset(inside);
                        if let Err(error) = again(&mut statement, inside) {
                            break Err(error);
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            statement.finalize(inside);
            ended?;
        }
        rest = rest.get(offset..).unwrap_or_default();
    }
    Ok(())
}
