//! Entries and snapshots of a leader. spec: raft-wire 5.

use std::sync::Arc;

use bytes::Bytes;
use dqlite::peers::Sender;
use dqlite::peers::message::{AppendEntries, AppendEntriesResult, InstallSnapshot, Message, TimeoutNow};
use dqlite::state_machine::databases::RestorableDatabases;
use dqlite::types::{Entry, EntryData, EntryKind, LogIndex, NodeId, Term};
use tokio::time::Instant;

use super::log::{Log, Request, Snapshot, Write};
use super::{CNode, State};

impl CNode {
    fn answer(&mut self, to: &Sender, rejected: u64, last: u64) {
        let (rejected, last_index) = (LogIndex(rejected), LogIndex(last));
        let result = AppendEntriesResult { term: self.term(), rejected, last_index };
        self.send(to, &Message::AppendEntriesResult(result), &[]);
    }

    /// Whether to go on: steps 2 and 3 of raft-wire 5.1.
    fn meet_leader(&mut self, from: &Sender, term: Term) -> bool {
        if term > self.term() {
            self.raise_term(term);
        }
        self.observed().leads(term, from.id);
        match &mut self.state {
            State::Leader(_) => {
                self.fail(format!("a message of node {} as leader of its own term {term}", from.id));
                return false;
            }
            State::Candidate { .. } => self.follow(Some(from.clone())),
            State::Follower { leader } => *leader = Some(from.clone()),
        }
        self.timer = Instant::now();
        true
    }

    pub(super) fn append_entries(&mut self, from: Sender, append: &AppendEntries, payloads: Vec<EntryData>) {
        let previous = append.previous_index.0;
        if append.term < self.term() {
            return self.answer(&from, previous, self.log.last());
        }
        if !self.meet_leader(&from, append.term) || self.installing && !payloads.is_empty() {
            return;
        }
        if previous > 0 && self.log.term(previous) != Some(append.previous_term) {
            if self.log.term(previous).is_some() && previous <= self.commit {
                return self
                    .fail(format!("the term of committed entry {previous} is not {}", append.previous_term));
            }
            return self.answer(&from, previous, self.stored);
        }
        if previous < self.log.before() && !payloads.is_empty() {
            return self.fail(format!(
                "entries from {} on for a log from {} on",
                previous + 1,
                self.log.before() + 1
            ));
        }
        let entries = append.entries.iter().zip(payloads);
        let mut entries = entries
            .map(|(header, data)| Entry { term: header.term, kind: header.kind, data, proposals: None })
            .collect::<Vec<_>>();
        let known = (previous + 1..).zip(&entries);
        let known = known.take_while(|(index, entry)| self.log.term(*index) == Some(entry.term)).count();
        let fresh = entries.split_off(known);
        let first = previous + 1 + known as u64;
        if fresh.is_empty() {
            if !self.installing {
                self.advance(append.commit.0.min(self.stored));
            }
            return self.answer(&from, 0, self.stored);
        }
        if self.log.last() >= first {
            if first <= self.commit {
                return self.fail(format!("another entry for committed index {first}"));
            }
            self.truncate(first);
        }
        fresh.iter().for_each(|entry| self.log.push(entry.clone()));
        let request = Some(Request { from, term: append.term, commit: append.commit.0 });
        self.queue(Write::Append { first, entries: fresh, request });
    }

    fn truncate(&mut self, from: u64) {
        if self.uncommitted.is_some_and(|index| index >= from) {
            self.uncommitted = None;
            self.configuration = self.committed.0.clone();
        }
        self.log.truncate(from);
        self.stored = self.stored.min(from - 1);
        self.queue(Write::Truncate { from });
    }

    /// Entries are on the disk.
    pub(super) fn appended(&mut self, first: u64, entries: &[Entry], request: Option<Request>) {
        if self.installing {
            return;
        }
        let own = request.is_none();
        for (index, entry) in (first..).zip(entries) {
            // What was replaced meanwhile is not stored, whatever the disk did.
            if index == self.stored + 1 && self.log.term(index) == Some(entry.term) {
                self.stored = index;
                if entry.kind == EntryKind::Change && !own {
                    self.adopt(index, &entry.data);
                }
            }
        }
        let last = first + entries.len() as u64 - 1;
        let still = self.log.term(last) == entries.last().map(|entry| entry.term);
        match request {
            None => self.count(self.stored),
            Some(request) if request.term == self.term() && still => {
                if !matches!(self.state, State::Follower { .. }) {
                    return;
                }
                self.advance(request.commit.min(self.stored));
                self.observed().entries_to_c += entries.len();
                self.answer(&request.from, 0, self.stored);
            }
            Some(_) => {}
        }
    }

    /// spec: raft-wire 5.2.
    pub(super) fn install_snapshot(&mut self, from: Sender, install: InstallSnapshot, content: Bytes) {
        let index = install.index.0;
        if install.term < self.term() {
            return self.answer(&from, index, self.log.last());
        }
        // One that is busy says nothing.
        if !self.meet_leader(&from, install.term) || self.installing || self.taking.is_some() {
            return;
        }
        let has_snapshot = self.disk.snapshot.as_ref().is_some_and(|snapshot| snapshot.index >= index);
        if has_snapshot || self.log.term(index).is_some_and(|term| term >= install.last_term) {
            return self.answer(&from, 0, index);
        }
        self.log = Log::default();
        self.stored = 0;
        self.installing = true;
        let snapshot = Arc::new(Snapshot {
            index,
            term: install.last_term,
            configuration: install.configuration,
            configuration_index: install.configuration_index.0,
            content,
        });
        self.queue(Write::Install { snapshot, from, term: install.term });
    }

    /// A leader's snapshot is on the disk.
    pub(super) fn installed(&mut self, snapshot: &Snapshot, from: &Sender, term: Term) {
        self.installing = false;
        self.log = Log::behind(snapshot);
        self.stored = snapshot.index;
        self.restore(snapshot);
        if self.options.heirs.contains(&from.id) {
            self.observed().snapshots_to_c += 1;
        }
        if term == self.term() && self.failed.is_none() {
            self.answer(from, 0, snapshot.index);
        }
    }

    /// The state machine and the configuration become those of a snapshot.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        match RestorableDatabases::read(&mut &snapshot.content[..], self.machine.space()) {
            Ok(state) => self.machine.restore(state),
            Err(error) => self.fail(format!("the snapshot at {}: {error}", snapshot.index)),
        }
        (self.commit, self.applied) = (snapshot.index, snapshot.index);
        self.configuration = snapshot.configuration.clone();
        self.uncommitted = None;
        self.committed = (snapshot.configuration.clone(), snapshot.configuration_index);
        self.in_force = self.committed.clone();
    }

    /// spec: raft-wire 5.3.
    pub(super) fn timeout_now(&mut self, from: NodeId, now: TimeoutNow) {
        let State::Follower { leader: Some(leader) } = &self.state else { return };
        let same_log = self.log.last() == now.last_index.0 && self.log.last_term() == now.last_term;
        let asks = leader.id == from && now.term >= self.term() && self.is_voter() && same_log;
        if asks && self.writes.is_empty() && !self.installing {
            if now.term > self.term() {
                self.raise_term(now.term);
            }
            self.campaign(false, true);
        }
    }
}
