//! A running query: whole frames of rows, one after the other. Rows of a reading statement leave as they come; those of
//! a writing one (RETURNING) are collected up to a bound, and the last frame waits for its entry in any case.
//! spec: client-protocol 4.5, 8.4.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::protocol::request::Value;
use crate::protocol::rows::{Marker, RowsWriter, Unfinished};
use crate::types::config;

use super::failure::{self, Failure};
use super::run::{Request, Rest, bind_all};
use super::session::{Open, Session};
use super::sqlite::{SqliteError, Statement, Step};

/// A query in progress. Dropped before its end it gives its statement up.
#[derive(Debug)]
pub struct Cursor<'a> {
    session: &'a mut Session,
    request: Request,
    /// None once it is given back.
    statement: Option<Statement>,
    source: Source,
    values: Vec<Value>,
    state: State,
    /// Frames made and not yet handed out.
    frames: VecDeque<Batch>,
    collected_bytes: usize,
    /// The client has rows.
    handed_out: bool,
}

/// Where the statement of a query comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The client prepared it.
    Prepared(u32),
    /// The client sent it.
    Text(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unstarted,
    Running,
    Ended,
}

/// A whole message with rows.
#[derive(Debug)]
pub struct Batch {
    /// Header and body.
    pub message: Vec<u8>,
    /// Whether it is the last.
    pub last: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        request: Request,
        statement: Statement,
        source: Source,
        values: Vec<Value>,
    ) -> Cursor<'a> {
        Cursor {
            session,
            request,
            statement: Some(statement),
            source,
            values,
            state: State::Unstarted,
            frames: VecDeque::new(),
            collected_bytes: 0,
            handed_out: false,
        }
    }

    /// The next frame; None after the last.
    ///
    /// # Errors
    /// SQLite's and leadership's; the query is over then.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, Failure> {
        while self.frames.is_empty() && self.state != State::Ended {
            if let Err(failure) = self.advance().await {
                let failure = self.failed(failure);
                self.frames.clear();
                self.give_up();
                return Err(failure);
            }
        }
        self.handed_out = true;
        Ok(self.frames.pop_front())
    }

    /// Rows that are cut off by a lost leadership: nobody can say which version the client has seen.
    fn failed(&self, failure: Failure) -> Failure {
        let reads = self.statement.as_ref().is_some_and(Statement::read_only);
        let cut_off = reads && self.handed_out && failure.code == failure::NOT_LEADER;
        if cut_off { Failure::leadership_lost() } else { failure }
    }

    /// Makes at least one frame ready.
    async fn advance(&mut self) -> Result<(), Failure> {
        let Some(statement) = self.statement.as_ref() else {
            self.state = State::Ended;
            return Ok(());
        };
        let read_only = statement.read_only();
        if self.state == State::Unstarted {
            if read_only {
                self.session.ask_ahead(&mut self.request);
            }
            self.session.prepare_to_run(&mut self.request, read_only).await?;
        }
        let mut made = self.fill().await?;
        if self.session.wants_turn(&made.rest)? && self.state == State::Unstarted {
            self.session.take_turn(&mut self.request).await?;
            made = self.fill().await?;
        }
        self.state = State::Running;
        let collects = !read_only;
        match made.rest {
            Rest::Row => {
                self.collected_bytes += made.message.len();
                self.frames.push_back(Batch { message: made.message, last: false });
                if collects && self.collected_bytes < config::RETURNING_COLLECTED_MAX_BYTES {
                    return Box::pin(self.advance()).await;
                }
                if collects && let Some(turn) = self.session.open.as_ref().and_then(|open| open.turn.as_ref())
                {
                    turn.set_held_by_client(true);
                }
                // What was read may stem from a proposal that is not applied yet.
                self.session.settle(&mut self.request).await
            }
            Rest::Done => {
                self.session.collect(&mut self.request)?;
                self.state = State::Ended;
                self.give_back();
                self.session.settle(&mut self.request).await?;
                self.frames.push_back(Batch { message: made.message, last: true });
                Ok(())
            }
            Rest::Failed(error) => {
                self.session.collect(&mut self.request)?;
                self.state = State::Ended;
                self.give_back();
                let failure = self.rows_failed(error);
                self.session.conclude(&mut self.request, Err(failure)).await
            }
        }
    }

    /// Rows cut off by a lost leadership: the client cannot know which version it has seen.
    fn rows_failed(&self, error: SqliteError) -> Failure {
        let interrupted = u64::try_from(error.code) == Ok(failure::INTERRUPT);
        let lost = self.session.executor.store().epoch() != self.request.epoch;
        if interrupted && lost {
            return Failure::leadership_lost();
        }
        self.session.failed(&self.request, error)
    }

    /// Steps until a frame is full or the statement rests.
    async fn fill(&mut self) -> Result<Made, Failure> {
        let Some(mut statement) = self.statement.take() else {
            return Err(Failure::no_statement());
        };
        let first = self.state == State::Unstarted;
        let values = &self.values;
        let made = self
            .session
            .in_sqlite(&self.request, statement.expected(), |open| {
                let begin = Instant::now();
                let made = fill_frame(open, &mut statement, first.then_some(values));
                statement.took(begin.elapsed());
                made
            })
            .await;
        self.statement = Some(statement);
        made
    }

    fn give_back(&mut self) {
        let Some(statement) = self.statement.take() else { return };
        match &self.source {
            Source::Prepared(id) => self.session.put_statement(*id, statement),
            Source::Text(sql) => self.session.keep(sql, statement),
        }
    }

    /// Resets a statement that has rows left; a change that it made is not kept.
    fn give_up(&mut self) {
        let Some(statement) = self.statement.as_mut() else { return };
        let serial = self.session.executor.serial;
        let _serial = super::sqlite::threading::serial_guard(serial);
        if let Some(open) = self.session.open.as_mut() {
            open.view.set_refuse_commit(open.connection.autocommit());
            // The commit is refused on purpose.
            let _ = statement.reset();
            open.view.set_refuse_commit(false);
            statement.clear_bindings();
        }
        self.state = State::Ended;
        self.give_back();
        // Whatever came to be committed all the same is proposed; nobody waits for it.
        let _ = self.session.collect(&mut self.request);
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

struct Made {
    message: Vec<u8>,
    rest: Rest,
}

/// `values` are bound first, for the first frame.
fn fill_frame(open: &mut Open, statement: &mut Statement, values: Option<&Vec<Value>>) -> Made {
    let enough = if values.is_some() { config::ROWS_FRAME_BYTES } else { config::ROWS_FURTHER_FRAME_BYTES };
    if let Some(values) = values
        && let Err(error) = bind_all(statement, values)
    {
        return Made { message: Vec::new(), rest: Rest::Failed(error) };
    }
    let mut rows: Option<RowsWriter> = None;
    loop {
        match statement.step() {
            Ok(Step::Row) => {
                let writer = rows.get_or_insert_with(|| writer(statement));
                push_row(writer, statement);
                if writer.len() >= enough {
                    let full = rows.take().unwrap_or_else(|| self::writer(statement));
                    return made(full.finish(Marker::Part), Rest::Row);
                }
            }
            Ok(Step::Done) => {
                let message = rows.unwrap_or_else(|| writer(statement)).finish(Marker::Done);
                // The error of the step again.
                let _ = statement.reset();
                statement.clear_bindings();
                return made(message, Rest::Done);
            }
            Err(error) => {
                open.view.set_refuse_commit(open.connection.autocommit());
                // The error of the step again.
                let _ = statement.reset();
                open.view.set_refuse_commit(false);
                statement.clear_bindings();
                return Made { message: Vec::new(), rest: Rest::Failed(error) };
            }
        }
    }
}

/// A frame, unless a header cannot tell its length, or there is no memory for it.
fn made(message: Result<Vec<u8>, Unfinished>, rest: Rest) -> Made {
    let (code, text) = match message {
        Ok(message) => return Made { message, rest },
        Err(Unfinished::TooLong) => (failure::TOO_BIG, "string or blob too big"),
        Err(Unfinished::NoMemory) => (failure::NO_MEMORY as i32, "out of memory"),
    };
    let error = SqliteError { code, message: text.into() };
    Made { message: Vec::new(), rest: Rest::Failed(error) }
}

fn writer(statement: &Statement) -> RowsWriter {
    RowsWriter::new((0..statement.column_count()).map(|column| column_name(statement, column)))
}

/// SQLite names the column of a PRAGMA that the VFS answers after the answer: `PRAGMA journal_mode` would yield `wal`.
fn column_name(statement: &Statement, column: usize) -> &[u8] {
    const NAME: &[u8] = b"journal_mode";
    let name = statement.column_name(column);
    let is_pragma = || {
        let sql = statement.sql().trim_ascii_start();
        sql.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"PRAGMA"))
            && sql.windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME))
    };
    if name == b"wal" && statement.column_count() == 1 && is_pragma() { NAME } else { name }
}

fn push_row(writer: &mut RowsWriter, statement: &Statement) {
    let columns = statement.column_count();
    writer.begin_row(columns);
    for column in 0..columns {
        writer.push(column, statement.column_decltype(column), &statement.value(column));
    }
}
