//! The log in memory: the entries not yet purged, the vote, and what both must satisfy. A gap in the tokens of an epoch is
//! refused before anything is written or sent (architecture: "No gap in the log").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::Vote;
use openraft::entry::RaftEntry;

use crate::raft::types::{
    Entry, EntryError, LeaderId, RaftLogId, SnapshotPosition, log_id, log_index, position,
};
use crate::storage::load::Loaded;
use crate::storage::metadata::Metadata;
use crate::types::fault::{Fault, is_planted};
use crate::types::{Configuration, LogIndex, NodeId, ProposalRange, ProposalToken, Term};

/// The log as openraft, its readers and the engine share it.
#[derive(Clone, Debug)]
pub(super) struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    pub(super) fn new(state: State) -> SharedState {
        SharedState(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log in memory.
#[derive(Debug)]
pub(super) struct State {
    /// Index of the first entry in `entries`, or of the next one.
    pub(super) first: LogIndex,
    pub(super) entries: VecDeque<Entry>,
    /// Position before `first`, if anything was purged.
    pub(super) purged: Option<RaftLogId>,
    /// Term of that entry as it was stored.
    pub(super) purged_term: Term,
    pub(super) vote: Option<Vote<LeaderId>>,
    /// Term and vote on disk.
    pub(super) metadata: Metadata,
    /// Token of the last entry proposed here.
    last_token: Option<ProposalToken>,
    /// Bytes of entries appended since the start, and of those loaded that no snapshot covers. Never less.
    pub(super) logged_bytes: u64,
    /// Configurations of the log, oldest first, before them that of the purged part.
    pub(super) configurations: Vec<(LogIndex, Arc<Configuration>)>,
}

/// A gap or a step back that openraft must never make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogFault {
    #[error("entry {found} appended where {expected} belongs")]
    Index { expected: LogIndex, found: LogIndex },
    #[error("proposal {found:?} appended after {previous:?}: a proposal between them is missing")]
    Token { previous: Option<ProposalToken>, found: ProposalRange },
}

impl State {
    /// What was loaded from the directory.
    ///
    /// # Errors
    /// An entry that cannot be a member of a log.
    pub(super) fn load(loaded: &Loaded) -> Result<State, EntryError> {
        let snapshot = loaded.snapshot.as_ref().map(|file| &file.meta);
        let mut entries = VecDeque::with_capacity(loaded.entries.len());
        let mut index = loaded.first_index;
        let mut rank = snapshot.filter(|meta| meta.index.next() == index).map_or(Term(0), |meta| meta.term);
        for stored in &loaded.entries {
            let entry = Entry::from_stored(index, stored.clone(), rank)?;
            rank = entry.rank();
            entries.push_back(entry);
            index = index.next();
        }
        let snapshot_id = snapshot.and_then(|meta| log_id(meta.term, meta.index));
        let mut first = loaded.first_index;
        let after_snapshot = snapshot.map_or(LogIndex(1), |meta| meta.index.next());
        let mut purged_term = snapshot.map_or(Term(0), |meta| meta.term);
        let purged = if entries.is_empty() || first == after_snapshot {
            first = after_snapshot;
            snapshot_id
        } else if first > LogIndex(1) {
            // The term before the oldest entry is not on disk: that entry itself counts as purged.
            first = first.next();
            entries.pop_front().map(|entry| {
                purged_term = entry.stored().term;
                entry.log_id()
            })
        } else {
            None
        };
        let mut configurations = Vec::new();
        if let Some(meta) = snapshot {
            configurations.push((meta.configuration_index, Arc::new(meta.configuration.clone())));
        }
        let base = configurations.last().map_or(LogIndex::NONE, |(index, _)| *index);
        for entry in entries.iter().filter(|entry| entry.log_index() > base) {
            if let Some(change) = entry.change() {
                configurations.push((entry.log_index(), change.configuration.clone()));
            }
        }
        let covered = snapshot.map_or(LogIndex::NONE, |meta| meta.index);
        let uncovered = entries.iter().filter(|entry| entry.log_index() > covered);
        let logged_bytes = uncovered.map(|entry| entry.stored().data.len() as u64).sum();
        let Metadata { term, voted_for, .. } = loaded.metadata;
        let vote = (term != Term(0)).then(|| Vote::new(term.0, voted_for.0));
        Ok(State {
            first,
            entries,
            purged,
            purged_term,
            vote,
            metadata: loaded.metadata,
            last_token: None,
            logged_bytes,
            configurations,
        })
    }

    fn next_index(&self) -> LogIndex {
        self.first.plus(self.entries.len() as u64)
    }

    pub(super) fn last_log_id(&self) -> Option<RaftLogId> {
        self.entries.back().map(RaftEntry::log_id).or(self.purged)
    }

    /// Place of an index in `entries`, at most their number.
    pub(super) fn place(&self, index: LogIndex) -> usize {
        let offset = index.0.saturating_sub(self.first.0);
        usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len())
    }

    /// The entry at an index, if it is in memory.
    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        if index < self.first {
            return None;
        }
        self.entries.get(self.place(index))
    }

    /// Checks that `entries` continue the log and the epoch; the token of the last one of this node.
    fn check(&self, entries: &[Entry]) -> Result<Option<ProposalToken>, LogFault> {
        let mut expected = self.next_index();
        let mut previous = self.last_token;
        // An empty log that was never purged takes any first index: a segment may begin anywhere.
        if self.entries.is_empty() && self.purged.is_none() {
            expected = entries.first().map_or(expected, Entry::log_index);
        }
        for entry in entries {
            if entry.log_index() != expected {
                return Err(LogFault::Index { expected, found: entry.log_index() });
            }
            expected = expected.next();
            if let Some(found) = entry.stored().proposals {
                let continues = match previous {
                    Some(last) if last.epoch == found.epoch => found.first == last.sequence + 1,
                    Some(last) => found.epoch > last.epoch && found.first == 1,
                    None => found.first == 1,
                };
                if !continues || found.last < found.first {
                    return Err(LogFault::Token { previous, found });
                }
                previous = Some(found.last_token());
            }
        }
        Ok(previous)
    }

    fn push(&mut self, entries: &[Entry]) {
        if let Some(entry) = entries.first()
            && self.entries.is_empty()
        {
            self.first = entry.log_index();
        }
        for entry in entries {
            if let Some(change) = entry.change() {
                self.configurations.push((entry.log_index(), change.configuration.clone()));
            }
            self.logged_bytes += entry.stored().data.len() as u64;
            self.entries.push_back(entry.clone());
        }
    }

    /// Appends entries, if they continue the log and the epoch; the token of the last one of this node.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<Option<ProposalToken>, LogFault> {
        let token = self.check(entries)?;
        self.push(entries);
        self.last_token = token;
        Ok(token)
    }

    /// Removes the entries from an index on; whether there were any.
    pub(super) fn truncate_from(&mut self, index: LogIndex) -> bool {
        if index >= self.next_index() {
            return false;
        }
        let keep = self.place(index);
        self.entries.truncate(keep);
        self.configurations.retain(|(at, _)| *at < index);
        true
    }

    /// Removes the entries up to a position; none if that was done before, as when a snapshot has replaced the log.
    pub(super) fn purge(&mut self, upto: RaftLogId) -> Vec<Entry> {
        if self.purged.is_some_and(|purged| purged >= upto) {
            return Vec::new();
        }
        let index = log_index(upto.index);
        self.purged_term = match self.entry(index) {
            Some(entry) => entry.stored().term,
            None => Term(*upto.committed_leader_id()),
        };
        let count = self.place(index.next());
        let entries: Vec<Entry> = self.entries.drain(..count).collect();
        self.first = index.next();
        self.purged = Some(upto);
        let known = self.configurations.iter().rposition(|(at, _)| *at <= index);
        self.configurations.drain(..known.unwrap_or(0));
        entries
    }

    /// A snapshot has taken the place of the log: nothing is left but its position. The entries that were there.
    pub(super) fn replace(&mut self, id: Option<RaftLogId>, position: &SnapshotPosition) -> Vec<Entry> {
        assert!(self.next_index() <= position.index, "a snapshot replaces a log that reaches its last entry");
        let entries = std::mem::take(&mut self.entries);
        self.first = position.index.next();
        self.purged = id;
        self.purged_term = position.term;
        self.configurations = vec![(position.configuration_index, position.configuration.clone())];
        entries.into()
    }

    /// A node that has been alone in its cluster ever since it made it goes on leading in term 1 without an election, so that
    /// a start writes nothing. Whether it does. Any other lone voter needs a new term: another server may hold entries of
    /// this one that this node had sent and not written when it ended. A server is first named by an entry that is durable here
    /// before anything can be sent to it. spec: c-api 3.8, "State on return".
    pub(super) fn restore_first_leader(&mut self, id: NodeId) -> bool {
        let alone = match &self.configurations[..] {
            [(LogIndex(1), first)] => first.is_only_member(id),
            [.., (_, last)] => is_planted(Fault::TermReused) && last.is_only_voter(id),
            [] => false,
        };
        let nobody_else = [NodeId(0), id].contains(&self.metadata.voted_for);
        let restores = alone
            && nobody_else
            && self.metadata.term == Term(1)
            && position(self.last_log_id().as_ref()).0 == Term(1);
        if restores {
            self.vote = Some(Vote::new_committed(1, id.0));
        }
        restores
    }

    /// What must be written for a vote: nothing if the files say it already, never a vote that was not given.
    pub(super) fn metadata_to_write(&self, vote: &Vote<LeaderId>) -> Option<(Term, NodeId)> {
        let LeaderId { term, voted_for } = vote.leader_id;
        if term == self.metadata.term.0 {
            let unchanged = vote.committed || voted_for == self.metadata.voted_for.0;
            return (!unchanged).then_some((Term(term), NodeId(voted_for)));
        }
        Some((Term(term), NodeId(if vote.committed { 0 } else { voted_for })))
    }
}
