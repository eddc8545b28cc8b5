//! What a client of a measurement does again and again.

use dqlite::protocol::request::{Parameters, Request, Value};
use dqlite::protocol::response::Kind;

use super::connection::{Connection, LoadError, encoded};

/// Bytes of the blob in a row: with its key about 1 KiB.
pub const ROW_BYTES: usize = 1024;
/// Rows of a range read.
pub const RANGE_ROWS: u64 = 1000;
/// Statements of a transaction between BEGIN and COMMIT.
pub const TRANSACTION_STATEMENTS: usize = 10;
/// The table of all workloads.
pub const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)";

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A row in a transaction of its own.
    Insert,
    /// One row by its key.
    PointRead,
    /// Rows one after the other.
    RangeRead,
    /// Nine point reads on one insert.
    Mixed,
    /// BEGIN, inserts, COMMIT.
    Transaction,
}

impl Workload {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Workload::Insert => "insert 1 KiB",
            Workload::PointRead => "point read",
            Workload::RangeRead => "range read of 1000 rows",
            Workload::Mixed => "90% point reads, 10% inserts",
            Workload::Transaction => "transaction of 10 inserts",
        }
    }
}

/// A client that does a workload.
#[derive(Debug)]
pub struct Worker {
    connection: Connection,
    workload: Workload,
    insert: Vec<u8>,
    point_read: Vec<u8>,
    range_read: Vec<u8>,
    /// Rows that reads choose from.
    rows: u64,
    random: u64,
    /// Times that the node said busy and was asked again.
    pub busy: u64,
}

impl Worker {
    /// Connects and prepares. `rows` are there to be read, with keys from 1; `seed` chooses among them.
    ///
    /// # Errors
    /// See `LoadError`.
    pub async fn new(
        address: &str,
        database: &str,
        workload: Workload,
        rows: u64,
        seed: u64,
    ) -> Result<Worker, LoadError> {
        let mut connection = Connection::open(address, database).await?;
        let insert = connection.prepare("INSERT INTO t(v) VALUES(?)").await?;
        let point = connection.prepare("SELECT v FROM t WHERE id = ?").await?;
        let range = connection.prepare("SELECT id, v FROM t WHERE id >= ? LIMIT 1000").await?;
        let blob = Parameters::encode(&[Value::Blob(vec![0x5a; ROW_BYTES].into())]);
        let key = || Parameters::encode(&[Value::Integer(1)]);
        Ok(Worker {
            connection,
            workload,
            insert: encoded(&Request::Exec { db: 0, stmt: insert, parameters: blob })?,
            point_read: encoded(&Request::Query { db: 0, stmt: point, parameters: key() })?,
            range_read: encoded(&Request::Query { db: 0, stmt: range, parameters: key() })?,
            rows,
            // xorshift must not begin with 0.
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            busy: 0,
        })
    }

    /// Does it once, again when the node is busy.
    ///
    /// # Errors
    /// See `LoadError`; busy is none.
    pub async fn step(&mut self) -> Result<(), LoadError> {
        loop {
            let done = match self.workload {
                Workload::Insert => self.insert().await,
                Workload::PointRead => self.point_read().await,
                Workload::RangeRead => self.range_read().await,
                Workload::Mixed => self.mixed().await,
                Workload::Transaction => self.transaction().await,
            };
            match done {
                Err(error) if error.is_busy() => self.busy += 1,
                done => return done,
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn random_key(&mut self, room: u64) -> u64 {
        1 + self.next_random() % self.rows.saturating_sub(room).max(1)
    }

    async fn insert(&mut self) -> Result<(), LoadError> {
        self.connection.call(&self.insert, Kind::Result).await.map(drop)
    }

    async fn point_read(&mut self) -> Result<(), LoadError> {
        let key = self.random_key(0);
        set_key(&mut self.point_read, key);
        self.connection.query(&self.point_read).await.map(drop)
    }

    async fn mixed(&mut self) -> Result<(), LoadError> {
        if self.next_random().is_multiple_of(10) { self.insert().await } else { self.point_read().await }
    }

    async fn range_read(&mut self) -> Result<(), LoadError> {
        let key = self.random_key(RANGE_ROWS);
        set_key(&mut self.range_read, key);
        self.connection.query(&self.range_read).await.map(drop)
    }

    async fn transaction(&mut self) -> Result<(), LoadError> {
        self.connection.exec_sql("BEGIN").await?;
        let done = self.inserts_and_commit().await;
        if done.is_err() {
            // After some failures there is none any more.
            let _ = self.connection.exec_sql("ROLLBACK").await;
        }
        done
    }

    async fn inserts_and_commit(&mut self) -> Result<(), LoadError> {
        for _ in 0..TRANSACTION_STATEMENTS {
            self.insert().await?;
        }
        self.connection.exec_sql("COMMIT").await
    }
}

/// The only parameter, an integer, is the last word of the message.
fn set_key(message: &mut [u8], key: u64) {
    let end = message.len();
    message[end - 8..].copy_from_slice(&key.to_le_bytes());
}
