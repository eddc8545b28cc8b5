//! The seat: what one client connection has of SQLite. Its connection, all its statements (prepared, kept, the one that runs),
//! its view, its turn. Nothing of it is ever in a local variable or a future, so that nothing that is dropped leaves SQLite in
//! the middle of something. `Session::enter` is the only way in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Display;
use std::sync::Arc;

use crate::pages::{Database, PageStore};
use crate::vfs::View;

use super::failure::{self, Failure};
use super::kept::{Kept, Key};
use super::sqlite::{Connection, Ended, Inside, Statement, TransactionState};
use super::text::Text;
use super::turn::{Turn, TurnGuard};

/// An open database.
#[derive(Debug)]
pub(super) struct Seat {
    /// By number; None where the number is free, or its statement runs.
    prepared: Vec<Option<Statement>>,
    /// Free numbers, the lowest first.
    free: BinaryHeap<Reverse<u32>>,
    kept: Kept,
    /// The statement of the request under way.
    pub(super) running: Option<Running>,
    /// None once it is closed.
    connection: Option<Connection>,
    pub(super) view: Arc<View>,
    pub(super) database: Arc<Database>,
    /// Where writers of this database wait in this epoch.
    pub(super) line: Arc<Turn>,
    pub(super) turn: Option<TurnGuard>,
    pub(super) ended: Ended,
    store: Arc<PageStore>,
    /// Whether leadership is proven for the snapshot of the open transaction.
    pub(super) proven: bool,
    /// Epoch in which it was opened: another one, and everything here is void.
    pub(super) epoch: u64,
    pub(super) noted: Noted,
    /// SQLite keeps a snapshot that nothing ends: the connection is of no further use.
    pub(super) is_spoilt: bool,
    /// Room of a message that was sent, for the next one.
    pub(super) message_room: Vec<u8>,
}

/// What SQLite said at the end of the last entry; between entries nobody asks it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    pub(super) autocommit: bool,
    pub(super) transaction: TransactionState,
    pub(super) last_insert_rowid: i64,
    pub(super) changes: i32,
}

/// The statement of a request.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) statement: Statement,
    home: Home,
    /// Where the text goes on behind it.
    pub(super) end: usize,
    /// It was stepped and not reset.
    pub(super) started: bool,
    /// It writes and has yielded a row: all its changes are made.
    pub(super) has_changed: bool,
}

/// Where a statement is when it does not run.
#[derive(Debug)]
enum Home {
    /// The client knows it by this number.
    Prepared(u32),
    /// It is likely to be sent again.
    Kept(Key),
    /// Nowhere.
    Once,
}

/// Where the statement of a request comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The client prepared it.
    Prepared(u32),
    /// The client sent it: the first statement behind an offset of a text.
    Text(Text, usize),
}

impl Source {
    /// Whether something that is not blank follows the statement that ends there.
    pub(super) fn has_more_behind(&self, end: usize) -> bool {
        matches!(self, Source::Text(text, _) if !text.is_blank_from(end))
    }
}

impl Seat {
    /// A seat on a connection that was just opened.
    pub(super) fn new(
        connection: Connection,
        line: Arc<Turn>,
        store: Arc<PageStore>,
        ended: Ended,
        epoch: u64,
    ) -> Seat {
        Seat {
            prepared: Vec::new(),
            free: BinaryHeap::new(),
            kept: Kept::default(),
            running: None,
            view: Arc::clone(connection.view()),
            database: Arc::clone(connection.view().database()),
            connection: Some(connection),
            line,
            turn: None,
            ended,
            store,
            proven: false,
            epoch,
            noted: Noted {
                autocommit: true,
                transaction: TransactionState::None,
                last_insert_rowid: 0,
                changes: 0,
            },
            is_spoilt: false,
            message_room: Vec::new(),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// It is closed: nobody has this seat then.
    pub(super) fn connection(&self) -> Result<&Connection, Failure> {
        self.connection.as_ref().ok_or(Failure::no_database())
    }

    /// What every request begins with: a proof lives as long as the transaction whose snapshot it was given for.
    pub(super) fn begin_request(&mut self) {
        self.view.clear_seen();
        self.proven &= self.noted.transaction != TransactionState::None;
    }

    /// What every entry begins with.
    pub(super) fn begin_entry(&mut self, inside: &mut Inside) {
        if let Some(connection) = &self.connection {
            connection.finalize_dropped(inside);
        }
        // What is told of another seat's statement does not count.
        self.ended.set_has_changed(self.running.as_ref().is_some_and(|running| running.has_changed));
    }

    /// What every entry ends with.
    pub(super) fn end_entry(&mut self, inside: &Inside) {
        let Some(connection) = &self.connection else { return };
        self.noted = Noted {
            autocommit: connection.autocommit(inside),
            transaction: connection.transaction_state(inside),
            last_insert_rowid: connection.last_insert_rowid(inside),
            changes: connection.changes(inside),
        };
    }

    /// Closes the connection with all its statements, or ends its epoch.
    pub(super) fn close(mut self, inside: &mut Inside) {
        if let Some(connection) = self.connection.take() {
            // Statements that are dropped are finalized with their connection.
            self.prepared.clear();
            self.kept = Kept::default();
            self.running = None;
            if let Err(error) = connection.close(inside) {
                self.stays_open(&error);
            }
        }
    }

    /// Its connection stays open, whose write lock and snapshot nobody can take from it: they go with the epoch.
    fn stays_open(&self, why: &dyn Display) {
        let database = String::from_utf8_lossy(self.database.name());
        tracing::error!(%database, %why, "a connection was not closed: its epoch ends");
        self.store.end_this_epoch(self.epoch, None);
    }

    /// Numbers a statement for the client: the lowest free number.
    ///
    /// # Errors
    /// There are no more numbers.
    pub(super) fn add_prepared(&mut self, statement: Statement) -> Result<u32, Failure> {
        if let Some(Reverse(id)) = self.free.pop()
            && let Some(place) = self.prepared.get_mut(id as usize)
        {
            *place = Some(statement);
            return Ok(id);
        }
        let id = u32::try_from(self.prepared.len());
        let id = id.map_err(|_| Failure::new(failure::NO_MEMORY, "stmt registry add failed"))?;
        self.prepared.push(Some(statement));
        Ok(id)
    }

    /// Forgets a numbered statement.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn remove_prepared(&mut self, id: u32) -> Result<(), Failure> {
        let statement = self.prepared.get_mut(id as usize).and_then(Option::take);
        drop(statement.ok_or(Failure::no_statement())?);
        self.free.push(Reverse(id));
        Ok(())
    }

    /// Takes the statement of a source, if it is compiled: it is `running` from here on.
    ///
    /// # Errors
    /// No statement with this number.
    pub(super) fn fetch(&mut self, source: &Source) -> Result<(), Failure> {
        if self.running.is_some() {
            return Ok(());
        }
        let (statement, home, end) = match source {
            Source::Prepared(id) => {
                let statement = self.prepared.get_mut(*id as usize).and_then(Option::take);
                (statement.ok_or(Failure::no_statement())?, Home::Prepared(*id), 0)
            }
            Source::Text(text, 0) => {
                let Some((key, statement)) = self.kept.take(text.sql()) else { return Ok(()) };
                (statement, Home::Kept(key), text.sql().len())
            }
            Source::Text(..) => return Ok(()),
        };
        self.running = Some(Running { statement, home, end, started: false, has_changed: false });
        Ok(())
    }

    /// A statement that was just compiled from a source is `running` from here on.
    pub(super) fn set_running(&mut self, source: &Source, statement: Statement, end: usize) {
        let home = match source {
            Source::Text(text, 0) if text.is_blank_from(end) => {
                Key::of(text.sql()).map_or(Home::Once, Home::Kept)
            }
            _ => Home::Once,
        };
        self.running = Some(Running { statement, home, end, started: false, has_changed: false });
    }

    /// The statement, which is at rest, goes home.
    pub(super) fn put_home(&mut self) {
        let Some(Running { statement, home, .. }) = self.running.take() else { return };
        match home {
            Home::Prepared(id) => {
                if let Some(place @ None) = self.prepared.get_mut(id as usize) {
                    *place = Some(statement);
                }
            }
            Home::Kept(key) => self.kept.put(key, statement),
            Home::Once => {}
        }
    }
}

impl Drop for Seat {
    /// Nobody can take this seat any more and it was not closed.
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.stays_open(&"its seat was dropped");
        }
    }
}

#[cfg(test)]
#[path = "seat_tests.rs"]
mod tests;
