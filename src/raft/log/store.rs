//! openraft's log: every change goes to memory and is handed to the log thread in order. An entry can be read as soon as
//! `append` returns; openraft learns from the log thread when it is durable.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader, Vote};
use tokio::sync::watch;

use super::durable::{Durable, Generation};
use super::sender::LogSender;
use super::state::{SharedState, State};
use super::view::LogView;
use crate::raft::types::{Entry, EntryError, LeaderId, RaftLogId, TypeConfig, log_index, position};
use crate::storage::load::Loaded;
use crate::storage::log::LogRequest;
use crate::types::config::REPLICATION_BATCH_BYTES_MAX;
use crate::types::fault::{Fault, is_planted};
use crate::types::tasks::BlockingPool;
use crate::types::{LogIndex, NodeId, ProposalToken, Term};

/// openraft's log storage.
pub(crate) struct LogStore {
    state: SharedState,
    appended: watch::Sender<Option<ProposalToken>>,
    durable: Arc<watch::Sender<Durable>>,
    taken_up: watch::Sender<Term>,
    /// Bytes of entries that are on their way to the disk.
    unflushed: Arc<AtomicUsize>,
    log: LogSender,
    /// Where the memory of purged entries is given back: thousands of pages at once, which raft would wait for.
    pool: Arc<dyn BlockingPool>,
}

/// Reads the log while openraft writes it.
#[derive(Clone)]
pub(crate) struct LogReader {
    state: SharedState,
}

impl LogStore {
    /// A log with what was loaded from the directory.
    ///
    /// # Errors
    /// An entry that cannot be a member of a log.
    pub(crate) fn new(
        loaded: &Loaded,
        log: LogSender,
        pool: Arc<dyn BlockingPool>,
    ) -> Result<LogStore, EntryError> {
        let state = State::load(loaded)?;
        let durable = Durable::new(position(state.last_log_id().as_ref()).1, state.metadata.term);
        let has_others = state.configurations.last().is_some_and(|(_, last)| last.servers().len() > 1);
        if has_others {
            log.prepare_votes();
        }
        let (state, durable) = (SharedState::new(state), Arc::new(watch::channel(durable).0));
        let (appended, taken_up) = (watch::channel(None).0, watch::channel(Term(0)).0);
        Ok(LogStore { state, appended, durable, taken_up, unflushed: Arc::default(), log, pool })
    }

    /// Whether this node goes on leading without an election: see [`State::restore_first_leader`].
    pub(crate) fn restore_first_leader(&mut self, id: NodeId) -> bool {
        self.state.lock().restore_first_leader(id)
    }

    /// A view for the engine.
    pub(crate) fn view(&self) -> LogView {
        LogView {
            state: self.state.clone(),
            appended: self.appended.subscribe(),
            durable: Arc::clone(&self.durable),
            taken_up: self.taken_up.clone(),
            unflushed: Arc::clone(&self.unflushed),
            signals: self.log.signals(),
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { state: self.state.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote<LeaderId>) -> Result<(), io::Error> {
        let write = self.state.lock().metadata_to_write(vote);
        if let Some((term, voted_for)) = write {
            if is_planted(Fault::VoteBehindAppend) {
                self.view().all_durable().await;
            }
            self.log.store_vote(term, voted_for).await?;
            let mut state = self.state.lock();
            state.metadata.term = term;
            state.metadata.voted_for = voted_for;
        }
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (Some(first_index), Some(last)) =
            (entries.first().map(Entry::log_index), entries.last().map(Entry::log_index))
        else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let token = self.state.lock().append(&entries).map_err(io::Error::other)?;
        let others = |entry: &Entry| entry.change().is_some_and(|it| it.configuration.servers().len() > 1);
        if entries.iter().any(others) {
            self.log.prepare_votes();
        }
        let of = self.durable.borrow().generation();
        let mut callback = Some(callback);
        if is_planted(Fault::AckOnVoteFlush)
            && let Some(callback) = callback.take()
        {
            callback.io_completed(Ok(()));
        }
        let stored: Vec<_> = entries.iter().map(|entry| crate::types::Entry::clone(entry.stored())).collect();
        let bytes = stored.iter().map(|entry| entry.data.len()).sum();
        let flushed = Flushed {
            callback,
            durable: Arc::clone(&self.durable),
            of,
            last,
            _bytes: Unflushed::charge(&self.unflushed, bytes),
        };
        self.log.send(LogRequest::Append { first_index, entries: stored, done: flushed.into_done() });
        self.appended.send_if_modified(|last| std::mem::replace(last, token) != token);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let index = position(last.as_ref()).1.next();
        let of = {
            let mut state = self.state.lock();
            if !state.truncate_from(index) {
                return Ok(());
            }
            lowered(&self.durable, index)
        };
        self.log.complete(|done| LogRequest::TruncateFrom { index, done }).await?;
        self.durable.send_modify(|durable| durable.truncated_from(of, index));
        Ok(())
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        // On the disk, what a snapshot covers goes with the snapshot.
        let entries = self.state.lock().purge(upto);
        if !entries.is_empty() {
            self.pool.run_behind(Box::new(move || drop(entries)));
        }
        Ok(())
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
        let state = self.state.lock();
        let (start, end) = (state.place(start), state.place(end));
        Ok(if start < end { state.entries.range(start..end).cloned().collect() } else { Vec::new() })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<LeaderId>>, io::Error> {
        Ok(self.state.lock().vote)
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

/// A truncation counts at once.
fn lowered(durable: &watch::Sender<Durable>, index: LogIndex) -> Generation {
    let mut generation = durable.borrow().generation();
    durable.send_modify(|durable| generation = durable.truncate_from(index));
    generation
}

/// Tells what became of an append: first what may be acknowledged, then openraft; openraft also when the log thread ends without
/// doing it.
struct Flushed {
    callback: Option<IOFlushed<TypeConfig>>,
    durable: Arc<watch::Sender<Durable>>,
    of: Generation,
    last: LogIndex,
    _bytes: Unflushed,
}

/// Bytes that are on their way to the disk until this is dropped.
struct Unflushed {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Unflushed {
    fn charge(of: &Arc<AtomicUsize>, bytes: usize) -> Unflushed {
        of.fetch_add(bytes, Ordering::Relaxed);
        Unflushed { of: Arc::clone(of), bytes }
    }
}

impl Drop for Unflushed {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Flushed {
    fn into_done(mut self) -> crate::storage::log::Done {
        Box::new(move |result| {
            if result.is_ok() {
                self.durable.send_modify(|durable| durable.written(self.of, self.last));
            }
            if let Some(callback) = self.callback.take() {
                callback.io_completed(result.map_err(io::Error::other));
            }
        })
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            callback.io_completed(Err(io::Error::other("the log thread has ended")));
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
