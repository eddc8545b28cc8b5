//! Finds the newest snapshot and the entries, closes what a crash left open, sets damaged segments aside.
//! After it there is no open segment. spec: disk-format 4.4, 7.3, 7.4.

use std::sync::Arc;

use bytes::Bytes;

use super::directory::{Directory, DirectoryLock};
use super::disk::OpenMode;
use super::error::{StorageError, StorageErrorKind};
use super::metadata::Metadata;
use super::segment::{self, SegmentName, closed_name, decode_closed, decode_open, parse_name};
use super::segment_content::{SegmentContent, SegmentFile};
use super::snapshot_meta::{SnapshotFile, SnapshotMeta, SnapshotName};
use crate::types::clock::WallClock;
use crate::types::config::LOG_TRAILING_MAX_BYTES;
use crate::types::payload::PayloadStore;
use crate::types::{Entry, LogIndex};

/// How a directory is loaded.
#[derive(Clone)]
pub struct LoadOptions {
    /// Whether damaged segments are set aside (`dqlite_node_set_auto_recovery`).
    pub auto_recovery: bool,
    /// Names the files that are set aside.
    pub wall_clock: Arc<dyn WallClock>,
    /// Where payloads go that need not be in memory. Without it they stay there.
    pub payloads: Option<Arc<dyn PayloadStore>>,
}

/// Content of a data directory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Term and vote.
    pub metadata: Metadata,
    /// Newest snapshot; its data is not read.
    pub snapshot: Option<SnapshotFile>,
    /// Index of the first of the entries, or of the next one if there are none.
    pub first_index: LogIndex,
    /// Entries behind the snapshot, and the newest of those that it contains: as many as a running node keeps in memory.
    pub entries: Vec<Entry>,
}

impl Loaded {
    /// Index of the last entry; that of the snapshot if there are no entries, 0 in an empty directory.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.first_index.plus(self.entries.len() as u64).previous()
    }
}

/// Loads the directory.
///
/// # Errors
/// Every damage that disk-format 7.5 answers with a failing start.
pub fn load(
    directory: &Directory,
    _lock: &DirectoryLock,
    options: &LoadOptions,
) -> Result<Loaded, StorageError> {
    load_without_lock(directory, options)
}

/// `load` for the one caller that takes no lock.
pub(super) fn load_without_lock(
    directory: &Directory,
    options: &LoadOptions,
) -> Result<Loaded, StorageError> {
    match load_once(directory, options) {
        // The failed pass may have set files aside; one more pass shows. spec: disk-format 7.3 step 6.
        Err(error) if options.auto_recovery && error.kind() == StorageErrorKind::Corrupt => {
            load_once(directory, options)
        }
        result => result,
    }
}

struct ClosedSegment {
    name: String,
    first: LogIndex,
    last: LogIndex,
    bytes: u64,
}

struct Listing {
    snapshot: Option<(SnapshotName, String, u64)>,
    closed: Vec<ClosedSegment>,
    open: Vec<String>,
}

fn load_once(directory: &Directory, options: &LoadOptions) -> Result<Loaded, StorageError> {
    let metadata = directory.read_metadata()?;
    let mut listing = list(directory)?;
    let snapshot = match listing.snapshot.take() {
        Some((name, data_name, data_bytes)) => {
            let meta_name = format!("{data_name}.meta");
            let meta = SnapshotMeta::decode(name, &directory.read(&meta_name)?)
                .map_err(|error| StorageError::SnapshotMeta { name: meta_name, error })?;
            Some(SnapshotFile { meta, data_name, data_bytes })
        }
        None => None,
    };
    let mut first_index = LogIndex(1);
    if let Some(snapshot) = &snapshot {
        filter_closed(&mut listing, snapshot)?;
        leave_out_covered(&mut listing, snapshot.meta.index);
        first_index = listing.closed.first().map_or(snapshot.meta.index.next(), |segment| segment.first);
    }
    let has_segments = !listing.closed.is_empty() || !listing.open.is_empty();
    let mut loaded = Loaded { metadata, snapshot, first_index, entries: Vec::new() };
    load_closed(directory, options, &listing, &mut loaded)?;
    load_open(directory, options, &listing, &mut loaded)?;
    if let Some(snapshot) = &loaded.snapshot
        && has_segments
        && loaded.last_index() < snapshot.meta.index
    {
        return Err(StorageError::BehindSnapshot {
            last: loaded.last_index(),
            snapshot: snapshot.meta.index,
        });
    }
    Ok(loaded)
}

fn list(directory: &Directory) -> Result<Listing, StorageError> {
    let files = directory.list()?;
    let mut closed = Vec::new();
    let mut open = Vec::new();
    let mut snapshot: Option<(SnapshotName, String, u64)> = None;
    for (name, bytes) in &files {
        match parse_name(name) {
            Some(SegmentName::Closed { first, last }) => {
                closed.push(ClosedSegment { name: name.clone(), first, last, bytes: *bytes });
            }
            Some(SegmentName::Open { counter }) => open.push((counter, name.clone())),
            None => {}
        }
        let Some(parsed) = SnapshotName::parse(name) else {
            continue;
        };
        let meta_name = format!("{name}.meta");
        // The files are sorted by name.
        let has_meta = files.binary_search_by(|(other, _)| other.as_str().cmp(&meta_name)).is_ok();
        if has_meta && *bytes > 0 && snapshot.as_ref().is_none_or(|(newest, ..)| *newest < parsed) {
            snapshot = Some((parsed, name.clone(), *bytes));
        }
    }
    closed.sort_by_key(|segment| (segment.first, segment.last));
    open.sort();
    Ok(Listing { snapshot, closed, open: open.into_iter().map(|(_, name)| name).collect() })
}

/// Leaves the closed segments that belong to the log of the snapshot. spec: disk-format 7.3 step 3.
fn filter_closed(listing: &mut Listing, snapshot: &SnapshotFile) -> Result<(), StorageError> {
    let Some(last) = listing.closed.last() else {
        return Ok(());
    };
    if last.last < snapshot.meta.index && listing.open.is_empty() {
        listing.closed.clear();
        return Ok(());
    }
    let is_gap = |pair: &[ClosedSegment]| matches!(pair, [a, b] if a.last.next() != b.first);
    let start = listing.closed.windows(2).rposition(is_gap).map_or(0, |position| position + 1);
    listing.closed.drain(..start);
    match listing.closed.first() {
        Some(first) if first.first > snapshot.meta.index.next() => Err(StorageError::PastSnapshot {
            segment: first.name.clone(),
            snapshot: snapshot.data_name.clone(),
        }),
        _ => Ok(()),
    }
}

/// Leaves out the oldest segments that nobody would keep in memory: the snapshot contains all their entries.
fn leave_out_covered(listing: &mut Listing, snapshot: LogIndex) {
    let covered = listing.closed.iter().take_while(|segment| segment.last <= snapshot).count();
    let mut bytes = 0;
    let newest_first = listing.closed[..covered].iter().rev();
    let kept = newest_first.take_while(|segment| {
        bytes += segment.bytes;
        bytes <= LOG_TRAILING_MAX_BYTES as u64
    });
    // One is read in any case: the term of its last entry is asked for.
    let kept = kept.count().max(1).min(covered);
    listing.closed.drain(..covered - kept);
}

/// The content of a segment: in memory, or where it lies.
fn open_content(directory: &Directory, options: &LoadOptions, name: &str) -> Result<Content, StorageError> {
    let Some(payloads) = &options.payloads else {
        return Ok(Content::Memory(directory.read(name)?));
    };
    let path = directory.file(name);
    let opened = directory.disk().open(&path, OpenMode::Read);
    let content = opened.and_then(|file| SegmentFile::new(file, payloads.clone()));
    content.map(Content::File).map_err(|source| StorageError::io("read", &path, source))
}

enum Content {
    Memory(Bytes),
    File(SegmentFile),
}

fn load_closed(
    directory: &Directory,
    options: &LoadOptions,
    listing: &Listing,
    loaded: &mut Loaded,
) -> Result<(), StorageError> {
    for (position, segment) in listing.closed.iter().enumerate() {
        let expected = loaded.first_index.plus(loaded.entries.len() as u64);
        if segment.first != expected {
            return Err(StorageError::UnexpectedSegment { name: segment.name.clone(), expected });
        }
        let count = segment.last.next().0.saturating_sub(segment.first.0);
        let decoded = match open_content(directory, options, &segment.name)? {
            Content::Memory(content) => decode_closed(&content, count),
            Content::File(content) => decode_closed(&content, count),
        };
        match decoded {
            Ok(entries) => loaded.entries.extend(entries),
            Err(error) => {
                if error.kind() == StorageErrorKind::Corrupt
                    && options.auto_recovery
                    && position + 1 == listing.closed.len()
                {
                    let open = listing.open.iter().map(String::as_str);
                    set_aside(directory, options, std::iter::once(segment.name.as_str()).chain(open))?;
                }
                return Err(StorageError::ClosedSegment { name: segment.name.clone(), error });
            }
        }
    }
    Ok(())
}

fn load_open(
    directory: &Directory,
    options: &LoadOptions,
    listing: &Listing,
    loaded: &mut Loaded,
) -> Result<(), StorageError> {
    for (position, name) in listing.open.iter().enumerate() {
        let (len, decoded) = match open_content(directory, options, name)? {
            Content::Memory(content) => {
                (content.len(), decode_open(&content).and_then(|good| release_tail(&content, good)))
            }
            Content::File(content) => (content.length(), decode_open(&content)),
        };
        match decoded {
            Ok(good) => {
                let first = loaded.last_index().next();
                close(directory, name, first, &good, len)?;
                loaded.entries.extend(good.entries);
            }
            Err(error) => {
                if error.kind() == StorageErrorKind::Corrupt && options.auto_recovery {
                    set_aside(directory, options, listing.open.iter().skip(position).map(String::as_str))?;
                }
                return Err(StorageError::OpenSegment { name: name.clone(), error });
            }
        }
    }
    Ok(())
}

/// The entries without the memory of the unused rest of the file, if that is the larger part.
fn release_tail(
    content: &Bytes,
    good: segment::OpenContent,
) -> Result<segment::OpenContent, super::error::SegmentError> {
    match content.get(..good.end) {
        Some(used) if good.end < content.len() / 2 => decode_open(&Bytes::copy_from_slice(used)),
        _ => Ok(good),
    }
}

/// Makes a closed segment of an open one, or removes it if it has no entries. spec: disk-format 4.4.
fn close(
    directory: &Directory,
    name: &str,
    first: LogIndex,
    good: &segment::OpenContent,
    len: usize,
) -> Result<(), StorageError> {
    if good.entries.is_empty() {
        directory.remove(name)?;
        return directory.sync();
    }
    let path = directory.file(name);
    let failed = |source| StorageError::io("close", &path, source);
    let mut file = directory.disk().open(&path, OpenMode::Write).map_err(failed)?;
    if good.end < len {
        file.set_len(good.end as u64).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    let last = first.plus(good.entries.len() as u64).previous();
    directory.rename(name, &closed_name(first, last))?;
    directory.sync()
}

/// Renames segments so that nothing reads them. spec: disk-format 7.4.
fn set_aside<'a>(
    directory: &Directory,
    options: &LoadOptions,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), StorageError> {
    let now = options.wall_clock.since_epoch().as_nanos();
    for name in names {
        directory.rename(name, &format!("corrupt-{now}-{name}"))?;
    }
    directory.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_segments_are_left_out_only_if_the_snapshot_contains_them_and_newer_ones_fill_the_bound() {
        let mib = 1 << 20;
        // Last index of each segment and its length.
        for (segments, snapshot, first_kept) in [
            (&[(10, 20 * mib), (20, 20 * mib), (30, 20 * mib), (40, 20 * mib)][..], 35, 30),
            (&[(10, 10 * mib), (20, 10 * mib), (30, 10 * mib), (40, 20 * mib)], 35, 10),
            (&[(10, 20 * mib), (20, 20 * mib)], 9, 10),
            (&[(10, 20 * mib), (20, 900 * mib)], 20, 20),
            (&[], 20, 0),
        ] {
            let closed = segments.iter().map(|(last, bytes)| ClosedSegment {
                name: String::new(),
                first: LogIndex(last - 9),
                last: LogIndex(*last),
                bytes: *bytes,
            });
            let mut listing = Listing { snapshot: None, closed: closed.collect(), open: Vec::new() };

            leave_out_covered(&mut listing, LogIndex(snapshot));

            assert_eq!(listing.closed.first().map_or(0, |segment| segment.last.0), first_kept);
        }
    }
}
