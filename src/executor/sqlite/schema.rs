//! Statements that may add to the schema: each runs inside a savepoint and is taken back alone if the schema could then nest too
//! deep. So no schema is committed here that a statement cannot be compiled with.

use std::sync::{Arc, PoisonError};

use libsqlite3_sys as sqlite;

use super::authorizer::SchemaChange;
use super::connection::{Handle, SqliteError};
use super::nesting;
use super::statement::{Statement, Step, Value};
use crate::types::config::SCHEMA_NESTING_MAX_BYTES;
use crate::vfs::{Seen, Vfs, View};

/// What a connection knows of the weight of its schema, so that a text that makes many objects takes linear time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weighed {
    /// The version for which it holds, and for what the connection has made on it.
    at: Option<(u64, u32)>,
    /// At least the weight.
    weight: u64,
}

/// Steps a statement to its end.
///
/// # Errors
/// Those of the step and of its commit; the schema could nest too deep; RETURNING, which would leave before that is known.
pub(super) fn step(statement: &mut Statement, change: SchemaChange) -> Result<Step, SqliteError> {
    let handle = Arc::clone(statement.handle());
    let begins = handle.autocommit();
    handle.execute(b"SAVEPOINT dqlite_schema")?;
    let stepped = match statement.step_alone() {
        Ok(Step::Done) => check(&handle, change, statement.sql()).map(|()| Step::Done),
        Ok(Step::Row) => {
            let message = b"RETURNING is not allowed on the schema".to_vec();
            Err(SqliteError { code: sqlite::SQLITE_ERROR, message })
        }
        failed => failed,
    };
    let ended = match stepped {
        Ok(_) => handle.execute(b"RELEASE dqlite_schema"),
        Err(_) => {
            // The error is known already. One that ended the transaction has ended the savepoint, too.
            let _ = statement.reset();
            let _ = handle.execute(b"ROLLBACK TO dqlite_schema");
            let _ = handle.execute(b"RELEASE dqlite_schema");
            Ok(())
        }
    };
    if begins && !handle.autocommit() {
        // What is refused at its commit is given up.
        let _ = handle.execute(b"ROLLBACK");
    }
    if begins && let Some(view) = view_of(&handle) {
        // If this was its commit, the weight holds for what it made.
        handle.weighed.lock().unwrap_or_else(PoisonError::into_inner).at = view.saw().map(key);
    }
    ended.and(stepped)
}

fn view_of(handle: &Handle) -> Option<Arc<View>> {
    // SAFETY: an open connection, which one task uses at a time.
    unsafe { Vfs::view_of(handle.raw()) }
}

fn key(seen: Seen) -> (u64, u32) {
    (seen.epoch, seen.version)
}

/// Checks the schema with what a statement has just done to it.
fn check(handle: &Arc<Handle>, change: SchemaChange, sql: &[u8]) -> Result<(), SqliteError> {
    let at = view_of(handle).and_then(|view| view.pinned_version()).map(key);
    let known = *handle.weighed.lock().unwrap_or_else(PoisonError::into_inner);
    let mut weight = match change {
        SchemaChange::Creates if at.is_some() && known.at == at => {
            known.weight + nesting::creation_weight(sql)
        }
        _ => u64::MAX,
    };
    if weight > SCHEMA_NESTING_MAX_BYTES {
        weight = schema_weight(handle)?;
    }
    nesting::check_schema(weight)?;
    *handle.weighed.lock().unwrap_or_else(PoisonError::into_inner) = Weighed { at, weight };
    Ok(())
}

/// The weight of all databases of a connection: its own, the temporary one, and what was attached without a name.
fn schema_weight(handle: &Arc<Handle>) -> Result<u64, SqliteError> {
    let mut names = Vec::new();
    each_row(handle, b"PRAGMA database_list", |row| {
        if let Value::Text(name) = row.value(1) {
            names.push(name.to_vec());
        }
    })?;
    let mut weight = 0;
    for name in names {
        let quoted: Vec<u8> =
            name.iter().flat_map(|byte| if *byte == b'"' { vec![b'"'; 2] } else { vec![*byte] }).collect();
        let sql = [b"SELECT type, sql FROM \"", &quoted[..], b"\".sqlite_master"].concat();
        each_row(handle, &sql, |row| {
            if let (Value::Text(kind), Value::Text(sql)) = (row.value(0), row.value(1)) {
                weight += nesting::object_weight(kind, sql);
            }
        })?;
    }
    Ok(weight)
}

fn each_row(handle: &Arc<Handle>, sql: &[u8], mut row: impl FnMut(&Statement)) -> Result<(), SqliteError> {
    let (Some(mut statement), _) = handle.prepare(sql)? else { return Ok(()) };
    while statement.step_alone()? == Step::Row {
        row(&statement);
    }
    Ok(())
}
