//! The log writer: takes requests in order, writes them to the data directory and answers when they are durable.
//!
//! An answer `Ok` means synced. A failed request stays first in the queue, with everything behind it, and is tried again;
//! what a failed write left behind is cut off, and the entries go to another segment. spec: disk-format 4, 8, 10, 11.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::backoff::Backoff;
use crate::types::config::{DISK_RETRY_FIRST, DISK_RETRY_MAX, SEGMENT_BYTES, SEGMENTS_AHEAD};
use crate::types::tasks::BlockingPool;
use crate::types::{Entry, LogIndex};

use super::directory::{Directory, DirectoryLock};
use super::erasure::Erasing;
use super::error::StorageError;
pub use super::housekeeping::Done;
use super::log_segments::LogSegments;
use super::open_segment::Batch;
use super::removal::remove_old_snapshots;
use super::segment::BATCH_ENTRIES_MAX;
use super::snapshot::{Sealed, name_snapshot};
use super::space::Space;

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
    /// Removes the entries from an index on.
    TruncateFrom {
        /// First entry that goes.
        index: LogIndex,
        /// Called when the removal is durable.
        done: Done,
    },
    /// Makes a snapshot of this node one of the directory, and removes what it made unnecessary: old segments and all but the newest
    /// two snapshots. The entries that it covers are closed first: those of an open segment are counted on from the closed ones or,
    /// if there are none, from the snapshot. spec: disk-format 5.4, 7.3.
    AddSnapshot {
        /// The snapshot; the log reaches its last entry.
        snapshot: Box<dyn Sealed>,
        /// Entries before its last one that stay.
        trailing: u64,
        /// Called when it is durable.
        done: Done,
    },
    /// Makes a snapshot one of the directory that takes the place of the log, which ends before it. Until the names of the snapshot
    /// are durable the old log is there; from then on what is left of it is stale.
    Replace {
        /// The snapshot.
        snapshot: Box<dyn Sealed>,
        /// Called when the removal of the log is durable.
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
    /// No request will ever succeed again. Reported once, before the requests get their errors.
    Ended {
        /// Why.
        error: String,
    },
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
    next_index: LogIndex,
    options: LogOptions,
    statistics: Arc<LogStatistics>,
    queue: VecDeque<LogRequest>,
    /// Entries of the append at the front of the queue that are synced already: it needs several batches.
    front_written: usize,
    failing: bool,
    /// Pauses before a failed request is tried again.
    retry: Backoff,
    may_prepare: bool,
    /// Why nothing can be appended any more: entries that could not be read from the page file.
    lost: Option<String>,
    lock: DirectoryLock,
}

impl LogWriter {
    /// A writer that goes on behind what `load` found, with the index of the next entry. No open segment may
    /// be left in the directory.
    #[must_use]
    pub fn new(
        directory: Directory,
        lock: DirectoryLock,
        next_index: LogIndex,
        options: LogOptions,
    ) -> LogWriter {
        LogWriter {
            segments: LogSegments::new(
                directory,
                lock.watch(),
                options.segment_bytes,
                Arc::clone(&options.pool),
            ),
            next_index,
            options,
            statistics: Arc::default(),
            queue: VecDeque::new(),
            front_written: 0,
            failing: false,
            retry: Backoff::new(DISK_RETRY_FIRST, DISK_RETRY_MAX),
            may_prepare: true,
            lost: None,
            lock,
        }
    }

    /// The counts, readable from any thread.
    #[must_use]
    pub fn statistics(&self) -> Arc<LogStatistics> {
        Arc::clone(&self.statistics)
    }

    /// Space for what is to be written, to be asked from any thread.
    #[must_use]
    pub fn space(&self) -> Arc<Space> {
        self.segments.space()
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
                Err(error) if error.is_final() => self.end(&error),
                Err(error) => {
                    if let Err(gone) = self.segments.directory().check() {
                        self.end(&gone);
                        continue;
                    }
                    if self.let_snapshot_pass() {
                        continue;
                    }
                    self.report_failure(&error);
                    return Progress::RetryAfter(self.retry.take());
                }
            }
        }
        Progress::Idle
    }

    /// Puts a snapshot before what cannot be written, if all of its entries are durable: it may free the space that is wanted.
    fn let_snapshot_pass(&mut self) -> bool {
        let next_index = self.next_index;
        let may_pass = |request: &LogRequest| match request {
            LogRequest::AddSnapshot { snapshot, .. } => snapshot.index() < next_index,
            _ => false,
        };
        let position = self.queue.iter().position(may_pass).filter(|position| *position > 0);
        let Some(snapshot) = position.and_then(|position| self.queue.remove(position)) else { return false };
        self.queue.push_front(snapshot);
        true
    }

    /// Nothing can be written any more, now or later.
    fn end(&mut self, error: &StorageError) {
        (self.options.on_trouble)(LogTrouble::Ended { error: error.to_string() });
        self.fail_all(error);
        self.lost = Some(error.to_string());
    }

    /// Prepares segments for later appends. To be called when there is nothing else to do; a failure shows when the
    /// segment is needed.
    pub fn prepare_ahead(&mut self) {
        if !self.may_prepare || self.failing || self.lost.is_some() {
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
        if let Err(error) = self.lock.check() {
            self.fail_all(&error);
            return Err(error);
        }
        while !self.queue.is_empty() {
            if let Err(error) = self.step() {
                self.fail_all(&error);
            }
        }
        let closed = self.close_segments();
        self.segments.end_erasing();
        closed
    }

    /// Leaves everything as it is, and who waits for it unanswered; only the right to the directory is given back.
    pub fn abandon(self) {
        let LogWriter { segments, queue, options, .. } = self;
        // Who waits may be on a runtime that cannot be woken, which panics.
        std::mem::forget((segments, queue, options));
    }

    /// Works on the first request, or the appends at the front together.
    fn step(&mut self) -> Result<(), StorageError> {
        self.may_prepare = true;
        // Each changes names, which are another node's if this one has the directory no more.
        self.lock.check()?;
        match self.queue.pop_front() {
            None => Ok(()),
            Some(append @ LogRequest::Append { .. }) => {
                self.queue.push_front(append);
                self.append()
            }
            Some(LogRequest::AddSnapshot { snapshot, trailing, done }) => {
                self.add_snapshot(snapshot, trailing, done)
            }
            Some(LogRequest::TruncateFrom { index, done }) => {
                let result = self.truncate_from(index);
                self.answer(result, done, |done| LogRequest::TruncateFrom { index, done })
            }
            Some(LogRequest::Replace { mut snapshot, done }) => {
                let result = self.replace(snapshot.as_mut());
                self.answer(result, done, |done| LogRequest::Replace { snapshot, done })
            }
        }
    }

    /// Answers a request, or puts it back to be tried again.
    fn answer(
        &mut self,
        result: Result<(), StorageError>,
        done: Done,
        request: impl FnOnce(Done) -> LogRequest,
    ) -> Result<(), StorageError> {
        match result {
            Err(error) if !is_of_file(&error) => {
                self.queue.push_front(request(done));
                Err(error)
            }
            result => {
                done(result);
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
                // Whoever has the lock by now has read the log, and may have read it before this was in it.
                self.lock.check()?;
                let bytes = self.segments.write(group)?;
                self.lock.check()?;
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

    /// Begins it; the log goes on meanwhile.
    fn add_snapshot(
        &mut self,
        snapshot: Box<dyn Sealed>,
        trailing: u64,
        done: Done,
    ) -> Result<(), StorageError> {
        let index = snapshot.index();
        assert!(index < self.next_index, "a snapshot of entry {index} in a log that ends before it");
        let keep_from = LogIndex(index.0.saturating_sub(trailing) + 1);
        let begun = self.segments.add_snapshot_later(snapshot, keep_from, done);
        begun.map_err(|(snapshot, done, error)| {
            self.queue.push_front(LogRequest::AddSnapshot { snapshot, trailing, done });
            error
        })
    }

    /// Each step can be done again after an error. A crash between them leaves what a load knows: the old log; the old log and a
    /// `.meta` without data; a snapshot and segments that end before it.
    fn replace(&mut self, snapshot: &mut dyn Sealed) -> Result<(), StorageError> {
        let index = snapshot.index();
        assert!(self.next_index <= index, "a snapshot of entry {index} replaces a log that reaches it");
        // Upstream refuses a newer snapshot beside open segments and older entries. spec: disk-format 7.3.
        self.close_segments()?;
        name_snapshot(self.segments.directory(), snapshot)?;
        // From the newest down.
        self.segments.truncate_from(LogIndex::NONE)?;
        // What is erased is the oldest snapshot: at once, since the log waits for this anyway.
        remove_old_snapshots(self.segments.directory(), &mut Erasing::default())?;
        self.next_index = index.next();
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
            self.retry.reset();
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
            request.into_done()(Err(StorageError::io("write", "the log", error)));
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
            | LogRequest::TruncateFrom { done, .. }
            | LogRequest::AddSnapshot { done, .. }
            | LogRequest::Replace { done, .. } => done,
        }
    }
}

/// Whether trying again with the same file is useless: what is on disk is damaged, or can get no name.
fn is_of_file(error: &StorageError) -> bool {
    let kinds = [ErrorKind::InvalidData, ErrorKind::Unsupported];
    matches!(error, StorageError::Io { source, .. } if kinds.contains(&source.kind()))
}

#[cfg(test)]
#[path = "log_snapshot_tests.rs"]
mod snapshot_tests;
#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
