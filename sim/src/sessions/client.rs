//! A client of the machine: connects, asks in any manner, goes at any point, and writes down what it was told.

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request, Value};
use dqlite::types::config::STATEMENT_WITHOUT_CLIENT_MAX;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep};

use super::recipe::{Change, Sizes};
use super::record::{Effect, Moment, Outcome, Read, Write};
use super::shared::Shared;
use super::wire::{Answer, Exchange, Leaving, Manner, Wire};
use crate::network::Network;

/// The node is not the leader; nothing was proposed.
pub(super) const NOT_LEADER: u64 = 10250;
/// The outcome is unknown.
pub(super) const LEADERSHIP_LOST: u64 = 10506;
/// A refused constraint, whatever the extended code.
pub(super) const CONSTRAINT: u64 = 19;
/// How long what is in the log may be on its way where nothing happens.
const GRACE: Duration = Duration::from_millis(300);
/// Most statements that a client keeps prepared.
const PREPARED_MAX: usize = 6;

/// What a history's clients have in common.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where nodes are.
    pub network: Network,
    /// Their addresses.
    pub addresses: Vec<Vec<u8>>,
    /// Names of databases.
    pub databases: Vec<String>,
    /// Full-text modules.
    pub full_text: Vec<&'static str>,
    /// How large things are.
    pub sizes: Sizes,
    /// One request in so many is not seen to its end.
    pub leaves_one_in: u32,
    /// Longest pause between requests.
    pub pause_max: Duration,
    /// Nothing happens to nodes, and no client asks for it.
    pub is_calm: bool,
    /// SQL pauses often: what has no end can be ended.
    pub has_endless: bool,
    /// It is known how long after a client has gone its writes may still be done.
    pub tells_when_gone: bool,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    address: Vec<u8>,
    pub(super) database: usize,
    /// Statements that were prepared here: id, text.
    pub(super) prepared: Vec<(u32, String)>,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    pub(super) number: u64,
    pub(super) random: SmallRng,
    pub(super) shared: Shared,
    pub(super) around: Surroundings,
    pub(super) connection: Option<Connection>,
    next: usize,
    /// The last connection that ended was reset.
    has_reset: bool,
    /// What it does, for its records.
    pub(super) note: &'static str,
}

/// A write under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) tag: i64,
    pub(super) change: Change,
    pub(super) begin: Moment,
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn exec_sql(sql: &str, values: &[Value]) -> Request {
    Request::ExecSql { db: 0, sql: bytes(sql), parameters: Parameters::encode(values) }
}

pub(super) fn query_sql(sql: &str, values: &[Value]) -> Request {
    Request::QuerySql { db: 0, sql: bytes(sql), parameters: Parameters::encode(values) }
}

/// What an answer says of a write of one statement that was sent whole.
pub(super) fn outcome(answer: &Answer, is_sure: bool) -> Outcome {
    match answer {
        Answer::Result { changes: 0, .. } if !is_sure => Outcome::Absent,
        Answer::Rows { rows, complete: true } if rows.is_empty() => Outcome::Absent,
        Answer::Result { .. } | Answer::Rows { complete: true, .. } => Outcome::Done,
        Answer::Failure { code: LEADERSHIP_LOST, .. } => Outcome::Unknown,
        Answer::Failure { rows, .. } if rows.is_empty() => Outcome::Absent,
        _ => Outcome::Unknown,
    }
}

/// What an answer says of the effect of a write.
pub(super) fn effect(answer: &Answer, change: &Change) -> Option<Effect> {
    match answer {
        Answer::Result { rowid, changes } => {
            Some(Effect::Result { changes: *changes, rowid: change.inserts.then_some(*rowid) })
        }
        Answer::Rows { rows, complete: true } => Some(Effect::Rows(rows.clone())),
        _ => None,
    }
}

impl Client {
    /// A client that is not connected.
    #[must_use]
    pub fn new(number: u64, random: SmallRng, shared: Shared, around: Surroundings) -> Client {
        let next = number as usize % around.addresses.len();
        Client { number, random, shared, around, connection: None, next, has_reset: false, note: "" }
    }

    /// Works until an end, and leaves whatever it has.
    pub async fn work(mut self, end: Instant) {
        while Instant::now() < end {
            let pause = self.random.random_range(Duration::ZERO..=self.around.pause_max);
            sleep(pause).await;
            if self.connected().await {
                self.play().await;
            }
        }
    }

    pub(super) fn one_in(&mut self, number: u32) -> bool {
        self.random.random_range(0..number) == 0
    }

    /// Has a connection with an open database.
    async fn connected(&mut self) -> bool {
        if self.connection.is_some() {
            return true;
        }
        let address = self.around.addresses[self.next].clone();
        let database = self.random.random_range(0..self.around.databases.len());
        let buffer = [600, 4096, 65_536, 1 << 20][self.random.random_range(0..4)];
        if let Some(end) = self.around.network.enter(&address, buffer)
            && let Some(wire) = Wire::new(end).await
        {
            self.connection = Some(Connection { wire, address, database, prepared: Vec::new() });
            if self.open().await {
                return true;
            }
        }
        self.connection = None;
        self.next = (self.next + 1) % self.around.addresses.len();
        sleep(Duration::from_millis(60)).await;
        false
    }

    /// Opens the database of the connection.
    async fn open(&mut self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let name = bytes(&self.around.databases[connection.database]);
        let request = Request::Open { name, flags: 6, vfs: Bytes::new() };
        let exchange = self.ask(&[request], Manner::default()).await;
        matches!(exchange.answers[..], [Answer::Other(4)])
    }

    /// How the next request is made.
    pub(super) fn manner(&mut self) -> Manner {
        let mut manner = Manner::default();
        if self.one_in(8) {
            let pause = Duration::from_millis(self.random.random_range(0..3));
            manner.pieces = Some((self.random.random_range(20..4000), pause));
        }
        if self.one_in(8) {
            manner.slowness = Duration::from_millis(self.random.random_range(1..80));
        }
        if self.one_in(self.around.leaves_one_in) {
            manner.leaving = match self.random.random_range(0..8) {
                0 => Leaving::Sent(self.random.random_range(0..200)),
                1 => Leaving::Received(self.random.random_range(0..3)),
                2 => Leaving::HalfClosed,
                3 | 4 => Leaving::Polled(self.random.random_range(0..40)),
                _ => Leaving::After(Duration::from_millis(self.random.random_range(0..12))),
            };
        }
        manner
    }

    /// Sends requests and reads their answers; afterwards there may be no connection any more.
    pub(super) async fn ask(&mut self, requests: &[Request], manner: Manner) -> Exchange {
        let Some(connection) = &mut self.connection else { return unsent(requests) };
        self.shared.count(|counts| counts.requests += requests.len() as u64);
        let exchange = connection.wire.exchange(requests, manner).await;
        let waits = self.shared.waits_at(&connection.address);
        self.shared.count(|counts| {
            counts.unanswered += u64::from(exchange.timed_out);
            for answer in &exchange.answers {
                if let Answer::Failure { code, .. } = answer {
                    *counts.failures.entry(*code).or_default() += 1;
                }
            }
            if exchange.ended {
                let incomplete =
                    exchange.answers.iter().any(|answer| matches!(answer, Answer::Nothing { .. }));
                let end = match manner.leaving {
                    _ if exchange.timed_out => "no answer came",
                    Leaving::Never => "the node ended it",
                    Leaving::Sent(_) => "the request was being sent",
                    Leaving::Received(_) if incomplete => "answers were being read",
                    Leaving::Polled(_) if incomplete => "the node polled",
                    _ if incomplete => waits,
                    _ => "all was answered",
                };
                *counts.ends.entry(end).or_default() += 1;
            }
        });
        let lost = exchange
            .answers
            .iter()
            .any(|answer| matches!(answer, Answer::Failure { code: NOT_LEADER | LEADERSHIP_LOST, .. }));
        if exchange.ended {
            let resets = self.one_in(2);
            self.has_reset = resets;
            if let Some(connection) = self.connection.take()
                && resets
            {
                connection.wire.reset();
            }
        } else if lost {
            self.lost().await;
        }
        exchange
    }

    /// The node leads no more, or again: the database is closed.
    async fn lost(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.prepared.clear();
        }
        let reopens = self.one_in(3);
        if !(reopens && Box::pin(self.open()).await) {
            self.connection = None;
            self.next = self.random.random_range(0..self.around.addresses.len());
        }
    }

    /// The database that is open.
    pub(super) fn database(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.database)
    }

    pub(super) fn pending(&mut self, make: impl FnOnce(&mut SmallRng, i64, Sizes) -> Change) -> Pending {
        let tag = self.shared.tag();
        let sizes = self.sizes();
        Pending { tag, change: make(&mut self.random, tag, sizes), begin: self.shared.moment() }
    }

    /// Mostly small ones.
    pub(super) fn sizes(&mut self) -> Sizes {
        let most = self.around.sizes;
        if self.one_in(60) {
            return most;
        }
        let text_max = if self.one_in(15) { most.text_max } else { most.text_max.min(8) };
        Sizes { value_max: most.value_max.min(5000), rows_max: most.rows_max.min(10), text_max }
    }

    /// Notes the outcome of a write.
    pub(super) fn note_write(
        &self,
        database: usize,
        pending: Pending,
        outcome: Outcome,
        effect: Option<Effect>,
    ) {
        let Pending { tag, change, begin } = pending;
        let end = self.shared.moment();
        let (sql, values, note) = (change.sql, change.values, self.note);
        if outcome == Outcome::Unknown && self.around.tells_when_gone {
            let grace = if self.has_reset { GRACE } else { STATEMENT_WITHOUT_CLIENT_MAX + GRACE };
            let shared = self.shared.clone();
            tokio::spawn(async move {
                sleep(grace).await;
                shared.gone(database, tag);
            });
        }
        self.shared.wrote(database, Write { tag, sql, values, begin, end, outcome, effect, note });
    }

    /// Notes the rows of a read.
    pub(super) fn note_read(
        &self,
        database: usize,
        (sql, values): (String, Vec<Value>),
        begin: Moment,
        answer: &Answer,
        (own, snapshot): (Vec<i64>, Option<u64>),
    ) {
        let (rows, complete) = match answer {
            Answer::Rows { rows, complete } => (rows, *complete),
            Answer::Failure { rows, .. } | Answer::Nothing { rows } => (rows, false),
            _ => return,
        };
        if rows.is_empty() {
            return;
        }
        let (rows, end) = (rows.clone(), self.shared.moment());
        self.shared.read(database, Read { sql, values, begin, end, rows, complete, own, snapshot });
    }

    /// Remembers a prepared statement.
    pub(super) fn keep(&mut self, id: u32, sql: String) {
        if let Some(connection) = &mut self.connection {
            connection.prepared.push((id, sql));
        }
    }

    /// Whether another statement may be prepared.
    pub(super) fn may_prepare(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.prepared.len() < PREPARED_MAX)
    }
}

fn unsent(requests: &[Request]) -> Exchange {
    let answers = requests.iter().map(|_| Answer::Nothing { rows: Vec::new() }).collect();
    Exchange { answers, ended: true, ..Exchange::default() }
}
