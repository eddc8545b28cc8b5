//! The segments of the log on disk: prepared ahead, written to, closed, trimmed and truncated. spec: disk-format 4, 8, 13.
//!
//! Open segments that hold entries are in the order of their counters; the others are all zero. Every step leaves a state that
//! upstream loads, and a step that failed can be called again.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::types::config::{PAYLOAD_WINDOW_BYTES, SYNC_BYTES_LARGE, WRITTEN_OUT_AT_ONCE_BYTES};
use crate::types::tasks::BlockingPool;
use crate::types::{Chunk, Entry, LogIndex};

use super::checksum::crc32;
use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use super::housekeeping::{Housekeeping, Job};
use super::log::Done;
use super::segment::{self, FORMAT_WORD, SegmentName};
use super::snapshot_meta::SnapshotName;

/// Length of the format word.
const FORMAT_BYTES: u64 = FORMAT_WORD.len() as u64;
/// Bytes of a batch before its entry headers; also what must be left after a batch that does not end the file.
const PREAMBLE_BYTES: u64 = 16;
/// Bytes of an entry header.
const ENTRY_HEADER_BYTES: usize = 16;
/// What a segment for one large batch has beyond the batch. spec: disk-format 13.
const LARGE_SEGMENT_MARGIN_BYTES: u64 = 4096;
/// Snapshots that stay. spec: disk-format 5.4.
const SNAPSHOTS_KEPT: usize = 2;
/// Zeros written at once while a segment is prepared.
const ZEROS: &[u8; 256 * 1024] = &[0; 256 * 1024];

/// A batch as it goes to disk: the bytes before the payloads, and the entries that own the payloads.
pub(super) struct Batch<'a> {
    prefix: Vec<u8>,
    entries: &'a [Entry],
    bytes: u64,
}

impl<'a> Batch<'a> {
    /// The batch of `entries`, at least one and at most 262 144.
    pub(super) fn new(entries: &'a [Entry]) -> io::Result<Batch<'a>> {
        let prefix = segment::encode_batch_prefix(entries)?;
        let payload: usize = entries.iter().map(|entry| entry.data.len()).sum();
        Ok(Batch { bytes: (prefix.len() + payload) as u64, prefix, entries })
    }

    /// How many entries.
    pub(super) fn count(&self) -> u64 {
        self.entries.len() as u64
    }
}

/// A closed segment, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosedSegment {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    name: String,
}

/// An open segment.
pub(super) struct OpenSegment {
    pub(super) name: String,
    /// The number in its name: segments with entries are loaded in this order.
    counter: u64,
    file: Box<dyn DiskFile>,
    /// Length of the file.
    reserved: u64,
    /// Bytes up to the end of the last batch that was synced; 0 without one.
    used: u64,
    first: LogIndex,
    last: LogIndex,
    /// A write or sync failed: nothing behind `used` counts.
    in_doubt: bool,
    syncs: u64,
}

impl OpenSegment {
    /// Whether batches of `bytes` fit behind `position` without leaving 1 to 15 bytes.
    fn fits(&self, position: u64, bytes: u64) -> bool {
        let end = position.max(FORMAT_BYTES) + bytes;
        end == self.reserved || end + PREAMBLE_BYTES <= self.reserved
    }
}

/// A piece of a batch, read for it or in memory anyway.
enum Piece<'a> {
    Borrowed(&'a [u8]),
    Read(Bytes),
}

/// Bytes on their way to a segment: those that lie in memory anyway all at once, others window by window.
struct Pieces<'a> {
    file: &'a mut dyn DiskFile,
    offset: u64,
    window: Vec<Piece<'a>>,
    /// Bytes of the window that were read for it.
    stored: usize,
}

impl<'a> Pieces<'a> {
    fn push(&mut self, bytes: &'a [u8]) {
        self.window.push(Piece::Borrowed(bytes));
    }

    /// Takes bytes that were read; whether the window is full then.
    fn push_read(&mut self, bytes: Bytes) -> bool {
        self.stored += bytes.len();
        self.window.push(Piece::Read(bytes));
        self.stored >= PAYLOAD_WINDOW_BYTES
    }

    fn flush(&mut self) -> io::Result<()> {
        let slices = self.window.iter().map(|piece| match piece {
            Piece::Borrowed(bytes) => IoSlice::new(bytes),
            Piece::Read(bytes) => IoSlice::new(bytes),
        });
        let slices: Vec<IoSlice<'_>> = slices.filter(|slice| !slice.is_empty()).collect();
        self.file.write_vectored_at(&slices, self.offset)?;
        self.offset += slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
        self.window.clear();
        self.stored = 0;
        Ok(())
    }
}

/// How a segment gets the zeros that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    /// They are written: the syncs of entries are the fastest then.
    Written,
    /// The file system gives them: half as much is written.
    Allocated,
}

impl Zeros {
    /// What suits the segments to come after one with `bytes` in `syncs`. Pure.
    fn after(bytes: u64, syncs: u64) -> Zeros {
        if bytes / syncs.max(1) >= SYNC_BYTES_LARGE { Zeros::Allocated } else { Zeros::Written }
    }
}

/// A truncation that renamed its segment to an open one and has not closed it yet.
struct Shortening {
    open_name: String,
    first: LogIndex,
    keep: u64,
}

/// The segments of one directory.
pub(super) struct LogSegments {
    directory: Directory,
    segment_bytes: u64,
    /// Counter of the next open segment; 0 until the directory was looked at.
    next_counter: u64,
    current: Option<OpenSegment>,
    shortening: Option<Shortening>,
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
        assert!(!current.in_doubt, "segment {} is in doubt and must not be written to", current.name);
        let mut pieces =
            Pieces { file: current.file.as_mut(), offset: current.used, window: Vec::new(), stored: 0 };
        let path = || self.directory.path().join(&current.name);
        let first = if current.used == 0 { current.first } else { current.last.next() };
        current.in_doubt = true;
        if current.used == 0 {
            pieces.push(&FORMAT_WORD);
        }
        let failed = |error| failed("write to segment", path(), error);
        for batch in batches {
            pieces.push(&batch.prefix);
            for chunk in batch.entries.iter().flat_map(|entry| entry.data.chunks()) {
                match chunk {
                    Chunk::Memory(bytes) => pieces.push(bytes),
                    Chunk::Stored(stored) => {
                        let bytes =
                            stored.read().map_err(|source| StorageError::Payload { first, source })?;
                        if pieces.push_read(bytes) {
                            pieces.flush().map_err(failed)?;
                        }
                    }
                }
            }
        }
        pieces.flush().map_err(failed)?;
        let bytes = pieces.offset - current.used;
        current.file.sync_data().map_err(failed)?;
        current.in_doubt = false;
        current.syncs += 1;
        if current.used == 0 {
            current.last = current.first.previous();
        }
        current.used += bytes;
        current.last = current.last.plus(batches.iter().map(Batch::count).sum());
        Ok(bytes)
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

    /// Removes the entries from `index` on. spec: disk-format 8, the order that upstream loads at every step.
    pub(super) fn truncate_from(&mut self, index: LogIndex) -> Result<(), StorageError> {
        self.finish_shortening()?;
        self.close_current()?;
        for segment in self.closed()?.into_iter().rev() {
            if segment.last < index {
                break;
            }
            let path = self.directory.path().join(&segment.name);
            if segment.first >= index {
                remove_if_there(&self.directory, path)?;
                sync_directory(&self.directory)?;
                continue;
            }
            let keep = index.0 - segment.first.0;
            if self.is_numbered_by_name_alone(&segment)? {
                return self.replace_first(&segment, keep);
            }
            // Damaged content is found before anything is renamed.
            shorten(&read_whole(&self.directory, path.clone())?, keep)
                .map_err(|error| failed("truncate segment", path.clone(), error))?;
            let open_name = self.next_open_name()?;
            rename(&self.directory, path, self.directory.path().join(&open_name))?;
            self.shortening = Some(Shortening { open_name, first: segment.first, keep });
            self.finish_shortening()?;
        }
        Ok(())
    }

    /// Whether this segment, were it an open one, would be loaded with other indexes: no closed one before it says where
    /// it begins, and the snapshot ends elsewhere. spec: disk-format 7.3. Segments before a gap, which nobody loads, go.
    fn is_numbered_by_name_alone(&self, segment: &ClosedSegment) -> Result<bool, StorageError> {
        let earlier: Vec<ClosedSegment> =
            self.closed()?.into_iter().filter(|other| other.first < segment.first).collect();
        if earlier.iter().any(|other| other.last.next() == segment.first) {
            return Ok(false);
        }
        for other in earlier {
            remove_if_there(&self.directory, self.directory.path().join(&other.name))?;
        }
        sync_directory(&self.directory)?;
        let names = list(&self.directory)?;
        let has = |name: &str| names.iter().any(|other| other == name);
        let snapshots = names.iter().filter_map(|name| SnapshotName::parse_meta(name));
        let newest = snapshots.filter(|name| has(&name.data_name())).max();
        Ok(newest.is_some_and(|name| segment.first <= name.index))
    }

    /// Keeps the first `keep` entries of the first segment but one: its successor begins one entry later, so that the two
    /// are never taken for each other, and a load between the steps finds the successor alone. spec: disk-format 7.3, 3.
    fn replace_first(&mut self, segment: &ClosedSegment, keep: u64) -> Result<(), StorageError> {
        let old = self.directory.path().join(&segment.name);
        if keep > 1 {
            let content = read_whole(&self.directory, old.clone())?;
            let shortened = shorten(&content, keep)
                .and_then(|content| without_first(content, keep))
                .map_err(|error| failed("truncate segment", old.clone(), error))?;
            let last = LogIndex(segment.first.0 + keep - 1);
            let name = segment::closed_name(segment.first.next(), last);
            let temporary = self.directory.path().join(format!("tmp-{name}"));
            make_file(&self.directory, temporary.clone(), &shortened)?;
            rename(&self.directory, temporary, self.directory.path().join(name))?;
            sync_directory(&self.directory)?;
        }
        remove_if_there(&self.directory, old)?;
        sync_directory(&self.directory)
    }

    /// Second half of a truncation: the segment is an open one; shorten and close it.
    fn finish_shortening(&mut self) -> Result<(), StorageError> {
        let Some(Shortening { open_name, first, keep }) = &self.shortening else { return Ok(()) };
        let open = self.directory.path().join(open_name);
        let last = LogIndex(first.0 + keep - 1);
        let closed = self.directory.path().join(segment::closed_name(*first, last));
        sync_directory(&self.directory)?;
        if exists(&self.directory, &open)? {
            let content = read_whole(&self.directory, open.clone())?;
            let shortened =
                shorten(&content, *keep).map_err(|error| failed("truncate segment", open.clone(), error))?;
            let temporary = self.directory.path().join(format!("tmp-{open_name}"));
            make_file(&self.directory, temporary.clone(), &shortened)?;
            rename(&self.directory, temporary, open.clone())?;
            sync_directory(&self.directory)?;
            rename(&self.directory, open, closed)?;
        }
        sync_directory(&self.directory)?;
        self.shortening = None;
        Ok(())
    }

    /// Whether a truncation stopped half-way.
    pub(super) fn is_shortening(&self) -> bool {
        self.shortening.is_some()
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

    fn next_open_name(&mut self) -> Result<String, StorageError> {
        Ok(open_name(self.next_counter()?))
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

fn open_name(counter: u64) -> String {
    format!("open-{counter}")
}

/// Makes an open segment of `bytes` zeros. It gets its name when it is complete: a file of a few bytes stops upstream's
/// start, a `tmp-` file does not.
pub(super) fn make_open(
    directory: &Directory,
    counter: u64,
    bytes: u64,
    zeros: Zeros,
) -> Result<OpenSegment, StorageError> {
    let name = open_name(counter);
    let path = directory.path().join(&name);
    let temporary = directory.path().join(format!("tmp-{name}"));
    let made = fill(directory, temporary.clone(), bytes, zeros).and_then(|file| {
        rename(directory, temporary.clone(), path.clone())?;
        sync_directory(directory)?;
        Ok(file)
    });
    if made.is_err() {
        // Frees the space; the error that matters is the first, and what stays is an ignored or all-zero file.
        let _ = directory.disk().remove(&temporary);
        let _ = directory.disk().remove(&path);
    }
    let none = LogIndex::NONE;
    Ok(OpenSegment {
        name,
        counter,
        file: made?,
        reserved: bytes,
        used: 0,
        first: none,
        last: none,
        in_doubt: false,
        syncs: 0,
    })
}

fn fill(
    directory: &Directory,
    path: PathBuf,
    bytes: u64,
    zeros: Zeros,
) -> Result<Box<dyn DiskFile>, StorageError> {
    let fill = || {
        let mut file = directory.disk().open(&path, OpenMode::CreateExclusive)?;
        let allocated = zeros == Zeros::Allocated && file.allocate(bytes)?;
        let mut offset = if allocated { bytes } else { 0 };
        while offset < bytes {
            let length = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_vectored_at(&[IoSlice::new(&ZEROS[..length])], offset)?;
            offset += length as u64;
            // The syncs of entries must not wait behind all of it.
            if offset.is_multiple_of(WRITTEN_OUT_AT_ONCE_BYTES) {
                file.sync_data()?;
            }
        }
        file.sync_all()?;
        Ok(file)
    };
    fill().map_err(|error| failed("prepare segment", path.clone(), error))
}

/// Closes a segment, cut to its last synced batch; removes it if it holds none. Can be called again after an error.
pub(super) fn close(directory: &Directory, segment: &mut OpenSegment) -> Result<(), StorageError> {
    let path = directory.path().join(&segment.name);
    if segment.used == 0 {
        remove_if_there(directory, path)?;
    } else {
        // Whatever a failed write left behind `used` goes with this.
        segment
            .file
            .set_len(segment.used)
            .and_then(|()| segment.file.sync_all())
            .map_err(|error| failed("cut segment", path.clone(), error))?;
        segment.reserved = segment.used;
        segment.in_doubt = true;
        let closed = directory.path().join(segment::closed_name(segment.first, segment.last));
        rename_unless_done(directory, path, closed)?;
    }
    sync_directory(directory)
}

/// The closed segments of a directory, by first index.
fn closed(directory: &Directory) -> Result<Vec<ClosedSegment>, StorageError> {
    let mut closed: Vec<ClosedSegment> = list(directory)?.into_iter().filter_map(parse_closed_name).collect();
    closed.sort_by_key(|segment| (segment.first, segment.last));
    Ok(closed)
}

/// Removes closed segments from the oldest on while they end before `keep_from`.
pub(super) fn remove_before(directory: &Directory, keep_from: LogIndex) -> Result<(), StorageError> {
    for segment in closed(directory)? {
        if segment.last >= keep_from {
            break;
        }
        remove_if_there(directory, directory.path().join(&segment.name))?;
    }
    sync_directory(directory)
}

/// Keeps the newest two snapshots, by term, index and time stamp. spec: disk-format 5.4.
pub(super) fn remove_old_snapshots(directory: &Directory) -> Result<(), StorageError> {
    let mut snapshots: Vec<SnapshotName> =
        list(directory)?.iter().filter_map(|name| SnapshotName::parse_meta(name)).collect();
    snapshots.sort_unstable();
    let old = snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
    for name in &snapshots[..old] {
        remove_if_there(directory, directory.path().join(name.meta_name()))?;
        remove_if_there(directory, directory.path().join(name.data_name()))?;
    }
    sync_directory(directory)
}

/// The first `keep` entries of a segment's content, complete batches as they are, the last one cut.
fn shorten(content: &[u8], keep: u64) -> io::Result<Vec<u8>> {
    let damaged = |what: &str, offset: usize| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{what} of the batch at byte {offset}, {keep} entries are kept"),
        )
    };
    if content.get(..8) != Some(FORMAT_WORD.as_slice()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "format word is not 1"));
    }
    let mut offset = 8;
    let mut left = keep;
    let mut out = Vec::with_capacity(content.len());
    out.extend_from_slice(&FORMAT_WORD);
    while left > 0 {
        let rest = content.get(offset..).ok_or_else(|| damaged("missing start", offset))?;
        let preamble = rest.get(..16).ok_or_else(|| damaged("truncated start", offset))?;
        let count = u64_at(preamble, 8);
        let headers_bytes = usize::try_from(count)
            .ok()
            .filter(|count| *count > 0 && *count <= rest.len() / ENTRY_HEADER_BYTES)
            .map(|count| count * ENTRY_HEADER_BYTES)
            .ok_or_else(|| damaged("impossible entry count", offset))?;
        let headers = rest.get(16..16 + headers_bytes).ok_or_else(|| damaged("truncated headers", offset))?;
        let lengths: Vec<usize> =
            headers.chunks_exact(ENTRY_HEADER_BYTES).map(|header| u32_at(header, 12) as usize).collect();
        let data_start = 16 + headers_bytes;
        let data_bytes: usize = lengths.iter().sum();
        let data = rest
            .get(data_start..data_start + data_bytes)
            .ok_or_else(|| damaged("truncated payloads", offset))?;
        if crc32(crc32(0, &rest[8..16]), headers) != u32_at(preamble, 0)
            || crc32(0, data) != u32_at(preamble, 4)
        {
            return Err(damaged("wrong checksum", offset));
        }
        if count <= left {
            out.extend_from_slice(&rest[..data_start + data_bytes]);
            offset += data_start + data_bytes;
            left -= count;
        } else {
            let kept = usize::try_from(left).expect("less than the count of entries in memory");
            let headers = &headers[..kept * ENTRY_HEADER_BYTES];
            let data = &data[..lengths[..kept].iter().sum::<usize>()];
            out.extend_from_slice(&crc32(crc32(0, &left.to_le_bytes()), headers).to_le_bytes());
            out.extend_from_slice(&crc32(0, data).to_le_bytes());
            out.extend_from_slice(&left.to_le_bytes());
            out.extend_from_slice(headers);
            out.extend_from_slice(data);
            left = 0;
        }
    }
    Ok(out)
}

/// The entries of a segment's content but the first, in one batch.
fn without_first(content: Vec<u8>, count: u64) -> io::Result<Vec<u8>> {
    let entries = segment::decode_closed(&Bytes::from(content), count)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let mut out = FORMAT_WORD.to_vec();
    for batch in entries.get(1..).unwrap_or_default().chunks(segment::BATCH_ENTRIES_MAX) {
        out.extend_from_slice(&segment::encode_batch_prefix(batch)?);
        for chunk in batch.iter().flat_map(|entry| entry.data.chunks()) {
            out.extend_from_slice(&chunk.read()?);
        }
    }
    Ok(out)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("a slice of 8 bytes"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("a slice of 4 bytes"))
}

fn parse_closed_name(name: String) -> Option<ClosedSegment> {
    match segment::parse_name(&name)? {
        SegmentName::Closed { first, last } => Some(ClosedSegment { first, last, name }),
        SegmentName::Open { .. } => None,
    }
}

// ---- one file operation each, with the path in the error ----

pub(super) fn failed(operation: &'static str, path: PathBuf, error: io::Error) -> StorageError {
    StorageError::io(operation, &path, error)
}

pub(super) fn list(directory: &Directory) -> Result<Vec<String>, StorageError> {
    let found = directory.disk().list(directory.path());
    let found = found.map_err(|error| failed("list directory", directory.path().to_path_buf(), error))?;
    Ok(found.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name).collect())
}

pub(super) fn sync_directory(directory: &Directory) -> Result<(), StorageError> {
    let synced = directory.disk().sync_directory(directory.path());
    synced.map_err(|error| failed("sync directory", directory.path().to_path_buf(), error))
}

pub(super) fn rename(directory: &Directory, from: PathBuf, to: PathBuf) -> Result<(), StorageError> {
    directory.disk().rename(&from, &to).map_err(|error| failed("rename", from, error))
}

pub(super) fn exists(directory: &Directory, path: &Path) -> Result<bool, StorageError> {
    match directory.disk().stat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("stat", path.to_path_buf(), error)),
    }
}

/// A rename that may have happened before its directory could not be synced.
fn rename_unless_done(directory: &Directory, from: PathBuf, to: PathBuf) -> Result<(), StorageError> {
    if !exists(directory, &from)? && exists(directory, &to)? {
        return Ok(());
    }
    rename(directory, from, to)
}

pub(super) fn remove_if_there(directory: &Directory, path: PathBuf) -> Result<(), StorageError> {
    match directory.disk().remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes a file of `content`, synced; replaces one left by an earlier attempt.
pub(super) fn make_file(directory: &Directory, path: PathBuf, content: &[u8]) -> Result<(), StorageError> {
    remove_if_there(directory, path.clone())?;
    let make = || {
        let mut file = directory.disk().open(&path, OpenMode::CreateExclusive)?;
        file.write_vectored_at(&[IoSlice::new(content)], 0)?;
        file.sync_all()
    };
    make().map_err(|error| failed("write", path.clone(), error))
}

/// The content of a file that this library wrote or loaded.
fn read_whole(directory: &Directory, path: PathBuf) -> Result<Vec<u8>, StorageError> {
    let read = || {
        let file = directory.disk().open(&path, OpenMode::Read)?;
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut content = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut content[filled..], filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(content)
    };
    read().map_err(|error| failed("read", path.clone(), error))
}
