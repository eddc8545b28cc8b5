//! What a modelled C node keeps in memory and on its disk.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dqlite::peers::Sender;
use dqlite::types::{Configuration, Entry, Term};

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: Term,
    /// The members.
    pub configuration: Configuration,
    /// Index of their entry.
    pub configuration_index: u64,
    /// The databases.
    pub content: Bytes,
}

/// Consecutive entries, and the end of the last snapshot.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Index before the first entry.
    before: u64,
    entries: VecDeque<Entry>,
    /// Index and term of the last entry in the snapshot.
    snapshot: (u64, Term),
}

impl Log {
    /// A log that holds nothing behind a snapshot.
    #[must_use]
    pub fn behind(snapshot: &Snapshot) -> Log {
        let end = (snapshot.index, snapshot.term);
        Log { before: snapshot.index, entries: VecDeque::new(), snapshot: end }
    }

    /// Index before the first entry.
    #[must_use]
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Index of the last entry.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }

    /// Term of the last entry, 0 without one.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.term(self.last()).unwrap_or_default()
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.before + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Term of an entry that is there or ends the snapshot.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<Term> {
        let of_snapshot = (index > 0 && index == self.snapshot.0).then_some(self.snapshot.1);
        self.get(index).map(|entry| entry.term).or(of_snapshot)
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Entries from an index on.
    pub fn from(&self, index: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let first = index.max(self.before + 1);
        let skipped = (first - self.before - 1) as usize;
        (first..).zip(self.entries.iter().skip(skipped))
    }

    /// Drops an entry and all behind it.
    pub fn truncate(&mut self, from: u64) {
        let kept = from.saturating_sub(self.before + 1) as usize;
        self.entries.truncate(kept);
    }

    /// A snapshot was taken: `trailing` entries before its end are kept.
    pub fn compact(&mut self, snapshot: &Snapshot, trailing: u64) {
        self.snapshot = (snapshot.index, snapshot.term);
        while self.before < snapshot.index.saturating_sub(trailing) && self.entries.pop_front().is_some() {
            self.before += 1;
        }
    }
}

/// What survives a power cut.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Newest term.
    pub term: Term,
    /// Whom it voted for in it, 0 for nobody.
    pub voted_for: u64,
    /// Newest snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Entries.
    pub log: Log,
}

/// An append that waits for its entries to be on the disk.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) from: Sender,
    pub(super) term: Term,
    pub(super) commit: u64,
}

/// What is on its way to the disk, in order.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// Entries; of a leader if nobody asked.
    Append { first: u64, entries: Vec<Entry>, request: Option<Request> },
    /// An entry and all behind it go.
    Truncate { from: u64 },
    /// A leader's snapshot replaces everything.
    Install { snapshot: Arc<Snapshot>, from: Sender, term: Term },
}

impl Stored {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Append { first, entries, .. } => {
                assert_eq!(*first, self.log.last() + 1, "a gap in the log of a modelled C node");
                entries.iter().for_each(|entry| self.log.push(entry.clone()));
            }
            Write::Truncate { from } => self.log.truncate(*from),
            Write::Install { snapshot, .. } => {
                self.log = Log::behind(snapshot);
                self.snapshot = Some(Arc::clone(snapshot));
            }
        }
    }
}
