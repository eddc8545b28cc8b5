//! Statements that may add to the schema: each runs inside a savepoint and is taken back alone if the schema could then nest too
//! deep. So no schema is committed here that a statement cannot be compiled with.

use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::compile;
use super::compiled::SchemaChange;
use super::handle::{Handle, SqliteError, Weighed};
use super::inside::Inside;
use super::nesting;
use super::statement::{Statement, Step, Value};
use crate::types::config::SCHEMA_NESTING_MAX_BYTES;
use crate::vfs::{Seen, Vfs, View};

/// Steps a statement to its next row or to its end, and one that may add to the schema to its end.
///
/// # Errors
/// Those of the step and of its commit; the schema could nest too deep; RETURNING, which would leave before that is known.
pub fn step(statement: &mut Statement, inside: &mut Inside) -> Result<Step, SqliteError> {
    match statement.compiled().schema_change() {
        Some(change) if statement.writes() => change_schema(statement, inside, change),
        _ => statement.step_as_compiled(inside),
    }
}

fn change_schema(
    statement: &mut Statement,
    inside: &mut Inside,
    change: SchemaChange,
) -> Result<Step, SqliteError> {
    let handle = Arc::clone(statement.handle());
    let begins = handle.autocommit(inside);
    compile::run(&handle, inside, b"SAVEPOINT dqlite_schema")?;
    let stepped = match statement.step(inside) {
        Ok(Step::Done) => {
            let sql = statement.sql(inside).to_vec();
            check(&handle, inside, change, &sql).map(|()| Step::Done)
        }
        Ok(Step::Row) => {
            let message = b"RETURNING is not allowed on the schema".to_vec();
            Err(SqliteError { code: sqlite::SQLITE_ERROR, message })
        }
        failed => failed,
    };
    let ended = match stepped {
        Ok(_) => compile::run(&handle, inside, b"RELEASE dqlite_schema"),
        Err(_) => {
            // The error is known already.
            let _ = statement.reset(inside);
            if !begins {
                take_back(&handle, inside);
            }
            Ok(())
        }
    };
    if begins && !handle.autocommit(inside) {
        // What is refused, itself or its commit, is given up.
        let _ = compile::run(&handle, inside, b"ROLLBACK");
    }
    if begins
        && ended.is_ok()
        && stepped.is_ok()
        && let Some(view) = view_of(&handle)
    {
        // This was its commit: the weight holds for what it made.
        handle.weighed().at = view.saw().map(key);
    }
    ended.and(stepped)
}

/// Takes the statement back and leaves the client's transaction as it was; one of which that cannot be said is given up. An error
/// that ended the transaction has ended the savepoint, too.
fn take_back(handle: &Arc<Handle>, inside: &mut Inside) {
    if handle.autocommit(inside) {
        return;
    }
    let taken_back = compile::run(handle, inside, b"ROLLBACK TO dqlite_schema")
        .and_then(|()| compile::run(handle, inside, b"RELEASE dqlite_schema"));
    if taken_back.is_err() {
        // The client is told of a failure in any case.
        let _ = compile::run(handle, inside, b"ROLLBACK");
    }
}

fn view_of(handle: &Handle) -> Option<Arc<View>> {
    // SAFETY: an open connection, which one task uses at a time.
    unsafe { Vfs::view_of(handle.raw()) }
}

fn key(seen: Seen) -> (u64, u32) {
    (seen.epoch, seen.version)
}

/// Checks the schema with what a statement has just done to it.
fn check(
    handle: &Arc<Handle>,
    inside: &mut Inside,
    change: SchemaChange,
    sql: &[u8],
) -> Result<(), SqliteError> {
    let at = view_of(handle).and_then(|view| view.pinned_version()).map(key);
    let known = *handle.weighed();
    let mut weight = match change {
        SchemaChange::Creates if at.is_some() && known.at == at => {
            known.weight + nesting::creation_weight(sql)
        }
        _ => u64::MAX,
    };
    if weight > SCHEMA_NESTING_MAX_BYTES {
        weight = schema_weight(handle, inside)?;
    }
    nesting::check_schema(weight)?;
    *handle.weighed() = Weighed { at, weight };
    Ok(())
}

/// The weight of all databases of a connection: its own, the temporary one, and what was attached without a name.
fn schema_weight(handle: &Arc<Handle>, inside: &mut Inside) -> Result<u64, SqliteError> {
    let mut names = Vec::new();
    each_row(handle, inside, b"PRAGMA database_list", |row, inside| {
        if let Value::Text(name) = row.value(inside, 1) {
            names.push(name.to_vec());
        }
    })?;
    let mut weight = 0;
    for name in names {
        let quoted: Vec<u8> =
            name.iter().flat_map(|byte| if *byte == b'"' { vec![b'"'; 2] } else { vec![*byte] }).collect();
        let sql = [b"SELECT sql FROM \"", &quoted[..], b"\".sqlite_master"].concat();
        each_row(handle, inside, &sql, |row, inside| match row.value(inside, 0) {
            // SQLite parses a BLOB as it does a text.
            Value::Text(sql) | Value::Blob(sql) => weight += nesting::object_weight(sql),
            _ => {}
        })?;
    }
    Ok(weight)
}

fn each_row(
    handle: &Arc<Handle>,
    inside: &mut Inside,
    sql: &[u8],
    mut row: impl FnMut(&Statement, &Inside),
) -> Result<(), SqliteError> {
    compile::each(handle, inside, sql, |statement, inside| {
        let stepped = statement.step(inside)?;
        if stepped == Step::Row {
            row(statement, inside);
        }
        Ok(stepped)
    })
}
