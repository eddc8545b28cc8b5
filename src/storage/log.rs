//! The log writer: takes requests in order, writes them to the data directory and answers when they are durable.
//!
//! An answer `Ok` means synced. A failed request stays first in the queue, with everything behind it, and is tried again;
//! what a failed write left behind is cut off, and the entries go to another segment. spec: disk-format 4, 8, 10, 11.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::config::{SEGMENT_BYTES, SEGMENTS_AHEAD};
use crate::types::tasks::BlockingPool;
use crate::types::{Entry, LogIndex, NodeId, Term};

use super::directory::{Directory, DirectoryLock};
use super::error::StorageError;
use super::log_segments::{LogSegments, remove_old_snapshots};
use super::metadata::Metadata;
use super::open_segment::Batch;
use super::operations::failed;
use super::segment::BATCH_ENTRIES_MAX;
use super::vault::Vault;

/// How long a failed request waits before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Called once when a request is durable, or cannot ever be.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// What the log writer can be asked to do. Requests take effect in the order in which they come.
pub enum LogRequest {
    /// Appends entries: one batch.
    Append {
        /// Index of the first; the one after the last entry of the log.
        first_index: LogIndex,
        /// The entries, payloads multiples of 8 bytes.
        entries: Vec<Entry>,
        /// Called when they are synced.
        done: Done,
    },
    /// Stores term and vote.
    SetVote {
        /// Current term.
        term: Term,
        /// Node voted for in that term, 0 for none.
        voted_for: NodeId,
        /// Called when it is synced.
        done: Done,
    },
    /// Removes the entries from an index on.
    TruncateFrom {
        /// First entry that goes.
        index: LogIndex,
        /// Called when the removal is durable.
        done: Done,
    },
    /// Removes what a snapshot made unnecessary: old segments and all but the newest two snapshots.
    Trim {
        /// Index of the last entry in the snapshot.
        snapshot_index: LogIndex,
        /// Entries before it that stay.
        trailing: u64,
        /// Called when the removal is durable.
        done: Done,
    },
    /// Removes all entries, after a snapshot was installed.
    Reset {
        /// Index of the next entry: the one after the snapshot.
        next_index: LogIndex,
        /// Called when the removal is durable.
        done: Done,
    },
    /// Closes the segment that holds entries; writing goes on in the next one. To be asked before a snapshot of this node
    /// gets its name: entries of an open segment are counted on from the closed ones or, if there are none, from the
    /// snapshot, so that after a crash those in it would be taken for others behind it. spec: disk-format 7.3.
    CloseWritten {
        /// Called when it is durable.
        done: Done,
    },
    /// Closes and removes all open segments; none is prepared before the next other request. To be asked before an
    /// installed snapshot gets its name: upstream refuses a newer snapshot beside open segments and older entries.
    CloseSegments {
        /// Called when it is durable.
        done: Done,
    },
}

/// What the writer wants after `process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All requests are answered.
    Idle,
    /// A request failed: call `process` again after this time, with or without more requests.
    RetryAfter(Duration),
}

/// Start and end of a time in which the log cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTrouble {
    /// Requests fail and are kept. Reported once.
    Failing {
        /// The first error.
        error: String,
    },
    /// Requests succeed again. Reported once.
    Recovered,
}

/// Settings of a `LogWriter`.
pub struct LogOptions {
    /// Length of a prepared segment in bytes.
    pub segment_bytes: u64,
    /// Segments prepared and not yet written to.
    pub segments_ahead: usize,
    /// Where segments are prepared and closed while entries are written.
    pub pool: Arc<dyn BlockingPool>,
    /// Told about failures, on the thread that calls `process`.
    pub on_trouble: Box<dyn Fn(LogTrouble) + Send>,
}

impl LogOptions {
    /// The defaults of upstream.
    #[must_use]
    pub fn new(on_trouble: Box<dyn Fn(LogTrouble) + Send>, pool: Arc<dyn BlockingPool>) -> LogOptions {
        LogOptions { segment_bytes: SEGMENT_BYTES, segments_ahead: SEGMENTS_AHEAD, pool, on_trouble }
    }
}

/// Counts of what was written since the start.
#[derive(Debug, Default)]
pub struct LogStatistics {
    /// Syncs of appended entries.
    pub syncs: AtomicU64,
    /// Batches.
    pub batches: AtomicU64,
    /// Entries.
    pub entries: AtomicU64,
    /// Bytes in segments.
    pub bytes_written: AtomicU64,
}

/// Writes the log of one data directory; owns the directory's lock.
pub struct LogWriter {
    segments: LogSegments,
    vault: Vault,
    next_index: LogIndex,
    options: LogOptions,
    statistics: Arc<LogStatistics>,
    queue: VecDeque<LogRequest>,
    /// Entries of the append at the front of the queue that are synced already: it needs several batches.
    front_written: usize,
    failing: bool,
    may_prepare: bool,
    /// Why nothing can be appended any more: entries that could not be read from the page file.
    lost: Option<String>,
    _lock: DirectoryLock,
}

impl LogWriter {
    /// A writer that goes on behind what `load` found: its metadata, and the index of the next entry. No open segment may
    /// be left in the directory.
    #[must_use]
    pub fn new(
        directory: Directory,
        lock: DirectoryLock,
        metadata: Metadata,
        next_index: LogIndex,
        options: LogOptions,
    ) -> LogWriter {
        LogWriter {
            vault: Vault::new(directory.clone(), metadata),
            segments: LogSegments::new(directory, options.segment_bytes, Arc::clone(&options.pool)),
            next_index,
            options,
            statistics: Arc::default(),
            queue: VecDeque::new(),
            front_written: 0,
            failing: false,
            may_prepare: true,
            lost: None,
            _lock: lock,
        }
    }

    /// The counts, readable from any thread.
    #[must_use]
    pub fn statistics(&self) -> Arc<LogStatistics> {
        Arc::clone(&self.statistics)
    }

    /// Takes more requests and works on all that are waiting, in order.
    ///
    /// # Panics
    /// Appended entries do not follow the log.
    pub fn process(&mut self, requests: Vec<LogRequest>) -> Progress {
        self.queue.extend(requests);
        if let Some(error) = &self.lost {
            let error =
                StorageError::Payload { first: self.next_index, source: io::Error::other(error.clone()) };
            self.fail_all(&error);
        }
        while !self.queue.is_empty() {
            match self.step() {
                Ok(()) => self.report_success(),
                // What was to be written has gone: no later try can write it, nor anything behind it.
                Err(error @ StorageError::Payload { .. }) => {
                    tracing::error!(%error, "entries are lost before they were written");
                    self.fail_all(&error);
                    self.lost = Some(error.to_string());
                }
                Err(error) => {
                    self.report_failure(&error);
                    return Progress::RetryAfter(RETRY_INTERVAL);
                }
            }
        }
        Progress::Idle
    }

    /// Prepares segments for later appends. To be called when there is nothing else to do; a failure shows when the
    /// segment is needed.
    pub fn prepare_ahead(&mut self) {
        if !self.may_prepare || self.failing {
            return;
        }
        if let Err(error) = self.segments.prepare(self.options.segments_ahead) {
            tracing::debug!(%error, "no segment prepared");
        }
    }

    /// A clean stop: works on what is waiting, closes the segment with entries and removes the others. Requests that still
    /// fail get their error.
    ///
    /// # Errors
    /// A segment could not be closed; the directory can be loaded anyway.
    pub fn close(&mut self) -> Result<(), StorageError> {
        while !self.queue.is_empty() {
            if let Err(error) = self.step() {
                self.fail_all(&error);
            }
        }
        let closed = self.close_segments();
        self.segments.finish_erasing();
        closed
    }

    /// Works on the first request, or the appends at the front together.
    fn step(&mut self) -> Result<(), StorageError> {
        if matches!(self.queue.front(), Some(LogRequest::Append { .. })) {
            self.may_prepare = true;
            return self.append();
        }
        let request = match self.queue.pop_front() {
            Some(LogRequest::Trim { snapshot_index, trailing, done }) => {
                return self.trim(snapshot_index, trailing, done);
            }
            Some(LogRequest::CloseWritten { done }) => return self.close_written(done),
            Some(request) => request,
            None => return Ok(()),
        };
        let result = match &request {
            LogRequest::Append { .. } | LogRequest::Trim { .. } | LogRequest::CloseWritten { .. } => {
                unreachable!("handled above")
            }
            LogRequest::SetVote { term, voted_for, .. } => self.vault.store(*term, *voted_for),
            LogRequest::TruncateFrom { index, .. } => self.truncate_from(*index),
            LogRequest::Reset { next_index, .. } => self.reset(*next_index),
            LogRequest::CloseSegments { .. } => self.close_segments(),
        };
        match result {
            Err(error) if !is_final(&error) => {
                self.queue.push_front(request);
                Err(error)
            }
            result => {
                request.into_done()(result);
                Ok(())
            }
        }
    }

    /// Writes the appends at the front of the queue that fit into one segment, and answers them.
    fn append(&mut self) -> Result<(), StorageError> {
        let mut next = self.next_index;
        let mut batches = Vec::new();
        // Batches up to and including each request's last.
        let mut ends = Vec::new();
        for (position, request) in self.queue.iter().enumerate() {
            let LogRequest::Append { first_index, entries, .. } = request else { break };
            assert!(
                *first_index == next,
                "entries from {first_index} appended to a log whose next index is {next}"
            );
            let skipped = if position == 0 { self.front_written } else { 0 };
            for entries in entries[skipped..].chunks(BATCH_ENTRIES_MAX) {
                let batch = Batch::new(entries);
                batches.push(batch.map_err(|source| StorageError::Payload { first: next, source })?);
            }
            next = next.plus(entries.len() as u64);
            ends.push(batches.len());
        }
        let start = self.next_index.plus(self.front_written as u64);
        let mut written = 0;
        let mut result = Ok(());
        while written < batches.len() && result.is_ok() {
            let first = start.plus(batches[..written].iter().map(Batch::count).sum());
            result = self.segments.make_room(&batches[written..], first).and_then(|count| {
                let group = &batches[written..written + count];
                let bytes = self.segments.write(group)?;
                self.statistics.syncs.fetch_add(1, Ordering::Relaxed);
                self.statistics.batches.fetch_add(count as u64, Ordering::Relaxed);
                self.statistics.entries.fetch_add(group.iter().map(Batch::count).sum(), Ordering::Relaxed);
                self.statistics.bytes_written.fetch_add(bytes, Ordering::Relaxed);
                written += count;
                Ok(())
            });
        }
        let answered = ends.iter().take_while(|end| **end <= written).count();
        let durable_end = start.plus(batches[..written].iter().map(Batch::count).sum());
        drop(batches);
        for _ in 0..answered {
            let Some(LogRequest::Append { entries, done, .. }) = self.queue.pop_front() else { break };
            self.next_index = self.next_index.plus(entries.len() as u64);
            done(Ok(()));
        }
        self.front_written =
            usize::try_from(durable_end.0 - self.next_index.0).expect("a count of entries in memory");
        result
    }

    fn truncate_from(&mut self, index: LogIndex) -> Result<(), StorageError> {
        if index < self.next_index || self.segments.is_shortening() {
            self.segments.truncate_from(index)?;
            self.next_index = self.next_index.min(index);
        }
        Ok(())
    }

    /// Begins the removal; the log goes on meanwhile.
    fn trim(&mut self, snapshot_index: LogIndex, trailing: u64, done: Done) -> Result<(), StorageError> {
        self.may_prepare = true;
        let keep_from = LogIndex(snapshot_index.0.saturating_sub(trailing) + 1);
        self.segments.trim_later(keep_from, done).map_err(|(done, error)| {
            self.queue.push_front(LogRequest::Trim { snapshot_index, trailing, done });
            error
        })
    }

    fn close_written(&mut self, done: Done) -> Result<(), StorageError> {
        self.may_prepare = true;
        // No entry comes before this one.
        self.segments.trim_later(LogIndex::NONE, done).map_err(|(done, error)| {
            self.queue.push_front(LogRequest::CloseWritten { done });
            error
        })
    }

    fn reset(&mut self, next_index: LogIndex) -> Result<(), StorageError> {
        self.close_segments()?;
        // From the newest down: what is left at any time ends before the snapshot or reaches it without a gap.
        self.segments.truncate_from(LogIndex::NONE)?;
        remove_old_snapshots(self.segments.directory())?;
        self.segments.erase_later();
        self.next_index = next_index;
        self.may_prepare = true;
        Ok(())
    }

    fn close_segments(&mut self) -> Result<(), StorageError> {
        self.may_prepare = false;
        self.segments.close_current()?;
        self.segments.remove_unused()
    }

    fn report_success(&mut self) {
        if self.failing {
            self.failing = false;
            (self.options.on_trouble)(LogTrouble::Recovered);
        }
    }

    fn report_failure(&mut self, error: &StorageError) {
        if !self.failing {
            self.failing = true;
            (self.options.on_trouble)(LogTrouble::Failing { error: error.to_string() });
        }
    }

    fn fail_all(&mut self, error: &StorageError) {
        for request in std::mem::take(&mut self.queue) {
            let error = io::Error::other(format!("the log was closed: {error}"));
            let path = self.segments.directory().path().to_path_buf();
            request.into_done()(Err(failed("write the log", path, error)));
        }
    }
}

impl LogRequest {
    /// Entries to append, those that hold several proposals counted as so many.
    #[must_use]
    pub fn proposals(&self) -> usize {
        match self {
            LogRequest::Append { entries, .. } => entries
                .iter()
                .map(|entry| entry.proposals.map_or(1, crate::types::ProposalRange::count))
                .sum(),
            _ => 0,
        }
    }

    fn into_done(self) -> Done {
        match self {
            LogRequest::Append { done, .. }
            | LogRequest::SetVote { done, .. }
            | LogRequest::TruncateFrom { done, .. }
            | LogRequest::Trim { done, .. }
            | LogRequest::Reset { done, .. }
            | LogRequest::CloseWritten { done }
            | LogRequest::CloseSegments { done } => done,
        }
    }
}

/// Whether trying again is useless: what is on disk is damaged.
fn is_final(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::InvalidData)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
