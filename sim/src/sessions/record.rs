//! What the clients of a history did and what they were told, database by database, in the one order in which it happened.

use std::collections::BTreeMap;

use dqlite::protocol::request::Value;

/// A moment: everything in a history happens one after the other.
pub type Moment = u64;

/// What a client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Done,
    /// It is not, and never will be.
    Absent,
    /// Either.
    Unknown,
}

/// What the answer to a write said of its effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// RESULT: rows changed, and the row id if the statement made a row.
    Result {
        /// `sqlite3_changes`.
        changes: u64,
        /// `sqlite3_last_insert_rowid`.
        rowid: Option<i64>,
    },
    /// ROWS: all of them.
    Rows(Vec<Vec<Value>>),
}

/// A statement that writes its tag into the journal of its database if it changes anything.
#[derive(Clone, Debug)]
pub struct Write {
    /// Unique in the history.
    pub tag: i64,
    /// Its text.
    pub sql: String,
    /// Its parameters.
    pub values: Vec<Value>,
    /// When it was sent, or its transaction began.
    pub begin: Moment,
    /// When its outcome was known.
    pub end: Moment,
    /// Its outcome.
    pub outcome: Outcome,
    /// What it did, where the answer said it.
    pub effect: Option<Effect>,
    /// What the client did then, for who reads a violation.
    pub note: &'static str,
}

/// Which of several writes may be there without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// All or none, next to each other: a transaction.
    Atomic,
    /// Each one only behind the one before it: a text.
    Ordered,
}

/// Rows of a reading statement. The first two columns are length and chain of the journal.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its text.
    pub sql: String,
    /// Its parameters.
    pub values: Vec<Value>,
    /// When it was sent, or its transaction began.
    pub begin: Moment,
    /// When its last row had come.
    pub end: Moment,
    /// The rows that came.
    pub rows: Vec<Vec<Value>>,
    /// Whether these are all of them.
    pub complete: bool,
    /// Tags of its own transaction before it, oldest first.
    pub own: Vec<i64>,
    /// Reads and writes of one transaction have one snapshot.
    pub snapshot: Option<u64>,
}

/// All of one database.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Writes by their tags.
    pub writes: BTreeMap<i64, Write>,
    /// Bonds between writes.
    pub bonds: Vec<(Bond, Vec<i64>)>,
    /// Reads.
    pub reads: Vec<Read>,
    /// Committed transactions that had a snapshot: its number, and the first tag.
    pub snapshots: Vec<(u64, i64)>,
    /// Writes of clients that have gone, and when they were there or would never be.
    pub gone: Vec<(i64, Moment)>,
}

/// The state of a database when nobody is there any more.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// Its journal: tag and chain, oldest first.
    pub journal: Vec<(i64, i64)>,
    /// What each of the model's queries yields.
    pub tables: Vec<Vec<Vec<Value>>>,
}
