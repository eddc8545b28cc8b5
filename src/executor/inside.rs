//! What happens to a request's statement inside SQLite: it is compiled, bound, stepped and reset. What it needs first is decided
//! here, too, as soon as it is compiled. Nothing here waits.

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::request::Value;
use crate::protocol::rows::ColumnValue;

use super::failure::Failure;
use super::seat::{Running, Seat, Source};
use super::sqlite::{self, End, Heeds, Inside, SqliteError, Statement, Step, TransactionState};

/// Parameters of a request.
pub(super) type Values = Arc<Vec<Value>>;

/// How a statement came to rest.
#[derive(Debug)]
pub(super) enum Rest {
    /// It ran to its end.
    Done,
    /// It yielded a row.
    Row,
    /// It failed.
    Failed(SqliteError),
    /// It has made its changes, and its rows are not wanted any more.
    Ended(End),
}

/// What came of an attempt to run a statement.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    /// The text has no further statement.
    Blank,
    /// It is compiled and needs what the session does not hold.
    Wants(Needs),
    /// It cannot be run.
    Refused(Failure),
    /// It was not compiled.
    NotCompiled(SqliteError),
    /// It ran.
    Ran(T),
}

/// What a statement needs before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The writer's turn.
    pub(super) turn: bool,
    /// Room in flight.
    pub(super) room: bool,
}

impl Needs {
    /// Whether something is missing where so much was granted.
    pub(super) fn exceeds(self, granted: Needs) -> bool {
        (self.turn && !granted.turn) || (self.room && !granted.room)
    }
}

const SAVEPOINT: &[u8] = b"SAVEPOINT dqlite_exec";
const ROLLBACK_TO: &[u8] = b"ROLLBACK TO dqlite_exec";
const RELEASE: &[u8] = b"RELEASE dqlite_exec";

/// A read that ends a snapshot which SQLite has kept.
const THROWN_AWAY: &[u8] = b"SELECT rowid FROM sqlite_master LIMIT 1";

impl Seat {
    /// What the running statement needs. A write of temporary tables alone needs nothing, whatever snapshot is held.
    pub(super) fn needs(&self, statement: &Statement) -> Needs {
        let writes = statement.writes() && !statement.compiled().writes_only_temporary();
        let commits = self.turn.is_some() && statement.compiled().ends_transaction();
        Needs { turn: writes, room: commits || (writes && self.noted.autocommit) }
    }

    /// Compiles the statement of a source unless it is there and up to date. `Ok(false)`: the text has no further statement.
    fn find(&mut self, inside: &mut Inside, source: &Source) -> Result<bool, SqliteError> {
        if let Some(running) = &mut self.running {
            if running.statement.is_outdated() {
                sqlite::compile_again(&mut running.statement, inside)?;
            }
            return Ok(true);
        }
        let (Source::Text(text, at), Ok(connection)) = (source, self.connection()) else { return Ok(false) };
        let (statement, length) = connection.prepare(inside, text.to_compile(*at))?;
        let Some(statement) = statement else { return Ok(false) };
        self.set_running(source, statement, at + length);
        Ok(true)
    }

    /// Compiles, checks, and runs `run` if nothing is missing.
    pub(super) fn attempt<T>(
        &mut self,
        inside: &mut Inside,
        source: &Source,
        granted: Needs,
        check: impl FnOnce(&Running) -> Result<(), Failure>,
        run: impl FnOnce(&mut Seat, &mut Inside) -> T,
    ) -> Attempt<T> {
        match self.find(inside, source) {
            Ok(true) => {}
            Ok(false) => return Attempt::Blank,
            Err(error) => return Attempt::NotCompiled(error),
        }
        let Some(running) = &self.running else { return Attempt::Blank };
        if let Err(failure) = check(running) {
            return Attempt::Refused(failure);
        }
        let needs = self.needs(&running.statement);
        if needs.exceeds(granted) {
            return Attempt::Wants(needs);
        }
        Attempt::Ran(run(self, inside))
    }

    /// Binds the values in order; the other parameters are NULL.
    pub(super) fn bind(&mut self, inside: &mut Inside, values: &[Value]) -> Result<(), SqliteError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        for (position, value) in values.iter().enumerate() {
            let value = match value {
                Value::Integer(number) => ColumnValue::Integer(*number),
                Value::Float(number) => ColumnValue::Float(*number),
                Value::Text(text) => ColumnValue::Text(text),
                Value::Blob(blob) => ColumnValue::Blob(blob),
                Value::Null => ColumnValue::Null,
            };
            running.statement.bind(inside, position + 1, value)?;
        }
        Ok(())
    }

    /// Runs a statement of which no rows are wanted: one that yields a row is taken back.
    pub(super) fn execute_once(&mut self, inside: &mut Inside, values: &[Value]) -> Rest {
        let begin = Instant::now();
        let rest = match self.bind(inside, values) {
            Err(error) => Rest::Failed(error),
            Ok(()) => self.step_once(inside),
        };
        if let Some(running) = &mut self.running {
            running.statement.took(begin.elapsed());
        }
        rest
    }

    fn step_once(&mut self, inside: &mut Inside) -> Rest {
        let autocommit = self.noted.autocommit;
        let Some(running) = &mut self.running else { return Rest::Done };
        // A row given up takes its statement back: inside a transaction that needs a savepoint.
        let may_take_back =
            !autocommit && !running.statement.read_only() && running.statement.declared_columns() > 0;
        if may_take_back && let Err(error) = self.run_aside(inside, SAVEPOINT) {
            return Rest::Failed(error);
        }
        let Some(running) = &mut self.running else { return Rest::Done };
        running.started = true;
        let rest = match sqlite::step(&mut running.statement, inside) {
            Ok(Step::Done) => Rest::Done,
            Ok(Step::Row) => Rest::Row,
            Err(error) => Rest::Failed(error),
        };
        self.reset(inside, matches!(rest, Rest::Row) && autocommit);
        // The end of the transaction is the end of its savepoints.
        if !may_take_back || self.connection().is_ok_and(|connection| connection.autocommit(inside)) {
            return rest;
        }
        let undone = if matches!(rest, Rest::Row) { self.run_aside(inside, ROLLBACK_TO) } else { Ok(()) };
        match (rest, undone.and_then(|()| self.run_aside(inside, RELEASE))) {
            // Its own reason counts more.
            (Rest::Failed(error), _) | (_, Err(error)) => Rest::Failed(error),
            (rest, Ok(())) => rest,
        }
    }

    /// Runs a statement of ours beside the client's.
    fn run_aside(&self, inside: &mut Inside, sql: &[u8]) -> Result<(), SqliteError> {
        self.connection().map_or(Ok(()), |connection| connection.execute(inside, sql))
    }

    /// Steps to the next row. A writing statement has made all its changes when it yields its first: from there on it is ended
    /// for the client's sake between its rows alone, and what it did stays.
    pub(super) fn step(&mut self, inside: &mut Inside) -> Result<Step, Rest> {
        let Some(running) = &mut self.running else { return Ok(Step::Done) };
        let writes = !running.statement.read_only();
        if writes
            && running.started
            && let Some(end) = self.ended.look(Heeds::All)
        {
            return Err(Rest::Ended(end));
        }
        running.started = true;
        let stepped = sqlite::step(&mut running.statement, inside).map_err(Rest::Failed);
        if writes && matches!(stepped, Ok(Step::Row)) {
            running.has_changed = true;
            self.ended.set_has_changed(true);
        }
        stepped
    }

    /// Brings the statement to rest, wherever it is: the inside half of `rest`. A reading statement in the middle of its rows,
    /// whose function has written, is given up; so is one whose commit is refused on purpose.
    pub(super) fn come_to_rest(&mut self, inside: &mut Inside) {
        let reads = self.running.as_ref().is_some_and(|running| running.statement.read_only());
        self.reset(inside, reads && self.noted.autocommit);
    }

    /// Brings a statement to rest of which the client is told that it failed: nothing of it is committed by its end.
    pub(super) fn give_up(&mut self, inside: &mut Inside) {
        self.reset(inside, self.noted.autocommit);
    }

    fn reset(&mut self, inside: &mut Inside, refuse_commit: bool) {
        let Some(running) = &mut self.running else { return };
        if running.started {
            self.view.set_refuse_commit(refuse_commit);
            // The error of the last step again, or that of the commit that is refused.
            let _ = running.statement.reset(inside);
            self.view.set_refuse_commit(false);
            running.started = false;
            running.has_changed = false;
        }
        running.statement.clear_bindings(inside);
        self.ended.set_has_changed(false);
        self.end_leftover_snapshot(inside);
    }

    /// In autocommit nothing is open when nothing runs. FTS5 makes SQLite keep the snapshot of a statement that was rolled back:
    /// later statements would read an old version.
    fn end_leftover_snapshot(&mut self, inside: &mut Inside) {
        let Ok(connection) = self.connection() else { return };
        let is_left = |inside: &Inside| {
            connection.autocommit(inside) && connection.transaction_state(inside) != TransactionState::None
        };
        if !is_left(inside) {
            return;
        }
        self.view.set_refuse_commit(true);
        // Whether it has helped is looked at.
        let _ = connection.execute(inside, THROWN_AWAY);
        self.view.set_refuse_commit(false);
        let is_spoilt = is_left(inside);
        self.is_spoilt |= is_spoilt;
    }
}

#[cfg(test)]
mod tests {
    use super::Needs;

    #[test]
    fn a_statement_waits_for_what_it_needs_and_nobody_granted() {
        let needs = |turn, room| Needs { turn, room };
        for (wanted, granted, exceeds) in [
            (needs(false, false), needs(false, false), false),
            (needs(true, false), needs(false, true), true),
            (needs(true, false), needs(true, false), false),
            (needs(false, true), needs(true, false), true),
            (needs(false, true), needs(false, true), false),
            (needs(true, true), needs(true, false), true),
            (needs(true, true), needs(true, true), false),
        ] {
            assert_eq!(wanted.exceeds(granted), exceeds, "{wanted:?} where {granted:?} is granted");
        }
    }
}
