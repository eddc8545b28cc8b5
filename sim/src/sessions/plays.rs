//! What a client does: one play after the other, picked by its seed. Transactions of several requests are in `transaction.rs`.

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request, Value};
use rand::Rng;
use tokio::time::sleep;

use super::client::{
    Client, LEADERSHIP_LOST, NOT_LEADER, Pending, bytes, effect, exec_sql, outcome, query_sql,
};
use super::recipe::{ENDLESS, change, noise, reading, returning, sure_change};
use super::record::{Bond, Outcome};
use super::transaction::SLEEP;
use super::wire::{Answer, Leaving, Manner};

/// How long a client takes nothing: longer than any is waited for.
const STALL: Duration = Duration::from_secs(25);
/// More than any connection takes without its client.
const MANY_ROWS: &str = "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < 12000)
    SELECT x, printf('%0200d', x) FROM c";
/// A statement that clients prepare.
const PREPARED_INSERT: &str = "INSERT INTO item(k, tag, value) VALUES(?, ?, ?)";

/// One of several requests that are sent at once.
enum Part {
    Write(Pending),
    Read(String, Vec<Value>, u64),
    Other,
}

impl Client {
    /// Does something.
    pub(super) async fn play(&mut self) {
        match self.random.random_range(0..100) {
            0..=16 => self.write().await,
            17..=34 => self.read().await,
            35..=44 => self.text().await,
            45..=52 => self.transaction_in_a_text().await,
            53..=68 => self.transaction().await,
            69..=75 => self.return_rows().await,
            76..=83 => self.several().await,
            84..=90 => match self.around.has_endless && self.one_in(15) {
                true => self.ask_without_end().await,
                false => self.disturb().await,
            },
            91..=94 => self.prepared().await,
            95..=97 => self.wrong().await,
            98 => match self.random.random_range(0..3) {
                // The connection ends at rest.
                0 | 1 => self.connection = None,
                _ => self.stall().await,
            },
            _ => self.ask_for_other_things().await,
        }
    }

    /// A client that holds the writer's turn and takes nothing of what it is sent: the node has to end that.
    async fn stall(&mut self) {
        self.note = "a stall";
        let begin = exec_sql("BEGIN IMMEDIATE", &[]);
        let exchange = self.ask(&[begin], Manner::default()).await;
        if !matches!(exchange.answers[0], Answer::Result { .. }) {
            return self.roll_back().await;
        }
        let manner = Manner { stall: STALL, ..Manner::default() };
        let exchange = self.ask(&[query_sql(MANY_ROWS, &[])], manner).await;
        if matches!(exchange.answers[0], Answer::Rows { complete: true, .. }) {
            self.shared.violation(format!("a client that took nothing for {STALL:?} kept the writer's turn"));
        }
        self.roll_back().await;
    }

    /// A query that ends with its client, or by its wish.
    async fn ask_without_end(&mut self) {
        self.note = "a query without an end";
        let mut requests = vec![query_sql(ENDLESS, &[])];
        let mut manner = Manner::default();
        match self.random.random_range(0..4) {
            0 => requests.push(Request::Interrupt { db: 0 }),
            1 => manner.leaving = Leaving::HalfClosed,
            _ => manner.leaving = Leaving::After(Duration::from_millis(self.random.random_range(0..300))),
        }
        self.ask(&requests, manner).await;
    }

    async fn write(&mut self) {
        self.note = "a write";
        let pending = self.pending(change);
        let request = exec_sql(&pending.change.sql, &pending.change.values);
        let (database, manner) = (self.database(), self.manner());
        let exchange = self.ask(&[request], manner).await;
        self.note_single(database, pending, &exchange.answers[0], exchange.sent > 0);
    }

    pub(super) fn note_single(&self, database: usize, pending: Pending, answer: &Answer, was_sent: bool) {
        let outcome = if was_sent { outcome(answer, pending.change.is_sure) } else { Outcome::Absent };
        let effect = effect(answer, &pending.change);
        self.note_write(database, pending, outcome, effect);
    }

    async fn read(&mut self) {
        self.note = "a read";
        let sizes = self.sizes();
        let (sql, values) = reading(&mut self.random, &self.around.full_text, sizes);
        let (database, manner) = (self.database(), self.manner());
        let begin = self.shared.moment();
        let mut requests = vec![query_sql(&sql, &values)];
        if self.one_in(12) {
            requests.push(Request::Interrupt { db: 0 });
        }
        let exchange = self.ask(&requests, manner).await;
        self.note_read(database, (sql, values), begin, &exchange.answers[0], (Vec::new(), None));
    }

    /// A text of several statements, each a transaction of its own.
    async fn text(&mut self) {
        self.note = "a text";
        let most = self.sizes().text_max;
        let count = self.random.random_range(1..=most);
        let writes: Vec<Pending> = (0..count).map(|_| self.pending(sure_change)).collect();
        let sql = writes.iter().map(|write| write.change.sql.as_str()).collect::<Vec<_>>().join(";\n");
        let (database, manner) = (self.database(), self.manner());
        let begin = self.shared.moment();
        let exchange = self.ask(&[exec_sql(&sql, &[])], manner).await;
        let answer = &exchange.answers[0];
        let (each, last) = match answer {
            _ if exchange.sent == 0 => (Outcome::Absent, Outcome::Absent),
            Answer::Result { .. } => (Outcome::Done, Outcome::Done),
            // Nothing of it is in the log.
            Answer::Failure { code: NOT_LEADER, .. } => (Outcome::Absent, Outcome::Absent),
            Answer::Failure { code: LEADERSHIP_LOST, .. } => (Outcome::Unknown, Outcome::Unknown),
            // Some statement failed; what was before it stays.
            Answer::Failure { .. } => (Outcome::Unknown, Outcome::Absent),
            _ => (Outcome::Unknown, Outcome::Unknown),
        };
        let tags: Vec<i64> = writes.iter().map(|write| write.tag).collect();
        for (position, mut write) in (1..).zip(writes) {
            write.begin = begin;
            let is_last = position == tags.len();
            let effect = if is_last { effect(answer, &write.change) } else { None };
            self.note_write(database, write, if is_last { last } else { each }, effect);
        }
        self.shared.bound(database, Bond::Ordered, tags);
    }

    /// BEGIN, statements and COMMIT in one text.
    async fn transaction_in_a_text(&mut self) {
        self.note = "a transaction in a text";
        let most = self.sizes().text_max;
        let count = self.random.random_range(1..=most);
        let writes: Vec<Pending> = (0..count).map(|_| self.pending(sure_change)).collect();
        let begin_word = ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"][self.random.random_range(0..3)];
        let mut sql = begin_word.to_owned();
        for write in &writes {
            sql.push(';');
            sql.push_str(&write.change.sql);
        }
        sql.push_str("; COMMIT");
        let (database, manner) = (self.database(), self.manner());
        let begin = self.shared.moment();
        let exchange = self.ask(&[exec_sql(&sql, &[])], manner).await;
        let answer = exchange.answers[0].clone();
        let all = match &answer {
            _ if exchange.sent == 0 => Outcome::Absent,
            Answer::Result { .. } => Outcome::Done,
            Answer::Failure { code, .. } if *code != LEADERSHIP_LOST => Outcome::Absent,
            _ => Outcome::Unknown,
        };
        let tags: Vec<i64> = writes.iter().map(|write| write.tag).collect();
        for (position, mut write) in (1..).zip(writes) {
            write.begin = begin;
            let effect = if position == tags.len() { effect(&answer, &write.change) } else { None };
            self.note_write(database, write, all, effect);
        }
        self.shared.bound(database, Bond::Atomic, tags);
        if !matches!(answer, Answer::Result { .. }) {
            self.roll_back().await;
        }
    }

    /// Ends a transaction that may be open, or the connection.
    pub(super) async fn roll_back(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let exchange = self.ask(&[exec_sql("ROLLBACK", &[])], Manner::default()).await;
        // 1: there is none.
        if !matches!(exchange.answers[0], Answer::Result { .. } | Answer::Failure { code: 1, .. }) {
            self.connection = None;
        }
    }

    async fn return_rows(&mut self) {
        self.note = "RETURNING";
        let pending = self.pending(returning);
        let sql = &pending.change.sql;
        let mut requests = vec![if self.one_in(5) { exec_sql(sql, &[]) } else { query_sql(sql, &[]) }];
        if self.one_in(10) {
            requests.push(Request::Interrupt { db: 0 });
        }
        let (database, manner) = (self.database(), self.manner());
        let exchange = self.ask(&requests, manner).await;
        let answer = match &exchange.answers[0] {
            // EXEC refuses a row: there was none.
            Answer::Result { .. } => Answer::Rows { rows: Vec::new(), complete: true },
            answer => answer.clone(),
        };
        self.note_single(database, pending, &answer, exchange.sent > 0);
    }

    /// Several requests at once.
    async fn several(&mut self) {
        self.note = "one of several requests";
        let (mut requests, mut parts) = (Vec::new(), Vec::new());
        for _ in 0..self.random.random_range(2..9) {
            let (request, part) = match self.random.random_range(0..8) {
                0..=2 => {
                    let pending = self.pending(change);
                    (exec_sql(&pending.change.sql, &pending.change.values), Part::Write(pending))
                }
                3 | 4 => {
                    let sizes = self.sizes();
                    let (sql, values) = reading(&mut self.random, &self.around.full_text, sizes);
                    let request = query_sql(&sql, &values);
                    (request, Part::Read(sql, values, self.shared.moment()))
                }
                5 => (Request::Interrupt { db: 0 }, Part::Other),
                6 => {
                    let sql = noise(&mut self.random, self.number, &self.around.full_text);
                    (exec_sql(&sql, &[]), Part::Other)
                }
                _ => {
                    let pending = self.pending(returning);
                    (query_sql(&pending.change.sql, &[]), Part::Write(pending))
                }
            };
            requests.push(request);
            parts.push(part);
        }
        let (database, manner) = (self.database(), self.manner());
        let exchange = self.ask(&requests, manner).await;
        for (position, (part, answer)) in parts.into_iter().zip(&exchange.answers).enumerate() {
            match part {
                Part::Write(pending) => {
                    self.note_single(database, pending, answer, position < exchange.sent);
                }
                Part::Read(sql, values, begin) => {
                    self.note_read(database, (sql, values), begin, answer, (Vec::new(), None));
                }
                Part::Other => {}
            }
        }
    }

    /// Statements that the model does not know.
    async fn disturb(&mut self) {
        self.note = "noise";
        let sql = noise(&mut self.random, self.number, &self.around.full_text);
        let request = if self.random.random() { exec_sql(&sql, &[]) } else { query_sql(&sql, &[]) };
        let manner = self.manner();
        self.ask(&[request], manner).await;
        if sql.contains("optimize(") && self.connection.is_some() && self.one_in(3) {
            // What has run holds up nobody.
            sleep(SLEEP).await;
        }
    }

    /// PREPARE, and EXEC or QUERY, several times.
    async fn prepared(&mut self) {
        self.note = "a prepared statement";
        let sizes = self.sizes();
        let (sql, values) = reading(&mut self.random, &self.around.full_text, sizes);
        let writes: bool = self.random.random();
        let text = if writes { PREPARED_INSERT.to_owned() } else { sql };
        let schema = u8::from(self.random.random::<bool>());
        if !self.may_prepare() {
            return;
        }
        let request = Request::Prepare { schema, db: 0, sql: bytes(&text) };
        let exchange = self.ask(&[request], Manner::default()).await;
        let Answer::Statement { id, .. } = exchange.answers[0] else { return };
        self.keep(id, text.clone());
        for _ in 0..self.random.random_range(1..4) {
            let (database, manner, begin) = (self.database(), self.manner(), self.shared.moment());
            if self
                .connection
                .as_ref()
                .is_none_or(|open| !open.prepared.iter().any(|(known, _)| *known == id))
            {
                return;
            }
            if writes {
                let mut pending = self.pending(sure_change);
                let key = Value::Integer(self.random.random_range(0..60));
                pending.change.sql.clone_from(&text);
                pending.change.values = vec![key, Value::Integer(pending.tag), Value::Float(0.5)];
                (pending.change.inserts, pending.change.is_sure) = (true, false);
                let parameters = Parameters::encode(&pending.change.values);
                let exchange = self.ask(&[Request::Exec { db: 0, stmt: id, parameters }], manner).await;
                self.note_single(database, pending, &exchange.answers[0], exchange.sent > 0);
            } else {
                let parameters = Parameters::encode(&values);
                let exchange = self.ask(&[Request::Query { db: 0, stmt: id, parameters }], manner).await;
                let what = (text.clone(), values.clone());
                self.note_read(database, what, begin, &exchange.answers[0], (Vec::new(), None));
            }
            sleep(Duration::from_millis(self.random.random_range(0..40))).await;
        }
        if self.random.random() {
            self.ask(&[Request::Finalize { db: 0, stmt: id }], Manner::default()).await;
            if let Some(connection) = &mut self.connection {
                connection.prepared.retain(|(known, _)| *known != id);
            }
        }
    }

    /// Requests that are refused.
    async fn wrong(&mut self) {
        self.note = "a wrong request";
        let number = self.random.random_range(0..5);
        // An id that was never given: whatever was prepared here has a lower one.
        let stmt = 1000 + number;
        let parameters = Parameters { schema: 0, bytes: Bytes::from(vec![200, 3, 250, 1, 0, 0, 0, 0]) };
        let request = match self.random.random_range(0..9) {
            0 => Request::Exec { db: 0, stmt, parameters: Parameters::default() },
            1 => Request::Query { db: 0, stmt, parameters: Parameters::default() },
            2 => Request::Finalize { db: number, stmt },
            3 => Request::ExecSql { db: 1 + u64::from(number), sql: bytes("SELECT 1"), parameters },
            4 => Request::QuerySql { db: 0, sql: bytes("SELECT 1"), parameters },
            5 => Request::Prepare { schema: 0, db: 0, sql: bytes("SELECT 1; SELECT 2") },
            6 => Request::Prepare { schema: 1, db: 0, sql: Bytes::new() },
            7 => query_sql("SELECT ?", &[Value::Null, Value::Integer(1)]),
            _ => Request::Open { name: bytes("another"), flags: 0, vfs: Bytes::new() },
        };
        let manner = self.manner();
        let exchange = self.ask(&[request], manner).await;
        if let Answer::Statement { id } = exchange.answers[0] {
            self.keep(id, String::new());
        }
    }

    /// Requests about the cluster, and copies of databases.
    async fn ask_for_other_things(&mut self) {
        self.note = "another request";
        let nodes = self.around.addresses.len() as u64;
        let request = match self.random.random_range(0..7) {
            0 => Request::Leader,
            1 => Request::Cluster { format: 1 },
            2 => Request::Describe { format: 0 },
            3 => Request::Weight { weight: 3 },
            4 if !self.around.is_calm => Request::Transfer { id: self.random.random_range(1..=nodes) },
            _ => Request::Dump { name: bytes(&self.around.databases[self.database()]) },
        };
        let manner = self.manner();
        self.ask(&[request], manner).await;
    }
}
