//! A running query: whole frames of rows, one after the other. Rows of a reading statement leave as they come; those of
//! a writing one (RETURNING) are collected up to a bound, and the last frame waits for its entry in any case.
//! spec: client-protocol 4.5, 8.4.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::protocol::request::Value;
use crate::protocol::rows::{Marker, RowsWriter, Unfinished};
use crate::types::config;

use super::body::Pause;
use super::failure::{self, Failure};
use super::inside::{Attempt, Needs, Rest, Values};
use super::request::{Halt, Request};
use super::seat::{Running, Seat, Source};
use super::session::Session;
use super::sqlite::{Inside, SqliteError, Statement, Step};
use super::text::Text;

/// A query in progress. Its statement is in the seat; `Session::end_query` brings it to rest.
#[derive(Debug)]
pub struct Rows {
    request: Request,
    source: Source,
    values: Values,
    state: State,
    /// Frames made and not yet handed out.
    frames: VecDeque<Batch>,
    collected_bytes: usize,
    /// The statement changes nothing.
    reads: bool,
    /// The client has rows.
    handed_out: bool,
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

/// What steps came to.
struct Filled {
    message: Vec<u8>,
    rest: Rest,
}

impl AsRef<Rest> for Filled {
    fn as_ref(&self) -> &Rest {
        &self.rest
    }
}

impl Session {
    /// Starts a query by a prepared statement.
    ///
    /// # Errors
    /// Leadership; no database.
    pub fn query(&mut self, id: u32, values: Vec<Value>) -> Result<Rows, Failure> {
        self.begin_query(Source::Prepared(id), values)
    }

    /// Starts a query by a text of one statement.
    ///
    /// # Errors
    /// Leadership; no database.
    pub fn query_sql(&mut self, sql: Bytes, values: Vec<Value>) -> Result<Rows, Failure> {
        self.begin_query(Source::Text(Text::new(sql), 0), values)
    }

    fn begin_query(&mut self, source: Source, values: Vec<Value>) -> Result<Rows, Failure> {
        Ok(Rows {
            request: self.begin()?,
            source,
            values: Arc::new(values),
            state: State::Unstarted,
            frames: VecDeque::new(),
            collected_bytes: 0,
            reads: true,
            handed_out: false,
        })
    }

    /// The next frame; None after the last.
    ///
    /// # Errors
    /// SQLite's and leadership's; the query is over then.
    pub async fn next_frame(&mut self, rows: &mut Rows) -> Result<Option<Batch>, Failure> {
        while rows.frames.is_empty() && rows.state != State::Ended {
            if let Err(halt) = self.advance(rows).await {
                rows.frames.clear();
                if std::mem::replace(&mut rows.state, State::Ended) == State::Ended {
                    // The fate of what it did is known.
                    return Err(rows.failed(rows.request.told(halt)));
                }
                self.rest(&mut rows.request).await;
                let failure = self.conclude(&mut rows.request, Err::<(), _>(halt)).await.err();
                return Err(rows.failed(failure.unwrap_or(Failure::interrupted())));
            }
        }
        rows.handed_out = true;
        Ok(rows.frames.pop_front())
    }

    /// Takes back the room of a frame that was sent.
    pub fn frame_sent(&mut self, frame: Batch) {
        if let Some(seat) = self.seat.as_deref_mut()
            && frame.message.capacity() <= config::MESSAGE_ROOM_KEPT_BYTES
        {
            seat.message_room = frame.message;
        }
    }

    /// Brings the query's statement to rest, wherever it is, and waits for what it did.
    ///
    /// # Errors
    /// Leadership's.
    pub async fn end_query(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        if std::mem::replace(&mut rows.state, State::Ended) == State::Ended {
            return Ok(());
        }
        self.rest(&mut rows.request).await;
        let settled = self.settle(&mut rows.request).await;
        settled.map_err(|halt| rows.request.told(halt))
    }

    /// Makes at least one frame ready, or ends.
    async fn advance(&mut self, rows: &mut Rows) -> Result<(), Halt> {
        loop {
            let Filled { message, rest } = match rows.state {
                State::Unstarted => self.first_fill(rows).await?,
                _ => self.further_fill(rows).await?,
            };
            rows.state = State::Running;
            match rest {
                Rest::Row => {
                    rows.collected_bytes += message.len();
                    rows.frames.push_back(Batch { message, last: false });
                    if !rows.reads && rows.collected_bytes < config::RETURNING_COLLECTED_MAX_BYTES {
                        continue;
                    }
                    // What was read may stem from a proposal that is not applied yet.
                    self.rest_outside(&mut rows.request, Pause::InTheMiddle);
                    return self.settle(&mut rows.request).await;
                }
                Rest::Done => {
                    self.end_query(rows).await?;
                    rows.frames.push_back(Batch { message, last: true });
                    return Ok(());
                }
                Rest::Failed(error) => return Err(self.failed(error)),
                Rest::Ended(end) => return Err(Halt::Ended(end)),
            }
        }
    }

    /// Finds or compiles the statement, binds it, and steps until a frame is full.
    async fn first_fill(&mut self, rows: &mut Rows) -> Result<Filled, Halt> {
        let mut tries = self.begin_body(&mut rows.request, &mut rows.source)?;
        if !tries.needs.turn {
            self.ask_ahead(&mut rows.request);
        }
        loop {
            let granted = self.grant(&mut rows.request, &mut tries).await?;
            let attempt = self.fill(rows, granted).await?;
            let Some(filled) = self.came_to(&mut rows.request, &mut tries, attempt)? else { continue };
            let running = self.seat.as_ref().and_then(|seat| seat.running.as_ref());
            rows.reads = running.is_none_or(|running| running.statement.read_only());
            return filled.ok_or(Failure::new(0, "empty statement").into());
        }
    }

    async fn fill(&mut self, rows: &Rows, granted: Needs) -> Result<Attempt<Filled>, Halt> {
        let expected = self.expected(&rows.request);
        let (values, source) = (Arc::clone(&rows.values), rows.source.clone());
        self.enter(&rows.request, self.lane(), expected, move |inside, seat| {
            let check = |running: &Running| {
                if source.has_more_behind(running.end) {
                    return Err(Failure::new(failure::ERROR, "nonempty statement tail"));
                }
                let takes_all = values.len() <= running.statement.parameter_count();
                if takes_all { Ok(()) } else { Err(Failure::bind()) }
            };
            seat.attempt(inside, &source, granted, check, |seat, inside| match seat.bind(inside, &values) {
                Ok(()) => fill_frame(seat, inside, config::ROWS_FRAME_BYTES),
                Err(error) => Filled { message: Vec::new(), rest: Rest::Failed(error) },
            })
        })
        .await
    }

    /// Steps on until the next frame is full.
    async fn further_fill(&mut self, rows: &Rows) -> Result<Filled, Halt> {
        let expected = self.expected(&rows.request);
        self.enter(&rows.request, self.lane(), expected, |inside, seat| {
            fill_frame(seat, inside, config::ROWS_FURTHER_FRAME_BYTES)
        })
        .await
    }
}

impl Rows {
    /// Rows that are cut off by a lost leadership: nobody can say which version the client has seen.
    fn failed(&self, failure: Failure) -> Failure {
        let is_cut_off = self.reads && self.handed_out && failure.code == failure::NOT_LEADER;
        if is_cut_off { Failure::leadership_lost() } else { failure }
    }
}

/// Steps until a frame has `enough` bytes or the statement ends; then it is at rest.
fn fill_frame(seat: &mut Seat, inside: &mut Inside, enough: usize) -> Filled {
    let begin = Instant::now();
    let filled = step_on(seat, inside, enough);
    if let Some(running) = &mut seat.running {
        running.statement.took(begin.elapsed());
    }
    match filled.rest {
        Rest::Row => {}
        // Be it that its rows could not be told.
        Rest::Failed(_) => seat.give_up(inside),
        Rest::Done | Rest::Ended(_) => seat.come_to_rest(inside),
    }
    filled
}

fn step_on(seat: &mut Seat, inside: &mut Inside, enough: usize) -> Filled {
    let mut rows: Option<RowsWriter> = None;
    loop {
        let stepped = seat.step(inside);
        let Some(Running { statement, .. }) = &seat.running else {
            return Filled { message: Vec::new(), rest: Rest::Done };
        };
        let room = &mut seat.message_room;
        match stepped {
            Ok(Step::Row) => {
                let writer = rows.get_or_insert_with(|| writer(statement, inside, room));
                push_row(writer, statement, inside);
                if writer.len() >= enough {
                    let full = rows.take().unwrap_or_else(|| self::writer(statement, inside, room));
                    return made(full.finish(Marker::Part), Rest::Row);
                }
            }
            Ok(Step::Done) => {
                let writer = rows.unwrap_or_else(|| writer(statement, inside, room));
                return made(writer.finish(Marker::Done), Rest::Done);
            }
            Err(rest) => return Filled { message: Vec::new(), rest },
        }
    }
}

/// A frame, unless a header cannot tell its length, or there is no memory for it.
fn made(message: Result<Vec<u8>, Unfinished>, rest: Rest) -> Filled {
    let (code, text) = match message {
        Ok(message) => return Filled { message, rest },
        Err(Unfinished::TooLong) => (failure::TOO_BIG, "string or blob too big"),
        Err(Unfinished::NoMemory) => (failure::NO_MEMORY as i32, "out of memory"),
    };
    let error = SqliteError { code, message: text.into() };
    Filled { message: Vec::new(), rest: Rest::Failed(error) }
}

fn writer(statement: &Statement, inside: &Inside, room: &mut Vec<u8>) -> RowsWriter {
    let columns = 0..statement.column_count(inside);
    let names = columns.map(|column| column_name(statement, inside, column));
    RowsWriter::new_in(std::mem::take(room), names)
}

/// SQLite names the column of a PRAGMA that the VFS answers after the answer: `PRAGMA journal_mode` would yield `wal`.
fn column_name<'a>(statement: &'a Statement, inside: &'a Inside, column: usize) -> &'a [u8] {
    const NAME: &[u8] = b"journal_mode";
    let name = statement.column_name(inside, column);
    let is_pragma = || {
        let sql = statement.sql(inside).trim_ascii_start();
        sql.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"PRAGMA"))
            && sql.windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME))
    };
    if name == b"wal" && statement.column_count(inside) == 1 && is_pragma() { NAME } else { name }
}

fn push_row(writer: &mut RowsWriter, statement: &Statement, inside: &Inside) {
    let columns = statement.column_count(inside);
    writer.begin_row(columns);
    for column in 0..columns {
        writer.push(column, statement.column_decltype(inside, column), &statement.value(inside, column));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::sqlite::empty_page;
    use crate::pages::PageStore;

    #[test]
    fn a_client_that_has_rows_is_not_told_that_this_node_never_led() {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        let (not_leader, lost) = (Failure::not_leader(), Failure::leadership_lost());
        for (reads, handed_out, failure, told) in [
            (true, true, &not_leader, &lost),
            (true, false, &not_leader, &not_leader),
            (false, true, &not_leader, &not_leader),
            (true, true, &Failure::interrupted(), &Failure::interrupted()),
            (true, true, &lost, &lost),
        ] {
            let rows = Rows {
                request: Request::new(1, Arc::clone(attached.database())),
                source: Source::Prepared(0),
                values: Arc::default(),
                state: State::Ended,
                frames: VecDeque::new(),
                collected_bytes: 0,
                reads,
                handed_out,
            };
            assert_eq!(&rows.failed(failure.clone()), told, "{reads} {handed_out} {failure:?}");
        }
    }
}
