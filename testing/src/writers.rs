//! Clients that write all the time, find the leader again when they lose it, and keep a record of what they were told. A
//! write that surely was not executed is made again with its key; one whose outcome is unknown is not, its writer goes on
//! with a new key. spec: client-protocol 10.2.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dqlite::protocol::request::Value;

use crate::client::{Client, ClientError};
use crate::record::{Acknowledged, Record};

/// Writers, if nothing else is said.
pub const WRITERS_DEFAULT: u64 = 16;
/// Longest answer to a write, if nothing else is said.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer of a node that is asked who leads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a look that found no leader.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Pause after the database was busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Longest wait until all writers stand still.
const PAUSE_WAIT: Duration = Duration::from_secs(90);
/// A key is its writer shifted by this, and a number.
const WRITER_SHIFT: u32 = 40;
/// Text of each row.
const VALUE: &str = "a row of a writer, sixty-three bytes long, as an application's..";
/// SQLITE_BUSY; its extended codes have it in the low byte.
const BUSY: u64 = 5;
/// Surely not executed: not the leader, no database open on this connection.
const NOT_EXECUTED: [u64; 2] = [10250, 12];

/// Who writes, where.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Threads, each with a connection.
    pub writers: u64,
    /// All nodes.
    pub addresses: Vec<String>,
    /// Database; it has `record::CREATE_TABLE`.
    pub database: String,
    /// Longest answer to a write; its writer turns to another node then.
    pub answer_timeout: Duration,
}

/// What the writers shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Write,
    Pause,
    Stop,
}

#[derive(Debug)]
struct Board {
    order: Order,
    /// Writers that stand still.
    standing: u64,
    record: Record,
}

#[derive(Debug)]
struct Shared {
    options: WriterOptions,
    board: Mutex<Board>,
    /// The board has changed.
    changed: Condvar,
    leader: Mutex<Leader>,
}

/// The leader that was found last. One writer looks while the others wait for what it finds.
#[derive(Clone, Debug)]
struct Leader {
    address: Arc<str>,
    /// How many were found before; a writer that lost its leader wants one with a higher number.
    number: u64,
}

/// Running writers; they stop when this is dropped.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts writing.
    #[must_use]
    pub fn start(options: WriterOptions) -> Writers {
        let board = Board { order: Order::Write, standing: 0, record: Record::default() };
        let shared = Arc::new(Shared {
            options,
            board: Mutex::new(board),
            changed: Condvar::new(),
            leader: Mutex::new(Leader { address: "".into(), number: 0 }),
        });
        let threads = (0..shared.options.writers)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || Writer::new(&shared, number).run())
            })
            .collect();
        Writers { shared, threads }
    }

    /// How many rows have been acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.shared.board().record.acknowledged.len()
    }

    /// The node that acknowledged the last row.
    #[must_use]
    pub fn last_address(&self) -> Option<Arc<str>> {
        self.shared.board().record.acknowledged.last().map(|row| Arc::clone(&row.address))
    }

    /// Waits until `count` rows have been acknowledged in all.
    ///
    /// # Errors
    /// They are not within `bound`.
    pub fn wait_acknowledged(&self, count: usize, bound: Duration) -> io::Result<()> {
        let what = format!("{count} acknowledged rows");
        self.wait(&what, bound, |board| (board.record.acknowledged.len() >= count).then_some(()))
    }

    /// Waits for the first row after the first `from` ones that a node other than `address` acknowledges: when it did.
    ///
    /// # Errors
    /// None does within `bound`.
    pub fn wait_acknowledged_elsewhere(
        &self,
        from: usize,
        address: &str,
        bound: Duration,
    ) -> io::Result<Instant> {
        let mut next = from;
        self.wait(&format!("a row that another node than {address} acknowledges"), bound, |board| {
            let rows = &board.record.acknowledged;
            let found = rows[next..].iter().find(|row| *row.address != *address).map(|row| row.at);
            next = rows.len();
            found
        })
    }

    /// Waits until a write has failed with a text that holds one of `parts`.
    ///
    /// # Errors
    /// None has within `bound`.
    pub fn wait_failure(&self, parts: &[&str], bound: Duration) -> io::Result<()> {
        self.wait(&format!("a failed write with one of {parts:?}"), bound, |board| {
            let is_one = |text: &String| parts.iter().any(|part| text.contains(part));
            board.record.failures.keys().any(is_one).then_some(())
        })
    }

    /// Lets every write in progress end and begins none.
    ///
    /// # Errors
    /// One does not end in time.
    pub fn pause(&self) -> io::Result<()> {
        self.shared.order(Order::Pause);
        let writers = self.shared.options.writers;
        self.wait("all writers to stand still", PAUSE_WAIT, |board| (board.standing == writers).then_some(()))
    }

    /// Writes again after a pause.
    pub fn resume(&self) {
        self.shared.order(Order::Write);
    }

    /// Ends the writers and hands out what they saw.
    ///
    /// # Errors
    /// A writer panicked.
    pub fn stop(mut self) -> io::Result<Record> {
        self.end()?;
        Ok(std::mem::take(&mut self.shared.board().record))
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.order(Order::Stop);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| io::Error::other("a writer panicked"))?;
        }
        Ok(())
    }

    fn wait<T>(
        &self,
        what: &str,
        bound: Duration,
        mut check: impl FnMut(&Board) -> Option<T>,
    ) -> io::Result<T> {
        let end = Instant::now() + bound;
        let mut board = self.shared.board();
        loop {
            if let Some(value) = check(&board) {
                return Ok(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let Record { acknowledged, unknown, failures } = &board.record;
                let text = format!(
                    "waited {bound:?} for {what}; so far {} rows are acknowledged and {} of unknown outcome, failures: {failures:?}",
                    acknowledged.len(),
                    unknown.len()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            let waited = self.shared.changed.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // The record is lost either way.
        let _ = self.end();
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        self.board().order = order;
        self.changed.notify_all();
    }

    /// A leader that was found after the one with this number, if there is one by now.
    fn find_leader(&self, lost: u64) -> Option<Leader> {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if leader.number <= lost {
            match Client::look_for_leader(&self.options.addresses, LOOK_TIMEOUT) {
                Some(found) => {
                    *leader = Leader { address: found.address().into(), number: leader.number + 1 };
                }
                None => {
                    // With the lock held, so that all writers together ask no more often.
                    std::thread::sleep(LOOK_PAUSE);
                    return None;
                }
            }
        }
        Some(leader.clone())
    }
}

/// One writer.
struct Writer<'a> {
    shared: &'a Shared,
    /// Key of the next write.
    key: u64,
    connection: Option<(Client, Leader)>,
    /// Number of the leader that was lost last.
    lost: u64,
}

/// What a failed write means.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Not executed, the same node may take it.
    Busy,
    /// Not executed, this connection is of no use.
    NotExecuted,
    /// Executed or not.
    Unknown,
}

impl Outcome {
    fn of(error: &ClientError) -> Outcome {
        match error.code() {
            Some(code) if code & 0xff == BUSY => Outcome::Busy,
            Some(code) if NOT_EXECUTED.contains(&code) => Outcome::NotExecuted,
            _ => Outcome::Unknown,
        }
    }
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared, number: u64) -> Writer<'a> {
        Writer { shared, key: number << WRITER_SHIFT, connection: None, lost: 0 }
    }

    fn run(mut self) {
        while self.may_write() {
            match self.connection.take() {
                None => self.connect(),
                Some((client, leader)) => self.write(client, leader),
            }
        }
    }

    /// Stands still while it is told to; whether to go on after that.
    fn may_write(&self) -> bool {
        let mut board = self.shared.board();
        if board.order == Order::Pause {
            board.standing += 1;
            self.shared.changed.notify_all();
            while board.order == Order::Pause {
                board = self.shared.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
            }
            board.standing -= 1;
        }
        board.order == Order::Write
    }

    fn connect(&mut self) {
        let Some(leader) = self.shared.find_leader(self.lost) else { return };
        let opened =
            Client::connect(&leader.address, self.shared.options.answer_timeout).and_then(|mut client| {
                client.open(&self.shared.options.database)?;
                Ok(client)
            });
        match opened {
            Ok(client) => self.connection = Some((client, leader)),
            Err(error) => {
                self.lost = leader.number;
                self.fail(&error, None);
            }
        }
    }

    fn write(&mut self, mut client: Client, leader: Leader) {
        let values = [Value::Integer(self.key.cast_signed()), Value::Text(VALUE.into())];
        let begin = Instant::now();
        match client.exec("INSERT INTO test(key, value) VALUES(?, ?)", &values) {
            Ok(_) => {
                let at = Instant::now();
                let (took, address) = (at - begin, Arc::clone(&leader.address));
                let row = Acknowledged { key: self.key, at, took, address };
                self.shared.board().record.acknowledged.push(row);
                self.shared.changed.notify_all();
                self.key += 1;
                self.connection = Some((client, leader));
            }
            Err(error) => match Outcome::of(&error) {
                Outcome::Busy => {
                    self.fail(&error, None);
                    std::thread::sleep(BUSY_PAUSE);
                    self.connection = Some((client, leader));
                }
                Outcome::NotExecuted => {
                    self.fail(&error, None);
                    self.lost = leader.number;
                }
                Outcome::Unknown => {
                    self.fail(&error, Some(self.key));
                    self.lost = leader.number;
                    self.key += 1;
                }
            },
        }
    }

    fn fail(&self, error: &ClientError, unknown: Option<u64>) {
        let mut board = self.shared.board();
        board.record.unknown.extend(unknown);
        *board.record.failures.entry(error.to_string()).or_default() += 1;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u64) -> ClientError {
        ClientError::Failure { code, message: String::new() }
    }

    #[test]
    fn only_what_was_surely_not_executed_is_written_again() {
        for code in [5, 517] {
            assert_eq!(Outcome::of(&failure(code)), Outcome::Busy);
        }
        for code in NOT_EXECUTED {
            assert_eq!(Outcome::of(&failure(code)), Outcome::NotExecuted);
        }
        for code in [1, 7, 10, 9, 778, 10506] {
            assert_eq!(Outcome::of(&failure(code)), Outcome::Unknown);
        }
        let lost = ClientError::Io(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(Outcome::of(&lost), Outcome::Unknown);
    }
}
