//! What one client connection has open: a database, its SQLite connection, its prepared statements, its place as a
//! writer. Lost as a whole when a version that it may have seen disappears. spec: client-protocol 7.1, 10.2.

use std::sync::Arc;

use bytes::Bytes;

use crate::pages::Database;
use crate::protocol::request::Value;
use crate::types::tasks::Expected;
use crate::vfs::View;

use super::Executor;
use super::cursor::{Cursor, Source};
use super::failure::Failure;
use super::kept::Kept;
use super::run::Request;
use super::sqlite::{Connection, InterruptHandle, Statement, TransactionState, threading};
use super::turn::TurnGuard;

/// One client connection's use of SQL.
#[derive(Debug)]
pub struct Session {
    pub(super) executor: Arc<Executor>,
    pub(super) open: Option<Open>,
    pub(super) interrupt: InterruptHandle,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Open {
    // Statements go before their connection.
    pub(super) statements: Vec<Option<Statement>>,
    pub(super) kept: Kept,
    pub(super) connection: Connection,
    pub(super) view: Arc<View>,
    pub(super) database: Arc<Database>,
    pub(super) turn: Option<TurnGuard>,
    /// Whether leadership is proven for the snapshot of the open transaction.
    pub(super) proven: bool,
    /// Epoch in which it was opened: another one, and everything here is void.
    pub(super) epoch: u64,
}

impl Open {
    /// Whether its transaction reads a version that is the newest no longer: it can never write.
    pub(super) fn reads_old_version(&self) -> bool {
        self.connection.transaction_state() == TransactionState::Read
            && self.view.pinned_version().is_some_and(|pinned| {
                let head = self.database.head();
                (pinned.epoch, pinned.version) != (head.epoch, head.root.version())
            })
    }
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

impl Session {
    pub(super) fn new(executor: Arc<Executor>) -> Session {
        let interrupt = InterruptHandle::with_node(&executor.stopping);
        Session { executor, open: None, interrupt }
    }

    /// Stops the running statement from any thread.
    #[must_use]
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.interrupt.clone()
    }

    /// Opens a database, creating it if need be.
    ///
    /// # Errors
    /// Not the leader; a database is open already; a name that is none.
    pub async fn open(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.drop_if_stale();
        let Some(serving) = self.executor.serving() else {
            return Err(Failure::not_leader());
        };
        if self.open.is_some() {
            return Err(Failure::new(super::failure::BUSY, "a database for this connection is already open"));
        }
        let executor = Arc::clone(&self.executor);
        let _permit = executor.permits.acquire().await;
        let open = || Connection::open_with(&executor.vfs, name, &self.interrupt);
        let opened = executor.in_sqlite(&self.interrupt, Expected::Unknown, serving.epoch, open);
        let connection = opened?;
        connection.view().set_members(Arc::clone(&executor.members));
        let Some(database) = executor.store.get(name) else {
            return Err(Failure::cannot_open());
        };
        self.open = Some(Open {
            statements: Vec::new(),
            kept: Kept::default(),
            view: Arc::clone(connection.view()),
            database,
            connection,
            turn: None,
            proven: false,
            epoch: serving.epoch,
        });
        Ok(())
    }

    /// Prepares the first statement of `sql`.
    ///
    /// # Errors
    /// SQLite's, an empty text (code 0), a second statement where none may be, leadership.
    pub async fn prepare(&mut self, sql: &[u8], tail: Tail) -> Result<Prepared, Failure> {
        let mut request = self.begin()?;
        let compiled = self.compile(&mut request, sql, tail).await;
        let (statement, tail_offset) = self.conclude(&mut request, compiled).await?;
        let parameters = statement.parameter_count() as u64;
        let open = self.open_mut()?;
        let slot = match open.statements.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                open.statements.push(None);
                open.statements.len() - 1
            }
        };
        if let Some(place) = open.statements.get_mut(slot) {
            *place = Some(statement);
        }
        let id = u32::try_from(slot).map_err(|_| Failure::new(7, "stmt registry add failed"))?;
        Ok(Prepared { id, parameters, tail_offset: tail_offset as u64 })
    }

    /// Forgets a prepared statement.
    ///
    /// # Errors
    /// No database, no such statement.
    pub fn finalize(&mut self, id: u32) -> Result<(), Failure> {
        self.drop_if_stale();
        let serial = self.executor.serial;
        let open = self.open_mut()?;
        let statement = open.statements.get_mut(id as usize).and_then(Option::take);
        let Some(statement) = statement else {
            return Err(Failure::no_statement());
        };
        let _serial = threading::serial_guard(serial);
        drop(statement);
        Ok(())
    }

    /// Runs a prepared statement that yields no rows.
    ///
    /// # Errors
    /// SQLite's, those of the protocol, leadership.
    pub async fn exec(&mut self, id: u32, values: &[Value]) -> Result<Executed, Failure> {
        let mut request = self.begin()?;
        let mut statement = self.take_statement(id)?;
        let result = if values.len() > statement.parameter_count() {
            Err(Failure::bind())
        } else {
            self.run_to_end(&mut request, &mut statement, values).await
        };
        self.put_statement(id, statement);
        self.conclude(&mut request, result).await?;
        self.executed()
    }

    /// Runs every statement of a text.
    ///
    /// # Errors
    /// Those of the first statement that fails; what ran before stays.
    pub async fn exec_sql(&mut self, sql: &[u8], values: &[Value]) -> Result<Executed, Failure> {
        let mut request = self.begin()?;
        let result = self.run_all(&mut request, sql, values).await;
        self.conclude(&mut request, result).await?;
        self.executed()
    }

    /// Starts a query by a prepared statement.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn query(&mut self, id: u32, values: Vec<Value>) -> Result<Cursor<'_>, Failure> {
        let request = self.begin()?;
        let statement = self.take_statement(id)?;
        if values.len() > statement.parameter_count() {
            self.put_statement(id, statement);
            return Err(Failure::bind());
        }
        Ok(Cursor::new(self, request, statement, Source::Prepared(id), values))
    }

    /// Starts a query by a text of one statement.
    ///
    /// # Errors
    /// As [`Session::prepare`].
    pub async fn query_sql(&mut self, sql: &[u8], values: Vec<Value>) -> Result<Cursor<'_>, Failure> {
        let mut request = self.begin()?;
        let kept = self.open_mut()?.kept.take(sql);
        let statement = match kept {
            Some(statement) => statement,
            None => match self.compile(&mut request, sql, Tail::Refuse).await {
                Ok((statement, _)) => statement,
                refused => self.conclude(&mut request, refused).await?.0,
            },
        };
        if values.len() > statement.parameter_count() {
            self.keep(sql, statement);
            return Err(Failure::bind());
        }
        Ok(Cursor::new(self, request, statement, Source::Text(Bytes::copy_from_slice(sql)), values))
    }

    /// Whether a request on this database can be served: the leader comes first, then the database.
    ///
    /// # Errors
    /// Not the leader; no database with this number.
    pub fn check(&mut self, db: u64) -> Result<(), Failure> {
        self.drop_if_stale();
        if self.executor.serving().is_none() {
            return Err(Failure::not_leader());
        }
        if db != 0 || self.open.is_none() {
            return Err(Failure::no_database());
        }
        Ok(())
    }

    /// Closes what an ended epoch has made void: connection, statements, transaction, turn.
    pub fn drop_if_stale(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.epoch != self.executor.store.epoch()) {
            self.close();
        }
    }

    pub(super) fn close(&mut self) {
        let _serial = threading::serial_guard(self.executor.serial);
        self.open = None;
    }

    pub(super) fn open_mut(&mut self) -> Result<&mut Open, Failure> {
        self.open.as_mut().ok_or(Failure::no_database())
    }

    pub(super) fn take_statement(&mut self, id: u32) -> Result<Statement, Failure> {
        self.open_mut()?.statements.get_mut(id as usize).and_then(Option::take).ok_or(Failure::no_statement())
    }

    pub(super) fn put_statement(&mut self, id: u32, statement: Statement) {
        if let Some(place) = self.open.as_mut().and_then(|open| open.statements.get_mut(id as usize)) {
            *place = Some(statement);
        }
    }

    /// Keeps a statement at rest that was sent as this text and nothing else.
    pub(super) fn keep(&mut self, sql: &[u8], statement: Statement) {
        if let Some(open) = self.open.as_mut() {
            open.kept.put(sql, statement);
        }
    }

    /// A session that is checked to serve this request, as far as this node knows.
    pub(super) fn begin(&mut self) -> Result<Request, Failure> {
        self.drop_if_stale();
        let Some(serving) = self.executor.serving() else {
            return Err(Failure::not_leader());
        };
        let open = self.open_mut()?;
        open.view.clear_seen();
        open.proven &= open.connection.transaction_state() != TransactionState::None;
        let database = Arc::clone(&open.database);
        Ok(Request::new(serving.epoch, database))
    }

    fn executed(&mut self) -> Result<Executed, Failure> {
        let connection = &self.open_mut()?.connection;
        Ok(Executed {
            last_insert_id: connection.last_insert_rowid(),
            rows_affected: u64::from(connection.changes().unsigned_abs()),
        })
    }

    /// Whether a transaction of this session holds the writer's turn.
    #[must_use]
    pub fn in_write_transaction(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.connection.transaction_state() == TransactionState::Write)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}
