//! openraft's log: all entries not yet purged in memory, every change handed to the log thread in order. An entry can be
//! read as soon as `append` returns; openraft learns from the log thread when it is durable. A gap in the tokens of an
//! epoch fails the store before anything is written or sent (architecture: "No gap in the log").

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader, Vote};
use tokio::sync::watch;

use super::leader_id::LeaderId;
use super::log_sender::{LogPhase, LogSender};
use super::snapshot::SnapshotPosition;
use super::types::{Entry, EntryError, RaftLogId, TypeConfig, log_id, log_index, position};
use crate::peers::replicator::LeaderLog;
use crate::state_machine::command;
use crate::storage::load::Loaded;
use crate::storage::log::LogRequest;
use crate::storage::metadata::Metadata;
use crate::types::config::REPLICATION_BATCH_BYTES_MAX;
use crate::types::tasks::BlockingPool;
use crate::types::{Configuration, LogIndex, NodeId, ProposalRange, ProposalToken, Term};

/// The log in memory.
#[derive(Debug)]
struct State {
    /// Index of the first entry in `entries`, or of the next one.
    first: LogIndex,
    entries: VecDeque<Entry>,
    /// Position before `first`, if anything was purged.
    purged: Option<RaftLogId>,
    /// Term of that entry as it was stored.
    purged_term: Term,
    vote: Option<Vote<LeaderId>>,
    /// Term and vote on disk.
    metadata: Metadata,
    /// Token of the last entry proposed here.
    last_token: Option<ProposalToken>,
    /// A received snapshot that is being installed.
    incoming: Option<SnapshotPosition>,
    /// Bytes of entries appended since the start, and of those loaded that no snapshot covers. Never less.
    logged_bytes: u64,
    /// Configurations of the log, oldest first, before them that of the purged part.
    configurations: Vec<(LogIndex, Arc<Configuration>)>,
}

/// A gap or a step back that openraft must never make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum LogFault {
    #[error("entry {found} appended where {expected} belongs")]
    Index { expected: LogIndex, found: LogIndex },
    #[error("proposal {found:?} appended after {previous:?}: a proposal between them is missing")]
    Token { previous: Option<ProposalToken>, found: ProposalRange },
}

impl State {
    fn next_index(&self) -> LogIndex {
        self.first.plus(self.entries.len() as u64)
    }

    fn last_log_id(&self) -> Option<RaftLogId> {
        self.entries.back().map(RaftEntry::log_id).or(self.purged)
    }

    /// Place of an index in `entries`, at most their number.
    fn place(&self, index: LogIndex) -> usize {
        let offset = index.0.saturating_sub(self.first.0);
        usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len())
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

    /// What must be written for a vote: nothing if the files say it already, never a vote that was not given.
    fn metadata_to_write(&self, vote: &Vote<LeaderId>) -> Option<(Term, NodeId)> {
        let LeaderId { term, voted_for } = vote.leader_id;
        if term == self.metadata.term.0 {
            let unchanged = vote.committed || voted_for == self.metadata.voted_for.0;
            return (!unchanged).then_some((Term(term), NodeId(voted_for)));
        }
        Some((Term(term), NodeId(if vote.committed { 0 } else { voted_for })))
    }
}

/// What the log says of itself to the engine.
#[derive(Clone, Debug)]
pub(super) struct LogView {
    state: Arc<Mutex<State>>,
    appended: watch::Receiver<Option<ProposalToken>>,
    phase: watch::Receiver<LogPhase>,
}

impl LogView {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index of the last entry.
    pub(super) fn last_index(&self) -> LogIndex {
        position(self.lock().last_log_id().as_ref()).1
    }

    /// Rank of an entry that is still there or was purged last.
    pub(super) fn rank_at(&self, index: LogIndex) -> Option<Term> {
        let state = self.lock();
        let (purged_term, purged_index) = position(state.purged.as_ref());
        if index == purged_index && index != LogIndex::NONE {
            return Some(purged_term);
        }
        if index < state.first {
            return None;
        }
        state.entries.get(state.place(index)).map(Entry::rank)
    }

    /// Stored term and rank of an entry that is still there or was purged last; of index 0, zero.
    pub(super) fn terms_at(&self, index: LogIndex) -> Option<(Term, Term)> {
        if index == LogIndex::NONE {
            return Some((Term(0), Term(0)));
        }
        let state = self.lock();
        let (rank, purged_index) = position(state.purged.as_ref());
        if index == purged_index {
            return Some((state.purged_term, rank));
        }
        if index < state.first {
            return None;
        }
        state.entries.get(state.place(index)).map(|entry| (entry.stored().term, entry.rank()))
    }

    /// Index, stored term and rank of the last entry.
    pub(super) fn last(&self) -> (LogIndex, Term, Term) {
        let state = self.lock();
        match state.entries.back() {
            Some(entry) => (entry.log_index(), entry.stored().term, entry.rank()),
            None => {
                let (rank, index) = position(state.purged.as_ref());
                (index, state.purged_term, rank)
            }
        }
    }

    /// The entry at an index, if it is in memory.
    pub(super) fn entry_at(&self, index: LogIndex) -> Option<Entry> {
        let state = self.lock();
        if index < state.first {
            return None;
        }
        state.entries.get(state.place(index)).cloned()
    }

    /// The last entry in memory that deletes a database.
    pub(super) fn last_deletion(&self) -> Option<LogIndex> {
        let state = self.lock();
        let is_deletion = |entry: &&Entry| command::deleted_database(entry.stored()).is_some();
        state.entries.iter().rev().find(is_deletion).map(Entry::log_index)
    }

    /// A received snapshot that ends here is about to replace the log: what a truncation would remove from the disk
    /// before it goes with all the rest, so that no step in between can be loaded as something else.
    pub(super) fn expect_snapshot(&self, position: SnapshotPosition) {
        self.lock().incoming = Some(position);
    }

    /// That snapshot was not installed.
    pub(super) fn expect_no_snapshot(&self) {
        self.lock().incoming = None;
    }

    /// Term of this node's vote, once that is durable; and whether it is the vote for a leader that was elected.
    pub(super) fn vote(&self) -> Option<(LeaderId, bool)> {
        self.lock().vote.map(|vote| (vote.leader_id, vote.committed))
    }

    /// Bytes logged since the start, and those of the loaded entries that no snapshot covers.
    pub(super) fn logged_bytes(&self) -> u64 {
        self.lock().logged_bytes
    }

    /// The last entry before the newest ones that fit into `max_bytes`; 0 if all do.
    pub(super) fn last_beyond(&self, max_bytes: usize) -> LogIndex {
        let state = self.lock();
        let mut bytes = 0;
        let mut newest_first = state.entries.iter().rev();
        let beyond = newest_first.find(|entry| {
            bytes += entry.stored().data.len();
            bytes > max_bytes
        });
        beyond.map_or(LogIndex::NONE, Entry::log_index)
    }

    /// The last configuration in the log, committed or not, with the index of its entry.
    pub(super) fn configuration(&self) -> (Arc<Configuration>, LogIndex) {
        let state = self.lock();
        state
            .configurations
            .last()
            .map(|(index, configuration)| (configuration.clone(), *index))
            .unwrap_or_default()
    }

    /// Token of the last proposal that reached the log.
    pub(super) fn appended(&self) -> watch::Receiver<Option<ProposalToken>> {
        self.appended.clone()
    }

    /// What the log does with proposals.
    pub(super) fn phase(&self) -> watch::Receiver<LogPhase> {
        self.phase.clone()
    }
}

impl LeaderLog for LogView {
    fn last_index(&self) -> LogIndex {
        LogView::last_index(self)
    }

    fn stored_term(&self, index: LogIndex) -> Option<Term> {
        self.terms_at(index).map(|(stored, _)| stored)
    }
}

/// openraft's log storage.
pub(super) struct LogStore {
    state: Arc<Mutex<State>>,
    appended: watch::Sender<Option<ProposalToken>>,
    log: LogSender,
    /// Where the memory of purged entries is given back: thousands of pages at once, which raft would wait for.
    pool: Arc<dyn BlockingPool>,
}

/// Reads the log while openraft writes it.
#[derive(Clone)]
pub(super) struct LogReader {
    state: Arc<Mutex<State>>,
}

impl LogStore {
    /// A log with what was loaded from the directory.
    ///
    /// # Errors
    /// An entry that cannot be a member of a log.
    pub(super) fn new(
        loaded: &Loaded,
        log: LogSender,
        pool: Arc<dyn BlockingPool>,
    ) -> Result<LogStore, EntryError> {
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
        let state = State {
            first,
            entries,
            purged,
            purged_term,
            vote,
            metadata: loaded.metadata,
            last_token: None,
            incoming: None,
            logged_bytes,
            configurations,
        };
        Ok(LogStore { state: Arc::new(Mutex::new(state)), appended: watch::channel(None).0, log, pool })
    }

    /// In term 1 nobody but the node that made the cluster can have led. If that is this node and it still is the only
    /// voter, it goes on leading without an election, so that a start writes nothing. Whether it does.
    /// spec: c-api 3.8, "State on return".
    pub(super) fn restore_first_leader(&mut self, id: NodeId) -> bool {
        let mut state = self.lock();
        let alone =
            state.configurations.last().is_some_and(|(_, configuration)| configuration.is_only_voter(id));
        let nobody_else = [NodeId(0), id].contains(&state.metadata.voted_for);
        let restores = alone
            && nobody_else
            && state.metadata.term == Term(1)
            && position(state.last_log_id().as_ref()).0 == Term(1);
        if restores {
            state.vote = Some(Vote::new_committed(1, id.0));
        }
        restores
    }

    /// A view for the engine.
    pub(super) fn view(&self) -> LogView {
        LogView { state: self.state.clone(), appended: self.appended.subscribe(), phase: self.log.phase() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { state: self.state.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote<LeaderId>) -> Result<(), io::Error> {
        let write = self.lock().metadata_to_write(vote);
        if let Some((term, voted_for)) = write {
            self.log.complete(|done| LogRequest::SetVote { term, voted_for, done }).await?;
            let mut state = self.lock();
            state.metadata.term = term;
            state.metadata.voted_for = voted_for;
        }
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first_index) = entries.first().map(Entry::log_index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let token = {
            let mut state = self.lock();
            let token = state.check(&entries).map_err(io::Error::other)?;
            state.push(&entries);
            state.last_token = token;
            token
        };
        let stored = entries.iter().map(|entry| crate::types::Entry::clone(entry.stored())).collect();
        self.log.send(LogRequest::Append {
            first_index,
            entries: stored,
            done: Flushed(Some(callback)).into_done(),
        });
        self.appended.send_if_modified(|last| std::mem::replace(last, token) != token);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let index = position(last.as_ref()).1.next();
        {
            let mut state = self.lock();
            if index >= state.next_index() {
                return Ok(());
            }
            let keep = state.place(index);
            state.entries.truncate(keep);
            state.configurations.retain(|(at, _)| *at < index);
            if state.incoming.as_ref().is_some_and(|snapshot| index <= snapshot.index.next()) {
                return Ok(());
            }
        }
        self.log.complete(|done| LogRequest::TruncateFrom { index, done }).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        let index = log_index(upto.index);
        let (beyond, purged) = {
            let mut state = self.lock();
            if state.purged.is_some_and(|purged| purged >= upto) {
                return Ok(());
            }
            let beyond = index >= state.next_index();
            let count = state.place(index.next());
            let incoming = state.incoming.take_if(|snapshot| snapshot.index <= index);
            let last = if beyond { None } else { state.entries.get(state.place(index)) };
            state.purged_term = match (last, &incoming) {
                (Some(entry), _) => entry.stored().term,
                (None, Some(snapshot)) => snapshot.term,
                (None, None) => Term(*upto.committed_leader_id()),
            };
            let purged: Vec<Entry> = state.entries.drain(..count).collect();
            state.first = index.next();
            state.purged = Some(upto);
            let known = state.configurations.iter().rposition(|(at, _)| *at <= index);
            state.configurations.drain(..known.unwrap_or(0));
            // Its configuration may be of an entry that this log never had.
            if let Some(snapshot) = incoming {
                state.configurations.retain(|(at, _)| *at > snapshot.index);
                state.configurations.insert(0, (snapshot.configuration_index, snapshot.configuration));
            }
            (beyond, purged)
        };
        self.pool.run_behind(Box::new(move || drop(purged)));
        // What a snapshot of this node covers is trimmed with it; a log that ends before is replaced.
        if beyond {
            self.log.complete(|done| LogRequest::Reset { next_index: index.next(), done }).await?;
        }
        Ok(())
    }
}

impl LogReader {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => log_index(*start),
            Bound::Excluded(start) => log_index(*start).next(),
            Bound::Unbounded => LogIndex(1),
        };
        let end = match range.end_bound() {
            Bound::Included(end) => log_index(*end).next(),
            Bound::Excluded(end) => log_index(*end),
            Bound::Unbounded => LogIndex(u64::MAX),
        };
        let state = self.lock();
        let (start, end) = (state.place(start), state.place(end));
        Ok(if start < end { state.entries.range(start..end).cloned().collect() } else { Vec::new() })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<LeaderId>>, io::Error> {
        Ok(self.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.try_get_log_entries(start..end).await?;
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            bytes += entry.stored().data.len();
            bytes <= REPLICATION_BATCH_BYTES_MAX
        });
        let count = fitting.count().max(1);
        entries.truncate(count);
        Ok(entries)
    }
}

#[cfg(test)]
#[path = "log_store_tests.rs"]
mod tests;

/// Tells openraft what became of an append; also when the log thread ends without doing it.
struct Flushed(Option<IOFlushed<TypeConfig>>);

impl Flushed {
    fn into_done(mut self) -> crate::storage::log::Done {
        Box::new(move |result| {
            if let Some(callback) = self.0.take() {
                callback.io_completed(result.map_err(io::Error::other));
            }
        })
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(Err(io::Error::other("the log thread has ended")));
        }
    }
}
