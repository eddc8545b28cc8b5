//! What the clients of one history share: the order of events, the records, and counts of what happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dqlite::executor::Executor;

use super::record::{Bond, Moment, Outcome, Read, Records, Write};

/// What happened, by name.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests sent, whole or in part.
    pub requests: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
    /// Reads whose rows are checked.
    pub reads: u64,
    /// Failures by their codes.
    pub failures: BTreeMap<u64, u64>,
    /// Connections that ended in the middle of something, by what that was.
    pub ends: BTreeMap<&'static str, u64>,
    /// Requests that got no answer for as long as a client waits.
    pub unanswered: u64,
}

/// Shared by clones.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    moment: Moment,
    tag: i64,
    snapshot: u64,
    records: Vec<Records>,
    counts: Counts,
    violations: Vec<String>,
    executors: BTreeMap<Vec<u8>, Arc<Executor>>,
}

impl Shared {
    /// For so many databases.
    #[must_use]
    pub fn new(databases: usize) -> Shared {
        Shared(Arc::new(Mutex::new(State {
            moment: 0,
            tag: 0,
            snapshot: 0,
            records: vec![Records::default(); databases],
            counts: Counts::default(),
            violations: Vec::new(),
            executors: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let mut state = self.lock();
        state.moment += 1;
        state.moment
    }

    /// A tag that nobody else has.
    #[must_use]
    pub fn tag(&self) -> i64 {
        let mut state = self.lock();
        state.tag += 1;
        state.tag
    }

    /// A number for a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> u64 {
        let mut state = self.lock();
        state.snapshot += 1;
        state.snapshot
    }

    /// Notes a write.
    pub fn wrote(&self, database: usize, write: Write) {
        let mut state = self.lock();
        match write.outcome {
            Outcome::Done => state.counts.acknowledged += 1,
            Outcome::Unknown => state.counts.unknown += 1,
            Outcome::Absent => {}
        }
        if let Some(records) = state.records.get_mut(database) {
            records.writes.insert(write.tag, write);
        }
    }

    /// Notes a bond.
    pub fn bound(&self, database: usize, bond: Bond, tags: Vec<i64>) {
        if tags.len() > 1
            && let Some(records) = self.lock().records.get_mut(database)
        {
            records.bonds.push((bond, tags));
        }
    }

    /// Notes what a read saw.
    pub fn read(&self, database: usize, read: Read) {
        let mut state = self.lock();
        state.counts.reads += 1;
        if let Some(records) = state.records.get_mut(database) {
            records.reads.push(read);
        }
    }

    /// Notes the first tag of a committed transaction.
    pub fn committed(&self, database: usize, snapshot: u64, first: i64) {
        if let Some(records) = self.lock().records.get_mut(database) {
            records.snapshots.push((snapshot, first));
        }
    }

    /// The client of a write has gone; by this moment the write is there or never will be.
    pub fn gone(&self, database: usize, tag: i64) {
        let over = self.moment();
        if let Some(records) = self.lock().records.get_mut(database) {
            records.gone.push((tag, over));
        }
    }

    /// Notes what must not happen.
    pub fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    /// What must not have happened and has.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The longest time for which a turn is held on any node that nobody's transaction holds.
    #[must_use]
    pub fn turn_held_for(&self) -> Duration {
        let executors: Vec<_> = self.lock().executors.values().cloned().collect();
        executors.iter().map(|executor| executor.usage().turn_held_for).max().unwrap_or_default()
    }

    /// Counts.
    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.lock().counts);
    }

    /// A node has started.
    pub fn started(&self, address: Vec<u8>, executor: Arc<Executor>) {
        self.lock().executors.insert(address, executor);
    }

    /// A node has ended.
    pub fn ended(&self, address: &[u8]) {
        self.lock().executors.remove(address);
    }

    /// What is waited for on a node.
    #[must_use]
    pub fn waits_at(&self, address: &[u8]) -> &'static str {
        let executor = self.lock().executors.get(address).cloned();
        let Some(usage) = executor.map(|executor| executor.usage()) else { return "its node is gone" };
        if usage.waiting_for_permit > 0 {
            "somebody waits for a permit"
        } else if usage.permits > 0 {
            "somebody is inside SQLite"
        } else if usage.waiting_for_room > 0 {
            "somebody waits for room"
        } else if usage.waiting_for_turn > 0 {
            "somebody waits for a turn"
        } else if usage.bytes > 0 {
            "entries are on their way"
        } else {
            "nothing is waited for"
        }
    }

    /// Takes everything.
    #[must_use]
    pub fn take(&self) -> (Vec<Records>, Counts) {
        let mut state = self.lock();
        state.executors.clear();
        (std::mem::take(&mut state.records), std::mem::take(&mut state.counts))
    }
}
