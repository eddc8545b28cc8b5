//! The segments of the log on disk: prepared ahead, written to, closed, trimmed and truncated. spec: disk-format 4, 8, 13.
//!
//! Open segments that hold entries are in the order of their counters; the others are all zero. Every step leaves a state that
//! upstream loads, and a step that failed can be called again.

use std::sync::Arc;

use crate::types::LogIndex;
use crate::types::tasks::BlockingPool;

use super::catalogue::ClosedSegment;
use super::directory::{Directory, LockWatch, TEMPORARY_PREFIX};
use super::error::StorageError;
use super::housekeeping::{Done, Housekeeping, Job};
use super::open_segment::{Batch, FORMAT_BYTES, OpenSegment, close, make_open, room};
use super::removal::closed_segments;
use super::segment;
use super::snapshot::Sealed;
use super::space::Space;
use super::zeros::Zeros;

/// What a segment for one large batch has beyond the batch. spec: disk-format 13.
const LARGE_SEGMENT_MARGIN_BYTES: u64 = 4096;

/// A truncation that renamed its segment to an open one and has not closed it yet.
pub(super) struct Shortening {
    pub(super) open_name: String,
    pub(super) first: LogIndex,
    pub(super) keep: u64,
}

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
    space: Arc<Space>,
}

impl LogSegments {
    pub(super) fn new(
        directory: Directory,
        lock: LockWatch,
        segment_bytes: u64,
        pool: Arc<dyn BlockingPool>,
    ) -> LogSegments {
        let housekeeping = Housekeeping::new(directory.clone(), lock, pool);
        let space = Arc::new(Space::new(directory.clone()));
        LogSegments {
            directory,
            segment_bytes,
            next_counter: 0,
            current: None,
            shortening: None,
            housekeeping,
            unclosed: 0,
            zeros: Zeros::Written,
            space,
        }
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Space for what is to be written.
    pub(super) fn space(&self) -> Arc<Space> {
        Arc::clone(&self.space)
    }

    fn tell_space(&self) {
        let current = self.current.as_ref().map_or(0, OpenSegment::room_left);
        let prepared = self.housekeeping.prepared() as u64 * room(self.segment_bytes);
        self.space.set_allocated(current + prepared);
    }

    /// Has segments prepared until `count` are in reserve, and zeros written ahead of the entries.
    pub(super) fn prepare(&mut self, count: usize) -> Result<(), StorageError> {
        for _ in self.housekeeping.in_reserve()..count {
            let counter = self.next_counter()?;
            let zeros = self.zeros;
            self.housekeeping.submit(Job::Prepare { counter, bytes: self.segment_bytes, zeros });
        }
        if let Some(filling) = self.current.as_mut().and_then(OpenSegment::next_filling) {
            self.housekeeping.submit(Job::Fill(filling));
        }
        self.tell_space();
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
        let bytes = batches.iter().map(|batch| batch.bytes).sum();
        self.housekeeping.wait_until(|| current.is_free(bytes));
        let written = current.write(batches);
        self.tell_space();
        written
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

    /// Closes the segment that holds entries, gives a snapshot its names, removes the closed segments that end before `keep_from`,
    /// and old snapshots. `done` is called when that is durable; writing goes on meanwhile.
    pub(super) fn add_snapshot_later(
        &mut self,
        snapshot: Box<dyn Sealed>,
        keep_from: LogIndex,
        done: Done,
    ) -> Result<(), (Box<dyn Sealed>, Done, StorageError)> {
        let closed = match &self.current {
            Some(current) if current.in_doubt || current.used == 0 => self.close_current(),
            _ => self.close_current_later(),
        };
        if let Err(error) = closed {
            return Err((snapshot, done, error));
        }
        self.housekeeping.submit(Job::AddSnapshot { snapshot, keep_from, done });
        Ok(())
    }

    /// Ends the freeing of bytes in the background.
    pub(super) fn end_erasing(&self) {
        self.housekeeping.end_erasing();
    }

    /// Removes the prepared segments.
    pub(super) fn remove_unused(&mut self) -> Result<(), StorageError> {
        self.housekeeping.settle()?;
        while let Some(name) = self.housekeeping.first_prepared() {
            self.directory.remove_if_there(&name)?;
            self.housekeeping.forget_first_prepared();
        }
        self.directory.sync()
    }

    /// The closed segments, by first index.
    pub(super) fn closed(&self) -> Result<Vec<ClosedSegment>, StorageError> {
        closed_segments(&self.directory)
    }

    /// A segment with room for a first batch of `bytes`.
    fn take_segment(&mut self, bytes: u64, first: LogIndex) -> Result<OpenSegment, StorageError> {
        let mut segment = match self.housekeeping.take_prepared() {
            Some(segment) if segment.fits(0, bytes) => segment,
            unfit => {
                if let Some(segment) = unfit {
                    self.housekeeping.put_back(segment);
                    // One that is being prepared must not be empty when entries are behind it.
                    self.housekeeping.settle()?;
                }
                let needed = FORMAT_BYTES + bytes;
                let large = needed + LARGE_SEGMENT_MARGIN_BYTES;
                // The one batch of a large segment takes one sync.
                let (bytes, zeros) = if needed <= room(self.segment_bytes) {
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
            let files = self.directory.list()?;
            let highest = files
                .iter()
                .filter_map(|(name, _)| {
                    name.strip_prefix(TEMPORARY_PREFIX)
                        .unwrap_or(name)
                        .strip_prefix("open-")?
                        .parse::<u64>()
                        .ok()
                })
                .max();
            self.next_counter = highest.unwrap_or(0).saturating_add(1);
        }
        let counter = self.next_counter;
        self.next_counter = counter.saturating_add(1);
        Ok(counter)
    }
}
