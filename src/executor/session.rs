//! The requests of one client connection on its seat. Each is begun, has bodies of one statement, each of which comes to rest,
//! and is settled before its reply. spec: client-protocol 7.1, 8, 10.2.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::protocol::request::Value;
use crate::raft::{Serving, Status};
use crate::types::config::SQL_SHORT_TEXT_BYTES;
use crate::types::tasks::Expected;

use super::Executor;
use super::failure::{self, Failure};
use super::inside::{Rest, Values};
use super::permits::Lane;
use super::place::Place;
use super::request::{Halt, Request, ended_unwritten};
use super::seat::{Seat, Source};
use super::sqlite::{Connection, Ended, Inside, SqliteError};
use super::text::Text;

/// One client connection's use of SQL.
#[derive(Debug)]
pub struct Session {
    pub(super) executor: Arc<Executor>,
    pub(super) seat: Option<Box<Seat>>,
    pub(super) ended: Ended,
    pub(super) place: Place,
    status: watch::Receiver<Status>,
    /// What the status said when it was seen last.
    seen_serving: Option<Serving>,
}

/// A prepared statement as the client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Lowest free number.
    pub id: u32,
    /// Parameters of the statement.
    pub parameters: u64,
    /// Bytes of the text up to the end of the statement.
    pub tail_offset: u64,
}

/// What EXEC and EXEC_SQL answer. spec: client-protocol 8.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// `sqlite3_last_insert_rowid` of the connection.
    pub last_insert_id: i64,
    /// `sqlite3_changes` of the connection.
    pub rows_affected: u64,
}

/// What to do with SQL text behind the first statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It is a failure.
    Refuse,
    /// It is left to the client.
    Report,
}

/// A statement that ran to its end: where the text goes on, and how many parameters it took.
struct Ran {
    end: usize,
    parameters: usize,
}

impl Session {
    pub(super) fn new(executor: Arc<Executor>) -> Session {
        let ended = Ended::of_node(Arc::clone(&executor.store), Arc::clone(&executor.stopping));
        let mut status = executor.engine.status();
        let seen_serving = status.borrow_and_update().serving;
        Session { executor, seat: None, ended, place: Place::default(), status, seen_serving }
    }

    /// In which epoch and term this node serves, if it does. The status, whose lock all sessions share, is read when it has changed.
    pub fn serving(&mut self) -> Option<Serving> {
        // An error is the end of consensus, whose last word stays.
        if self.status.has_changed().unwrap_or(true) {
            self.seen_serving = self.status.borrow_and_update().serving;
        }
        self.seen_serving.filter(|serving| serving.epoch == self.executor.store.epoch())
    }

    /// What ends this session's work; whoever looks after the connection sets it.
    #[must_use]
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// As the executor's.
    #[must_use]
    pub fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.executor.watch_epoch()
    }

    /// Where its statements are inside SQLite.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Opens a database, creating it if need be.
    ///
    /// # Errors
    /// Not the leader; a database is open already; a name that is none.
    pub async fn open(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.leave_if_stale();
        let Some(serving) = self.serving() else {
            return Err(Failure::not_leader());
        };
        if self.seat.is_some() {
            return Err(Failure::new(failure::BUSY, "a database for this connection is already open"));
        }
        self.ended.begin(serving.epoch);
        let permit = self.permit(Lane::Works).await.map_err(ended_unwritten)?;
        let executor = Arc::clone(&self.executor);
        let (ended, name) = (self.ended.clone(), name.to_vec());
        let open = move |inside: &mut Inside| {
            let connection = Connection::open_with(inside, &executor.vfs, &name, &ended)?;
            connection.view().set_members(Arc::clone(&executor.members));
            connection.view().set_epoch(serving.epoch);
            let store = Arc::clone(&executor.store);
            let line = executor.turns.of(&name, serving.epoch);
            Ok::<_, Failure>(Box::new(Seat::new(connection, line, store, ended, serving.epoch)))
        };
        let opened = self.executor.run_inside(&self.ended, &self.place, permit, Expected::Unknown, open);
        self.seat = Some(opened.await.ok_or(Failure::not_leader())??);
        self.leave_if_stale();
        if self.seat.is_some() { Ok(()) } else { Err(Failure::not_leader()) }
    }

    /// Prepares the first statement of `sql`.
    ///
    /// # Errors
    /// SQLite's, an empty text (code 0), a second statement where none may be, leadership.
    pub async fn prepare(&mut self, sql: &Bytes, tail: Tail) -> Result<Prepared, Failure> {
        let mut request = self.begin()?;
        let prepared = self.compile(&mut request, sql, tail).await;
        self.rest(&mut request).await;
        self.conclude(&mut request, prepared).await
    }

    async fn compile(&mut self, request: &mut Request, sql: &Bytes, tail: Tail) -> Result<Prepared, Halt> {
        let mut text = Text::new(sql.clone());
        text.terminate()?;
        let expected = if sql.len() <= SQL_SHORT_TEXT_BYTES { Expected::Short } else { Expected::Unknown };
        let compiled = self.enter(request, Lane::Works, expected, move |inside, seat| {
            let (statement, offset) = seat.connection()?.prepare(inside, text.to_compile(0))?;
            let offset = offset.min(text.sql().len());
            let statement = statement.ok_or(Failure::new(0, "empty statement"))?;
            if tail == Tail::Refuse && !text.is_blank_from(offset) {
                statement.finalize(inside);
                return Err(Compiling::from(Failure::new(failure::ERROR, "nonempty statement tail")));
            }
            let parameters = statement.parameter_count() as u64;
            let id = seat.add_prepared(statement)?;
            Ok(Prepared { id, parameters, tail_offset: offset as u64 })
        });
        match compiled.await? {
            Ok(prepared) => Ok(prepared),
            Err(Compiling::Failure(failure)) => Err(failure.into()),
            Err(Compiling::Sqlite(error)) => Err(self.failed(error)),
        }
    }

    /// Forgets a prepared statement.
    ///
    /// # Errors
    /// No database, no such statement.
    pub fn finalize(&mut self, id: u32) -> Result<(), Failure> {
        self.leave_if_stale();
        self.seat_mut()?.remove_prepared(id)
    }

    /// Runs a prepared statement that yields no rows.
    ///
    /// # Errors
    /// SQLite's, those of the protocol, leadership.
    pub async fn exec(&mut self, id: u32, values: Vec<Value>) -> Result<Executed, Failure> {
        let mut request = self.begin()?;
        let result = self.run_one(&mut request, Source::Prepared(id), &Arc::new(values), 0).await;
        self.rest(&mut request).await;
        self.conclude(&mut request, result).await?;
        executed(&request)
    }

    /// Runs every statement of a text.
    ///
    /// # Errors
    /// Those of the first statement that fails; what ran before stays.
    pub async fn exec_sql(&mut self, sql: Bytes, values: Vec<Value>) -> Result<Executed, Failure> {
        let mut request = self.begin()?;
        let result = self.run_all(&mut request, Text::new(sql), values).await;
        self.conclude(&mut request, result).await?;
        executed(&request)
    }

    /// Runs every statement of a text; parameters run on from statement to statement. Each comes to rest before the next, so
    /// that others write in between. spec: client-protocol 8.3.
    async fn run_all(&mut self, request: &mut Request, text: Text, values: Vec<Value>) -> Result<(), Halt> {
        let values = Arc::new(values);
        let (mut source, mut used) = (Source::Text(text, 0), 0);
        let mut pace = self.executor.pace();
        loop {
            let ran = self.run_one(request, source.clone(), &values, used).await;
            // What it left compiled is the same text.
            self.rest(request).await;
            let Some(ran) = ran? else { return Ok(()) };
            if !source.has_more_behind(ran.end) {
                return Ok(());
            }
            used += ran.parameters;
            if let Source::Text(text, at) = &mut source {
                text.terminate()?;
                *at = ran.end;
            }
            pace.keep().await;
        }
    }

    /// One body: a statement that must not yield a row. `None`: the text has no further statement.
    async fn run_one(
        &mut self,
        request: &mut Request,
        mut source: Source,
        values: &Values,
        used: usize,
    ) -> Result<Option<Ran>, Halt> {
        let mut tries = self.begin_body(request, &mut source)?;
        loop {
            let granted = self.grant(request, &mut tries).await?;
            let expected = self.expected(request);
            let (values, of) = (Arc::clone(values), source.clone());
            let attempt = self.enter(request, self.lane(), expected, move |inside, seat| {
                let left = values.get(used..).unwrap_or_default();
                let check = |running: &super::seat::Running| {
                    let takes_all = left.len() <= running.statement.parameter_count();
                    if takes_all || of.has_more_behind(running.end) { Ok(()) } else { Err(Failure::bind()) }
                };
                seat.attempt(inside, &of, granted, check, |seat, inside| {
                    let count =
                        seat.running.as_ref().map_or(0, |running| running.statement.parameter_count());
                    seat.execute_once(inside, &left[..count.min(left.len())])
                })
            });
            let attempt = attempt.await?;
            let Some(rest) = self.came_to(request, &mut tries, attempt)? else { continue };
            let Some(rest) = rest else { return Ok(None) };
            return match rest {
                Rest::Done => Ok(self.seat.as_ref().and_then(|seat| seat.running.as_ref()).map(|running| {
                    Ran { end: running.end, parameters: running.statement.parameter_count() }
                })),
                Rest::Row => {
                    let refused =
                        Failure::new(failure::ERROR, "rows yielded when none expected for EXEC request");
                    Err(refused.into())
                }
                Rest::Failed(error) => Err(self.failed(error)),
                Rest::Ended(end) => Err(Halt::Ended(end)),
            };
        }
    }

    /// Whether a request on this database can be served: the leader comes first, then the database.
    ///
    /// # Errors
    /// Not the leader; no database with this number.
    pub fn check(&mut self, db: u64) -> Result<(), Failure> {
        self.leave_if_stale();
        if self.serving().is_none() {
            return Err(Failure::not_leader());
        }
        if db != 0 || self.seat.is_none() {
            return Err(Failure::no_database());
        }
        Ok(())
    }

    /// Leaves the seat if its epoch has ended: connection, statements, transaction and turn are void.
    pub fn leave_if_stale(&mut self) {
        if self.seat.as_ref().is_some_and(|seat| seat.epoch != self.executor.store.epoch()) {
            self.leave();
        }
    }

    /// Leaves the seat, which is closed elsewhere as soon as there is a permit.
    pub fn leave(&mut self) {
        self.leave_before(());
    }

    /// Ends the session. What is handed over goes when nothing of it is held any more.
    pub fn end_before(mut self, last: impl Send + 'static) {
        self.leave_before(last);
    }

    fn leave_before(&mut self, last: impl Send + 'static) {
        if let Some(seat) = self.seat.take() {
            self.executor.close(seat, last);
        }
    }

    pub(super) fn seat_mut(&mut self) -> Result<&mut Seat, Failure> {
        self.seat.as_deref_mut().ok_or(Failure::no_database())
    }

    /// A session that is checked to serve this request, as far as this node knows.
    pub(super) fn begin(&mut self) -> Result<Request, Failure> {
        self.leave_if_stale();
        let Some(serving) = self.serving() else {
            return Err(Failure::not_leader());
        };
        self.ended.begin(serving.epoch);
        let seat = self.seat_mut()?;
        seat.begin_request();
        let database = Arc::clone(&seat.database);
        Ok(Request::new(serving.epoch, database))
    }

    /// Whether this session stands on a version that is not the newest any more.
    #[must_use]
    pub fn keeps_old_pages(&self) -> bool {
        let Some(seat) = &self.seat else { return false };
        let pinned = seat.view.pinned_version();
        pinned.is_some_and(|pinned| pinned.version != seat.database.committed().root.version())
    }

    /// Whether a transaction of this session holds the writer's turn.
    #[must_use]
    pub fn holds_turn(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.turn.is_some())
    }
}

/// What EXEC answers. The seat may have been left since.
fn executed(request: &Request) -> Result<Executed, Failure> {
    let noted = request.noted.ok_or(Failure::no_database())?;
    Ok(Executed {
        last_insert_id: noted.last_insert_rowid,
        rows_affected: u64::from(noted.changes.unsigned_abs()),
    })
}

/// Why a text was not compiled.
enum Compiling {
    Failure(Failure),
    Sqlite(SqliteError),
}

impl From<Failure> for Compiling {
    fn from(failure: Failure) -> Compiling {
        Compiling::Failure(failure)
    }
}

impl From<SqliteError> for Compiling {
    fn from(error: SqliteError) -> Compiling {
        Compiling::Sqlite(error)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
    }
}
