//! The segments of the log on disk: prepared ahead, written to, closed, trimmed and truncated. spec: disk-format 4, 8, 13.
//!
//! Open segments that hold entries are in the order of their counters; the others are all zero. Every step leaves a state that
//! upstream loads, and a step that failed can be called again.

use std::sync::Arc;

use crate::types::LogIndex;
use crate::types::tasks::BlockingPool;

use super::catalogue::{Catalogue, ClosedSegment};
use super::directory::Directory;
use super::erasure::take_name;
use super::error::StorageError;
use super::housekeeping::{Housekeeping, Job};
use super::log::Done;
use super::open_segment::{Batch, FORMAT_BYTES, OpenSegment, PREAMBLE_BYTES, Zeros, close, make_open};
use super::operations::{list, remove_if_there, sync_directory};
use super::segment;
use super::snapshot_meta::SnapshotName;
use super::truncation::Shortening;

/// What a segment for one large batch has beyond the batch. spec: disk-format 13.
const LARGE_SEGMENT_MARGIN_BYTES: u64 = 4096;
/// Snapshots that stay. spec: disk-format 5.4.
const SNAPSHOTS_KEPT: usize = 2;

/// The segments of one directory.
pub(super) struct LogSegments {
    pub(super) directory: Directory,
    segment_bytes: u64,
    /// Counter of the next open segment; 0 until the directory was looked at.
    next_counter: u64,
    current: Option<OpenSegment>,
    pub(super) shortening: Option<Shortening>,
    housekeeping: Housekeeping,
    /// Highest counter of a segment that may not be closed yet.
    unclosed: u64,
    /// How segments are made, by what the last full one held.
    zeros: Zeros,
}

impl LogSegments {
    pub(super) fn new(directory: Directory, segment_bytes: u64, pool: Arc<dyn BlockingPool>) -> LogSegments {
        let housekeeping = Housekeeping::new(directory.clone(), pool);
        LogSegments {
            directory,
            segment_bytes,
            next_counter: 0,
            current: None,
            shortening: None,
            housekeeping,
            unclosed: 0,
            zeros: Zeros::Written,
        }
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Has segments prepared until `count` are in reserve.
    pub(super) fn prepare(&mut self, count: usize) -> Result<(), StorageError> {
        for _ in self.housekeeping.in_reserve()..count {
            let counter = self.next_counter()?;
            let zeros = self.zeros;
            self.housekeeping.submit(Job::Prepare { counter, bytes: self.segment_bytes, zeros });
        }
        Ok(())
    }

    /// How many of `batches`, at least one, go into the segment written to next; makes that segment ready.
    /// `first` is the index of the first entry.
    pub(super) fn make_room(
        &mut self,
        batches: &[Batch<'_>],
        first: LogIndex,
    ) -> Result<usize, StorageError> {
        let Some(head) = batches.first() else { return Ok(0) };
        match &self.current {
            // What a failed write left behind must not be loaded before what follows.
            Some(current) if current.in_doubt => self.close_current()?,
            Some(current) if !current.fits(current.used, head.bytes) => self.close_current_later()?,
            _ => {}
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => self.take_segment(head.bytes, first)?,
        };
        let mut position = current.used.max(FORMAT_BYTES);
        let mut taken = 0;
        for batch in batches {
            if !current.fits(position, batch.bytes) {
                break;
            }
            position += batch.bytes;
            taken += 1;
        }
        self.current = Some(current);
        Ok(taken)
    }

    /// Writes batches that `make_room` found room for: one write, one sync. Returns the bytes written.
    /// After an error nothing of them counts, and the segment takes no more batches.
    pub(super) fn write(&mut self, batches: &[Batch<'_>]) -> Result<u64, StorageError> {
        let current = self.current.as_mut().expect("make_room made a segment ready");
        current.write(&self.directory, batches)
    }

    /// Closes the segment that holds entries, cut to its last synced batch; removes it if it holds none. All other work on
    /// segments is done, too.
    pub(super) fn close_current(&mut self) -> Result<(), StorageError> {
        self.housekeeping.settle()?;
        self.unclosed = 0;
        let Some(current) = self.current.as_mut() else { return Ok(()) };
        close(&self.directory, current)?;
        self.current = None;
        Ok(())
    }

    /// The segment that holds entries takes no more; it is closed in its turn.
    fn close_current_later(&mut self) -> Result<(), StorageError> {
        self.housekeeping.bound_unclosed()?;
        if let Some(current) = self.current.take() {
            self.unclosed = self.unclosed.max(current.counter);
            self.zeros = Zeros::after(current.used, current.syncs);
            self.housekeeping.submit(Job::Close(current));
        }
        Ok(())
    }

    /// After a snapshot: closes the segment that holds entries, removes the closed ones that end before `keep_from`, and old
    /// snapshots. `done` is called when that is durable; writing goes on meanwhile.
    pub(super) fn trim_later(&mut self, keep_from: LogIndex, done: Done) -> Result<(), (Done, StorageError)> {
        let closed = match &self.current {
            Some(current) if current.in_doubt || current.used == 0 => self.close_current(),
            _ => self.close_current_later(),
        };
        if let Err(error) = closed {
            return Err((done, error));
        }
        self.housekeeping.submit(Job::Trim { keep_from, done });
        Ok(())
    }

    /// Frees the bytes of removed files in the background, those of old snapshots included.
    pub(super) fn erase_later(&self) {
        self.housekeeping.submit(Job::Trim { keep_from: LogIndex::NONE, done: Box::new(drop) });
    }

    /// Frees the bytes of removed files now.
    pub(super) fn finish_erasing(&self) {
        self.housekeeping.finish_erasing();
    }

    /// Removes the prepared segments.
    pub(super) fn remove_unused(&mut self) -> Result<(), StorageError> {
        self.housekeeping.settle()?;
        while let Some(name) = self.housekeeping.first_prepared() {
            remove_if_there(&self.directory, self.directory.path().join(&name))?;
            self.housekeeping.forget_first_prepared();
        }
        sync_directory(&self.directory)
    }

    /// The closed segments, by first index.
    pub(super) fn closed(&self) -> Result<Vec<ClosedSegment>, StorageError> {
        closed(&self.directory)
    }

    /// A segment with room for a first batch of `bytes`.
    fn take_segment(&mut self, bytes: u64, first: LogIndex) -> Result<OpenSegment, StorageError> {
        let mut segment = match self.housekeeping.take_prepared() {
            Some(segment) if segment.fits(0, bytes) => segment,
            unfit => {
                if let Some(segment) = unfit {
                    self.housekeeping.put_back(segment);
                }
                let needed = FORMAT_BYTES + bytes;
                let fits = needed == self.segment_bytes || needed + PREAMBLE_BYTES <= self.segment_bytes;
                let large = needed + LARGE_SEGMENT_MARGIN_BYTES;
                // The one batch of a large segment takes one sync.
                let (bytes, zeros) = if fits {
                    (self.segment_bytes, self.zeros)
                } else {
                    (large.max(self.segment_bytes), Zeros::Allocated)
                };
                let counter = self.next_counter()?;
                make_open(&self.directory, counter, bytes, zeros)?
            }
        };
        if segment.counter < self.unclosed {
            // It would be loaded before segments whose entries come first.
            if let Err(error) = self.housekeeping.settle() {
                self.housekeeping.put_back(segment);
                return Err(error);
            }
            self.unclosed = 0;
        }
        segment.first = first;
        Ok(segment)
    }

    pub(super) fn next_open_name(&mut self) -> Result<String, StorageError> {
        Ok(segment::open_name(self.next_counter()?))
    }

    fn next_counter(&mut self) -> Result<u64, StorageError> {
        if self.next_counter == 0 {
            let counters = list(&self.directory)?;
            let highest = counters
                .iter()
                .filter_map(|name| {
                    name.strip_prefix("tmp-").unwrap_or(name).strip_prefix("open-")?.parse::<u64>().ok()
                })
                .max();
            self.next_counter = highest.unwrap_or(0).saturating_add(1);
        }
        let counter = self.next_counter;
        self.next_counter = counter.saturating_add(1);
        Ok(counter)
    }
}

/// The closed segments of a directory, by first index.
fn closed(directory: &Directory) -> Result<Vec<ClosedSegment>, StorageError> {
    Ok(Catalogue::of(&directory.list()?).closed)
}

/// Removes closed segments from the oldest on while they end before `keep_from`; their bytes are erased later.
pub(super) fn remove_before(directory: &Directory, keep_from: LogIndex) -> Result<(), StorageError> {
    for segment in closed(directory)? {
        if segment.last >= keep_from {
            break;
        }
        take_name(directory, &segment.name)?;
    }
    sync_directory(directory)
}

/// Keeps the newest two snapshots, by term, index and time stamp; the bytes of others are erased later. spec: disk-format 5.4.
pub(super) fn remove_old_snapshots(directory: &Directory) -> Result<(), StorageError> {
    let mut snapshots: Vec<SnapshotName> =
        list(directory)?.iter().filter_map(|name| SnapshotName::parse_meta(name)).collect();
    snapshots.sort_unstable();
    let old = snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
    for name in &snapshots[..old] {
        remove_if_there(directory, directory.path().join(name.meta_name()))?;
        take_name(directory, &name.data_name())?;
    }
    sync_directory(directory)
}
