//! Transactions of several requests: reads, writes, savepoints, pauses, and every way to end one.

use std::time::Duration;

use dqlite::protocol::request::Request;
use rand::Rng;
use tokio::time::sleep;

use super::client::{CONSTRAINT, Client, LEADERSHIP_LOST, Pending, effect, exec_sql, query_sql};
use super::recipe::{change, noise, reading};
use super::record::{Bond, Effect, Moment, Outcome};
use super::wire::{Answer, Leaving, Manner};

/// One client in so many does nothing for a while when its transaction has failed.
const SLEEPS_ONE_IN: u32 = 3;
/// For how long.
pub(super) const SLEEP: Duration = Duration::from_secs(14);

/// A transaction that is open.
struct Open {
    database: usize,
    begin: Moment,
    snapshot: u64,
    /// Writes that are there, oldest first.
    live: Vec<(Pending, Option<Effect>)>,
    /// Writes that failed or were taken back.
    gone: Vec<Pending>,
    /// Savepoints: their names and how many writes there were.
    savepoints: Vec<(String, usize)>,
}

/// Whether a transaction goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Goes,
    /// It may be over; it surely is not committed.
    Failed,
}

impl Client {
    /// A transaction of several requests.
    pub(super) async fn transaction(&mut self) {
        self.note = "a transaction";
        let word =
            ["BEGIN", "BEGIN DEFERRED", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"][self.random.random_range(0..4)];
        let (database, begin) = (self.database(), self.shared.moment());
        let exchange = self.ask(&[exec_sql(word, &[])], Manner::default()).await;
        if !matches!(exchange.answers[0], Answer::Result { .. }) {
            return self.roll_back().await;
        }
        let snapshot = self.shared.snapshot();
        let mut open =
            Open { database, begin, snapshot, live: Vec::new(), gone: Vec::new(), savepoints: Vec::new() };
        for _ in 0..self.random.random_range(1..9) {
            if self.step(&mut open).await == Next::Failed {
                self.give_up(open);
                if self.connection.is_some() && self.one_in(SLEEPS_ONE_IN) {
                    // What has failed holds up nobody.
                    sleep(SLEEP).await;
                }
                return self.roll_back().await;
            }
        }
        self.end(open).await;
    }

    async fn step(&mut self, open: &mut Open) -> Next {
        match self.random.random_range(0..16) {
            0..=5 => self.change_inside(open).await,
            6..=9 => self.read_inside(open).await,
            10 => {
                let name = format!("s{}", self.random.random_range(0..3));
                let next = self.run_inside(&format!("SAVEPOINT {name}")).await;
                open.savepoints.push((name, open.live.len()));
                next
            }
            11 => self.back_to_savepoint(open).await,
            12 => {
                let sql = noise(&mut self.random, self.number, &self.around.full_text);
                let request = if self.random.random() { exec_sql(&sql, &[]) } else { query_sql(&sql, &[]) };
                let manner = self.inner_manner();
                let exchange = self.ask(&[request], manner).await;
                match &exchange.answers[0] {
                    // Refused before it ran, or it has run.
                    Answer::Failure { code: 1, .. } | Answer::Result { .. } | Answer::Rows { .. } => {
                        Next::Goes
                    }
                    _ => Next::Failed,
                }
            }
            _ => {
                let most = [5, 5, 120, 120, 3000][self.random.random_range(0..5)];
                let pause = self.random.random_range(0..most);
                sleep(Duration::from_millis(pause)).await;
                Next::Goes
            }
        }
    }

    /// Within a transaction a client goes less often: else few would come to their end.
    fn inner_manner(&mut self) -> Manner {
        let manner = self.manner();
        if self.one_in(3) { manner } else { Manner { leaving: Leaving::Never, ..manner } }
    }

    async fn run_inside(&mut self, sql: &str) -> Next {
        let manner = self.inner_manner();
        let exchange = self.ask(&[exec_sql(sql, &[])], manner).await;
        match exchange.answers[0] {
            Answer::Result { .. } if !exchange.ended => Next::Goes,
            _ => Next::Failed,
        }
    }

    async fn change_inside(&mut self, open: &mut Open) -> Next {
        let mut pending = self.pending(change);
        pending.begin = open.begin;
        let ends_transaction =
            ["'rollback'", "OR ROLLBACK"].iter().any(|word| pending.change.sql.contains(word));
        let manner = self.inner_manner();
        let exchange = self.ask(&[exec_sql(&pending.change.sql, &pending.change.values)], manner).await;
        match &exchange.answers[0] {
            Answer::Result { changes: 0, .. } if !pending.change.is_sure => open.gone.push(pending),
            answer @ Answer::Result { .. } => {
                let effect = effect(answer, &pending.change);
                open.live.push((pending, effect));
            }
            Answer::Failure { code, .. } if code & 0xff == CONSTRAINT && !ends_transaction => {
                open.gone.push(pending);
            }
            _ => {
                open.gone.push(pending);
                return Next::Failed;
            }
        }
        if exchange.ended { Next::Failed } else { Next::Goes }
    }

    async fn read_inside(&mut self, open: &mut Open) -> Next {
        let sizes = self.sizes();
        let (sql, values) = reading(&mut self.random, &self.around.full_text, sizes);
        let mut requests = vec![query_sql(&sql, &values)];
        if self.one_in(12) {
            requests.push(Request::Interrupt { db: 0 });
        }
        let manner = self.inner_manner();
        let exchange = self.ask(&requests, manner).await;
        let own = open.live.iter().map(|(pending, _)| pending.tag).collect();
        let answer = &exchange.answers[0];
        self.note_read(open.database, (sql, values), open.begin, answer, (own, Some(open.snapshot)));
        match answer {
            Answer::Rows { .. } if !exchange.ended => Next::Goes,
            _ => Next::Failed,
        }
    }

    async fn back_to_savepoint(&mut self, open: &mut Open) -> Next {
        if open.savepoints.is_empty() {
            return Next::Goes;
        }
        let position = self.random.random_range(0..open.savepoints.len());
        let name = open.savepoints[position].0.clone();
        // The newest of this name counts.
        let newest = open.savepoints.iter().rposition(|(known, _)| *known == name).unwrap_or(position);
        let keeps = open.savepoints[newest].1;
        if self.random.random() {
            let next = self.run_inside(&format!("RELEASE {name}")).await;
            open.savepoints.truncate(newest);
            return next;
        }
        let next = self.run_inside(&format!("ROLLBACK TO {name}")).await;
        open.savepoints.truncate(newest + 1);
        open.gone.extend(open.live.drain(keeps..).map(|(pending, _)| pending));
        next
    }

    /// What was done is surely not there.
    fn give_up(&mut self, open: Open) {
        let writes = open.live.into_iter().map(|(pending, _)| pending).chain(open.gone);
        for pending in writes {
            self.note_write(open.database, pending, Outcome::Absent, None);
        }
    }

    async fn end(&mut self, open: Open) {
        let word = ["COMMIT", "COMMIT", "END", "ROLLBACK"][self.random.random_range(0..4)];
        let manner = self.manner();
        if word == "ROLLBACK" {
            self.give_up(open);
            let exchange = self.ask(&[exec_sql(word, &[])], manner).await;
            if !matches!(exchange.answers[0], Answer::Result { .. }) {
                self.roll_back().await;
            }
            return;
        }
        let exchange = self.ask(&[exec_sql(word, &[])], manner).await;
        let answer = exchange.answers[0].clone();
        let outcome = match &answer {
            _ if exchange.sent == 0 => Outcome::Absent,
            Answer::Result { .. } => Outcome::Done,
            Answer::Failure { code, .. } if *code != LEADERSHIP_LOST => Outcome::Absent,
            _ => Outcome::Unknown,
        };
        let tags: Vec<i64> = open.live.iter().map(|(pending, _)| pending.tag).collect();
        for (pending, effect) in open.live {
            self.note_write(open.database, pending, outcome, effect);
        }
        for pending in open.gone {
            self.note_write(open.database, pending, Outcome::Absent, None);
        }
        if let Some(first) = tags.first() {
            self.shared.committed(open.database, open.snapshot, *first);
        }
        self.shared.bound(open.database, Bond::Atomic, tags);
        if !matches!(answer, Answer::Result { .. }) {
            self.roll_back().await;
        }
    }
}
