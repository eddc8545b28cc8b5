//! Running statements: which root, whose turn, what was committed, and what the reply has to wait for.

use std::sync::Arc;
use std::time::Instant;

use crate::pages::Database;
use crate::protocol::request::Value;
use crate::protocol::rows::ColumnValue;
use crate::raft::Proposed;
use crate::state_machine::frames;
use crate::types::config::SQL_SHORT_TEXT_BYTES;
use crate::types::tasks::Expected;

use super::failure::{self, Failure};
use super::limits::InFlightPermit;
use super::proof::Proving;
use super::session::{Session, Tail};
use super::sqlite::{SqliteError, Statement, Step, TransactionState};
use super::text::is_blank;

/// One request: what it used and what its reply waits for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) epoch: u64,
    database: Arc<Database>,
    /// A statement of this request used head; what follows does too.
    used_head: bool,
    /// Newest version made or seen on head.
    version: Option<u32>,
    /// Whether the request put something into the log's queue.
    pub(super) wrote: bool,
    /// The first version that it put there: if that is not in the log, nothing of the request is.
    first_written: Option<u32>,
    pub(super) proving: Proving,
    in_flight: Vec<InFlightPermit>,
}

impl Request {
    pub(super) fn new(epoch: u64, database: Arc<Database>) -> Request {
        Request {
            epoch,
            database,
            used_head: false,
            version: None,
            wrote: false,
            first_written: None,
            proving: Proving::default(),
            in_flight: Vec::new(),
        }
    }

    /// The failure of a request whose epoch has ended.
    pub(super) fn lost(&self) -> Failure {
        if self.wrote { Failure::leadership_lost() } else { Failure::not_leader() }
    }
}

/// How a statement came to rest inside SQLite.
pub(super) enum Rest {
    /// It ran to its end.
    Done,
    /// It yielded a row.
    Row,
    /// It failed.
    Failed(SqliteError),
}

impl Session {
    /// Compiles the first statement of a text.
    pub(super) async fn compile(
        &mut self,
        request: &mut Request,
        sql: &[u8],
        tail: Tail,
    ) -> Result<(Statement, usize), Failure> {
        let (statement, offset) = self.compile_first(request, sql).await?;
        let Some(statement) = statement else {
            return Err(Failure::new(0, "empty statement"));
        };
        let rest = sql.get(offset..).unwrap_or_default();
        if tail == Tail::Refuse && !is_blank(rest) {
            return Err(Failure::new(failure::ERROR, "nonempty statement tail"));
        }
        Ok((statement, offset))
    }

    async fn compile_first(
        &mut self,
        request: &mut Request,
        sql: &[u8],
    ) -> Result<(Option<Statement>, usize), Failure> {
        let expected = if sql.len() <= SQL_SHORT_TEXT_BYTES { Expected::Short } else { Expected::Unknown };
        let compiled = self.in_sqlite(request, expected, |open| open.connection.prepare(sql)).await?;
        compiled.map_err(Failure::from)
    }

    /// Runs every statement of a text; parameters run on from statement to statement. spec: client-protocol 8.3.
    pub(super) async fn run_all(
        &mut self,
        request: &mut Request,
        sql: &[u8],
        values: &[Value],
    ) -> Result<(), Failure> {
        if let Some(mut statement) = self.open_mut()?.kept.take(sql) {
            if values.len() > statement.parameter_count() {
                self.keep(sql, statement);
                return Err(Failure::bind());
            }
            self.run_to_end(request, &mut statement, values).await?;
            self.keep(sql, statement);
            return Ok(());
        }
        let mut text = sql;
        let mut values = values;
        while !text.is_empty() {
            let (statement, offset) = self.compile_first(request, text).await?;
            let Some(mut statement) = statement else { break };
            let is_whole_text = text.len() == sql.len();
            text = text.get(offset..).unwrap_or_default();
            let count = statement.parameter_count();
            if values.len() > count && is_blank(text) {
                return Err(Failure::bind());
            }
            let (own, others) = values.split_at(count.min(values.len()));
            values = others;
            self.run_to_end(request, &mut statement, own).await?;
            if is_whole_text && is_blank(text) {
                self.keep(sql, statement);
            }
        }
        Ok(())
    }

    /// Runs a statement that must not yield a row.
    pub(super) async fn run_to_end(
        &mut self,
        request: &mut Request,
        statement: &mut Statement,
        values: &[Value],
    ) -> Result<(), Failure> {
        let read_only = statement.read_only();
        self.prepare_to_run(request, read_only).await?;
        let mut rest = self.exec_once(request, statement, values).await?;
        if self.wants_turn(&rest)? {
            self.take_turn(request).await?;
            rest = self.exec_once(request, statement, values).await?;
        }
        self.collect(request)?;
        match rest {
            Rest::Done => Ok(()),
            Rest::Row => {
                Err(Failure::new(failure::ERROR, "rows yielded when none expected for EXEC request"))
            }
            Rest::Failed(error) => Err(self.failed(request, error)),
        }
    }

    async fn exec_once(
        &mut self,
        request: &mut Request,
        statement: &mut Statement,
        values: &[Value],
    ) -> Result<Rest, Failure> {
        let expected = statement.expected();
        self.in_sqlite(request, expected, |open| {
            let begin = Instant::now();
            if let Err(error) = bind_all(statement, values) {
                return Rest::Failed(error);
            }
            // A row given up takes its statement back: inside a transaction that needs a savepoint.
            let savepoint = !open.connection.autocommit()
                && !statement.read_only()
                && statement.column_count() > 0
                && open.connection.execute(b"SAVEPOINT dqlite_exec").is_ok();
            let rest = match statement.step() {
                Ok(Step::Done) => Rest::Done,
                Ok(Step::Row) => Rest::Row,
                Err(error) => Rest::Failed(error),
            };
            open.view.set_refuse_commit(matches!(rest, Rest::Row) && open.connection.autocommit());
            // The error of the step again, or that of the commit that is refused.
            let _ = statement.reset();
            open.view.set_refuse_commit(false);
            statement.clear_bindings();
            statement.took(begin.elapsed());
            if savepoint {
                let undone = if matches!(rest, Rest::Row) {
                    open.connection.execute(b"ROLLBACK TO dqlite_exec")
                } else {
                    Ok(())
                };
                if let Err(error) = undone.and_then(|()| open.connection.execute(b"RELEASE dqlite_exec")) {
                    return Rest::Failed(error);
                }
            }
            rest
        })
        .await
    }

    /// Root and turn for the next run of a statement.
    pub(super) async fn prepare_to_run(
        &mut self,
        request: &mut Request,
        read_only: bool,
    ) -> Result<(), Failure> {
        let open = self.open_mut()?;
        let in_transaction = !open.connection.autocommit();
        if !read_only {
            if open.reads_old_version() {
                return Err(Failure::busy_snapshot());
            }
            self.take_turn(request).await?;
        } else if in_transaction {
            // Else its first write could not be upgraded.
            request.used_head = true;
        }
        let used_head = request.used_head;
        let open = self.open_mut()?;
        open.view.set_use_head(used_head || open.turn.is_some());
        open.view.set_turn(open.turn.is_some());
        Ok(())
    }

    /// Waits for the writer's turn and for room in flight.
    pub(super) async fn take_turn(&mut self, request: &mut Request) -> Result<(), Failure> {
        request.used_head = true;
        let busy_timeout = self.executor.busy_timeout();
        let executor = Arc::clone(&self.executor);
        let open = self.open_mut()?;
        if open.turn.is_none() {
            let turn = executor.turn(&open.database);
            open.turn = Some(turn.acquire(busy_timeout).await.map_err(|_| Failure::busy())?);
        }
        request.in_flight.push(executor.in_flight.acquire().await);
        let stale = executor.store.epoch() != request.epoch;
        let open = self.open_mut()?;
        if stale {
            open.turn = None;
            return Err(request.lost());
        }
        open.view.set_turn(true);
        open.view.set_use_head(true);
        if open.reads_old_version() {
            return Err(Failure::busy_snapshot());
        }
        Ok(())
    }

    /// Whether a statement that passed for read-only wants to write.
    pub(super) fn wants_turn(&mut self, rest: &Rest) -> Result<bool, Failure> {
        let open = self.open_mut()?;
        let wanted = open.view.take_wanted_turn();
        Ok(wanted && matches!(rest, Rest::Failed(_)) && open.turn.is_none())
    }

    /// Proposes what SQLite committed, passes the turn on, and notes what the reply waits for.
    pub(super) fn collect(&mut self, request: &mut Request) -> Result<(), Failure> {
        let executor = Arc::clone(&self.executor);
        let open = self.open_mut()?;
        for commit in open.view.take_commits() {
            request.version = Some(commit.version);
            if commit.pages.is_empty() {
                continue;
            }
            let data = frames::encode_frames(open.database.name(), &commit.pages);
            if let Some(permit) = request.in_flight.last_mut() {
                permit.add_bytes(data.len());
            }
            request.wrote = true;
            request.first_written.get_or_insert(commit.version);
            // Refused: the epoch is over, and the wait for the version says so.
            let database = Arc::clone(&open.database);
            let proposal = Proposed { data, merges: !commit.shrinks };
            let _ = executor
                .engine
                .propose(request.epoch, proposal, |token| database.assign(commit.version, token));
        }
        open.view.drop_deletion_permit();
        if let Some(seen) = open.view.saw()
            && seen.on_head
            && request.version.is_none()
        {
            request.version = Some(seen.version);
        }
        if open.connection.transaction_state() == TransactionState::Write {
            if let Some(turn) = &open.turn {
                turn.set_held_by_client(true);
            }
        } else {
            open.view.set_turn(false);
            open.turn = None;
        }
        Ok(())
    }

    /// Waits until everything that the request saw or made is applied, and this node is known to have led meanwhile.
    pub(super) async fn settle(&mut self, request: &mut Request) -> Result<(), Failure> {
        self.wait_until_applied(request).await?;
        self.prove(request).await
    }

    async fn wait_until_applied(&mut self, request: &mut Request) -> Result<(), Failure> {
        if request.version.is_none()
            && let Some(seen) = self.open.as_ref().and_then(|open| open.view.saw())
            && seen.on_head
        {
            request.version = Some(seen.version);
        }
        let Some(version) = request.version else { return Ok(()) };
        let when_applied = |version| request.database.when_applied(request.epoch, version);
        // Asked for before the wait: of an epoch that is over nobody knows what became of its versions.
        let first = request.first_written.map(|first| (first != version).then(|| when_applied(first)));
        let applied = when_applied(version).await;
        request.in_flight.clear();
        let Err(discarded) = applied else { return Ok(()) };
        Err(match first {
            None => Failure::leadership_lost(),
            Some(None) => Failure::discarded(discarded.appended),
            Some(Some(first)) => first
                .await
                .map_or_else(|lost| Failure::discarded(lost.appended), |()| Failure::leadership_lost()),
        })
    }

    /// The outcome of a request from that of its statements and that of the wait.
    pub(super) async fn conclude<T>(
        &mut self,
        request: &mut Request,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let settled = self.settle(request).await;
        match (result, settled) {
            (Err(failure), _) if failure.is_leadership() => Err(failure),
            (_, Err(failure)) => Err(failure),
            (result, Ok(())) => result,
        }
    }

    /// The failure of a statement, as far as leadership decides it.
    pub(super) fn failed(&self, request: &Request, error: SqliteError) -> Failure {
        let lost = self.executor.store.epoch() != request.epoch;
        match Failure::from(error) {
            failure if failure.code == failure::NOT_LEADER && request.wrote => Failure::leadership_lost(),
            failure if failure.code == failure::INTERRUPT && lost && request.wrote => {
                Failure::leadership_lost()
            }
            failure if failure.code == failure::INTERRUPT && lost => Failure::not_leader(),
            failure => failure,
        }
    }

    /// Runs `work` inside SQLite: after a permit, away from other tasks.
    pub(super) async fn in_sqlite<T>(
        &mut self,
        request: &Request,
        expected: Expected,
        work: impl FnOnce(&mut super::session::Open) -> T,
    ) -> Result<T, Failure> {
        let executor = Arc::clone(&self.executor);
        let _permit = executor.permits.acquire().await;
        self.drop_if_stale();
        let used_head = request.used_head;
        let Some(open) = self.open.as_mut() else { return Err(request.lost()) };
        open.view.set_use_head(used_head || open.turn.is_some());
        Ok(executor.in_sqlite(&self.interrupt, expected, request.epoch, || work(open)))
    }
}

/// Binds the values in order; the other parameters are NULL.
pub(super) fn bind_all(statement: &mut Statement, values: &[Value]) -> Result<(), SqliteError> {
    for (position, value) in values.iter().enumerate() {
        let value = match value {
            Value::Integer(number) => ColumnValue::Integer(*number),
            Value::Float(number) => ColumnValue::Float(*number),
            Value::Text(text) => ColumnValue::Text(text),
            Value::Blob(blob) => ColumnValue::Blob(blob),
            Value::Null => ColumnValue::Null,
        };
        statement.bind(position + 1, value)?;
    }
    Ok(())
}
