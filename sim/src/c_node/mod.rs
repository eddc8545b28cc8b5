//! A model of one of upstream's nodes, for clusters of both: the behaviour that the specification states, without SQL. It
//! follows, votes, leads, changes roles, hands leadership over, takes and installs snapshots; what is unsafe in it when a peer breaks the
//! rules (an empty append commits whatever is stored) is unsafe here too, so that a broken rule shows. A message that
//! would end such a node ends the model, which is a violation. spec: raft-wire 5 to 9.
//!
//! Left out, because a cluster of such nodes alone is not safe with it: committing entries of earlier terms by counting
//! (1.11.1), the second vote for the target of a transfer, a single voter that leads without raising its term.

mod election;
mod follower;
mod leader;
pub mod log;
mod members;
pub mod observed;
pub mod task;
mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dqlite::pages::PageStore;
use dqlite::peers::Sender;
use dqlite::peers::message::Message;
use dqlite::raft::SnapshotPolicy;
use dqlite::state_machine::databases::Databases;
use dqlite::types::{Configuration, EntryData, EntryKind, LogIndex, NodeId, Role, Term};
use dqlite::vfs::empty_page;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use leader::Leading;
use log::{Log, Snapshot, Stored, Write};
use observed::Observed;
pub use wire::Dialect;

/// Between two looks at the timers, and between two heartbeats. spec: raft-wire 6.1.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Election timeout E.
const ELECTION: Duration = Duration::from_millis(3000);

/// A fault of the model that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not remember whom it voted for.
    ForgetsVote,
    /// Every so many entries do not reach its databases.
    SkipsEntries,
}

/// One entry of so many is skipped then.
const SKIPPED: u64 = 13;

/// How a modelled node differs from others.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything random in it.
    pub seed: u64,
    /// When snapshots are taken.
    pub policy: SnapshotPolicy,
    /// Nodes of this library, to which it hands leadership over after a while.
    pub heirs: Vec<NodeId>,
    /// A planted fault.
    pub fault: Option<Fault>,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// A message came, with the payloads of its entries or the content of its snapshot.
    Message(Sender, Message, Vec<EntryData>, Bytes),
    /// Something could not be sent to a peer.
    SendFailed(NodeId),
    /// A client of the node asks it for a change of a role.
    Assign(NodeId, Role),
}

/// What the node is.
enum State {
    Follower { leader: Option<Sender> },
    Candidate { pre_vote: bool, votes: Vec<NodeId> },
    Leader(Leading),
}

/// A message for a peer.
pub(crate) struct Outgoing {
    pub(crate) to: Sender,
    pub(crate) bytes: Bytes,
}

/// The node.
pub struct CNode {
    me: Sender,
    options: Options,
    dialect: Dialect,
    observed: Arc<Mutex<Observed>>,
    random: SmallRng,
    disk: Stored,
    log: Log,
    /// Highest index on the disk; 0 while a snapshot is being installed.
    stored: u64,
    commit: u64,
    applied: u64,
    /// The newest configuration, used at once.
    configuration: Configuration,
    /// Its index while it is not known to be committed.
    uncommitted: Option<u64>,
    /// Where the configuration goes back to.
    committed: (Configuration, u64),
    /// The configuration of the state machine's moment.
    in_force: (Configuration, u64),
    state: State,
    timer: Instant,
    timeout: Duration,
    next_tick: Instant,
    writes: VecDeque<Write>,
    write_done: Option<Instant>,
    taking: Option<(Instant, Arc<Snapshot>)>,
    installing: bool,
    store: Arc<PageStore>,
    machine: Databases,
    outgoing: Vec<Outgoing>,
    failed: Option<String>,
}

impl std::fmt::Debug for CNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CNode").field("me", &self.me).finish_non_exhaustive()
    }
}

impl CNode {
    /// A node with what its disk holds. spec: raft-wire 4.2, 8.3.
    #[must_use]
    pub fn load(me: Sender, options: Options, observed: Arc<Mutex<Observed>>, disk: Stored) -> CNode {
        let store = PageStore::new();
        let mut random = SmallRng::seed_from_u64(options.seed);
        let now = Instant::now();
        let mut node = CNode {
            dialect: Dialect::of(me.id),
            me,
            options,
            observed,
            log: disk.log.clone(),
            stored: disk.log.last(),
            disk,
            commit: 0,
            applied: 0,
            configuration: Configuration::default(),
            uncommitted: None,
            committed: (Configuration::default(), 0),
            in_force: (Configuration::default(), 0),
            state: State::Follower { leader: None },
            timer: now,
            timeout: ELECTION,
            next_tick: now + Duration::from_micros(random.random_range(0..500_000)),
            random,
            writes: VecDeque::new(),
            write_done: None,
            taking: None,
            installing: false,
            machine: Databases::new(Arc::clone(&store), empty_page()),
            store,
            outgoing: Vec::new(),
            failed: None,
        };
        if let Some(snapshot) = node.disk.snapshot.clone() {
            node.restore(&snapshot);
        }
        let entries: Vec<_> =
            node.log.from(1).map(|(index, entry)| (index, entry.kind, entry.data.clone())).collect();
        for (index, kind, data) in entries {
            if kind == EntryKind::Change && index > node.committed.1 {
                node.adopt(index, &data);
            }
        }
        if node.disk.snapshot.is_none() && node.log.last() > 0 {
            node.advance(1);
        }
        node.restart_timer();
        node
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn term(&self) -> Term {
        self.disk.term
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// Why it has ended.
    #[must_use]
    pub fn failed(&self) -> Option<&String> {
        self.failed.as_ref()
    }

    /// Its databases and the index up to which they have applied entries.
    #[must_use]
    pub fn databases(&self) -> (u64, &Arc<PageStore>) {
        (self.applied, &self.store)
    }

    fn fail(&mut self, text: String) {
        self.failed.get_or_insert(text);
    }

    fn is_voter(&self) -> bool {
        self.configuration.get(self.me.id).is_some_and(|server| server.role == Role::Voter)
    }

    fn is_majority(&self, votes: usize) -> bool {
        votes > self.configuration.voters().count() / 2
    }

    /// Draws a new random timeout and begins anew.
    fn restart_timer(&mut self) {
        self.timer = Instant::now();
        let extra = self.random.random_range(0..ELECTION.as_millis() as u64);
        self.timeout = ELECTION + Duration::from_millis(extra);
    }

    fn follow(&mut self, leader: Option<Sender>) {
        self.state = State::Follower { leader };
        self.restart_timer();
    }

    /// A higher term was seen. A follower goes on knowing its leader. spec: raft-wire 6.2.
    fn raise_term(&mut self, term: Term) {
        self.disk.term = term;
        self.disk.voted_for = 0;
        if !matches!(self.state, State::Follower { .. }) {
            self.follow(None);
        }
    }

    fn send(&mut self, to: &Sender, message: &Message, payload: &[&EntryData]) {
        let bytes = wire::encode(message, payload, self.dialect, &mut self.random);
        self.outgoing.push(Outgoing { to: to.clone(), bytes });
    }

    pub(crate) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }

    /// When something is due without an event.
    pub(crate) fn next_wake(&self) -> Instant {
        let taken = self.taking.as_ref().map(|(done, _)| *done);
        [self.write_done, taken].into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Something happens.
    pub fn handle(&mut self, event: Event) {
        if self.failed.is_some() {
            return;
        }
        match event {
            Event::Message(from, message, payloads, content) => match message {
                Message::AppendEntries(append) => self.append_entries(from, &append, payloads),
                Message::InstallSnapshot(install) => self.install_snapshot(from, install, content),
                Message::RequestVote(request) => self.request_vote(&from, request),
                Message::RequestVoteResult(result) => self.vote_result(from.id, result),
                Message::AppendEntriesResult(result) => self.append_result(from.id, result),
                Message::TimeoutNow(now) => self.timeout_now(from.id, now),
            },
            Event::SendFailed(id) => self.send_failed(id),
            Event::Assign(id, role) => self.assign(id, role),
        }
    }

    /// Does what is due.
    pub fn wake(&mut self) {
        let now = Instant::now();
        if self.failed.is_some() {
            self.next_tick = now + HEARTBEAT;
            (self.write_done, self.taking) = (None, None);
            return;
        }
        if self.write_done.is_some_and(|done| done <= now) {
            self.write_done = None;
            if let Some(write) = self.writes.pop_front() {
                self.disk.write(&write);
                self.written(write);
            }
            self.start_write();
        }
        if self.taking.as_ref().is_some_and(|(done, _)| *done <= now)
            && let Some((_, snapshot)) = self.taking.take()
        {
            let trailing = self.options.policy.trailing_entries;
            self.log.compact(&snapshot, trailing);
            self.disk.log.compact(&snapshot, trailing);
            self.disk.snapshot = Some(snapshot);
        }
        if self.next_tick <= now {
            self.next_tick += HEARTBEAT;
            self.tick();
        }
    }

    /// The power is cut: what was on its way to the disk is there or not, in order.
    #[must_use]
    pub fn power_cut(&mut self) -> Stored {
        let mut disk = self.disk.clone();
        while let Some(write) = self.writes.pop_front().filter(|_| self.random.random()) {
            disk.write(&write);
        }
        self.fail("its power was cut".to_owned());
        disk
    }

    fn queue(&mut self, write: Write) {
        self.writes.push_back(write);
        self.start_write();
    }

    fn start_write(&mut self) {
        if self.write_done.is_none() && !self.writes.is_empty() {
            let slow = self.random.random_range(0..20) == 0;
            let micros = self.random.random_range(if slow { 5_000..80_000 } else { 100..3_000 });
            self.write_done = Some(Instant::now() + Duration::from_micros(micros));
        }
    }

    fn written(&mut self, write: Write) {
        match write {
            Write::Append { first, entries, request } => self.appended(first, &entries, request),
            Write::Truncate { .. } => {}
            Write::Install { snapshot, from, term } => self.installed(&snapshot, &from, term),
        }
    }

    /// Takes over the configuration of an entry; the one before it is committed, since there is at most one that is not.
    fn adopt(&mut self, index: u64, data: &EntryData) {
        let decoded = data.contiguous().map_err(|error| error.to_string());
        let decoded =
            decoded.and_then(|bytes| Configuration::decode(&bytes).map_err(|error| error.to_string()));
        match decoded {
            Ok(configuration) => {
                if let Some(earlier) = self.uncommitted {
                    self.committed = (self.configuration.clone(), earlier);
                }
                self.configuration = configuration;
                self.uncommitted = Some(index);
                if index == 1 {
                    self.uncommitted = None;
                    self.committed = (self.configuration.clone(), 1);
                }
            }
            Err(error) => self.fail(format!("configuration entry {index}: {error}")),
        }
    }

    /// Commits and applies up to an index.
    fn advance(&mut self, commit: u64) {
        self.commit = self.commit.max(commit);
        while self.applied < self.commit && self.failed.is_none() {
            let index = self.applied + 1;
            let Some(entry) = self.log.get(index).cloned() else {
                self.fail(format!("entry {index} is committed and not there"));
                return;
            };
            let skips = self.options.fault == Some(Fault::SkipsEntries) && index.is_multiple_of(SKIPPED);
            let applied = if skips { Ok(()) } else { self.machine.apply(LogIndex(index), &entry) };
            if let Err(error) = applied {
                self.fail(format!("entry {index}: {error}"));
                return;
            }
            self.applied = index;
            if entry.kind == EntryKind::Change {
                self.apply_change(index, &entry.data);
            }
        }
        self.maybe_take_snapshot();
    }

    fn maybe_take_snapshot(&mut self) {
        let last = self.disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let busy = self.taking.is_some() || self.installing || self.applied > self.stored;
        if busy || self.applied - last < self.options.policy.threshold_entries {
            return;
        }
        let mut content = Vec::new();
        if let Err(error) = self.machine.pin().write_to(&mut content) {
            self.fail(format!("its snapshot: {error}"));
            return;
        }
        let snapshot = Snapshot {
            index: self.applied,
            term: self.log.term(self.applied).unwrap_or_default(),
            configuration: self.in_force.0.clone(),
            configuration_index: self.in_force.1,
            content: content.into(),
        };
        let millis = self.random.random_range(1..60);
        self.taking = Some((Instant::now() + Duration::from_millis(millis), Arc::new(snapshot)));
    }
}

#[cfg(test)]
mod tests;
