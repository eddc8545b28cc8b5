//! Reads the newest snapshot and the entries, and has closed what a crash left open and damaged segments set aside.
//! After it there is no open segment. spec: disk-format 4.4, 7.3, 7.4.

use std::sync::Arc;

use bytes::Bytes;

use super::catalogue::{Catalogue, FoundSnapshot};
use super::directory::{Directory, DirectoryLock};
use super::disk::OpenMode;
use super::error::{StorageError, StorageErrorKind};
use super::metadata::Metadata;
use super::segment::{self, decode_closed, decode_open};
use super::segment_content::{SegmentContent, SegmentFile};
use super::settle::{close_found, set_aside};
use super::snapshot_meta::{SnapshotFile, SnapshotMeta, meta_name_of};
use crate::types::clock::WallClock;
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

fn load_once(directory: &Directory, options: &LoadOptions) -> Result<Loaded, StorageError> {
    let metadata = directory.read_metadata()?;
    let mut catalogue = Catalogue::of(&directory.list()?);
    let snapshot = match catalogue.snapshot.take() {
        Some(FoundSnapshot { name, data_name, bytes }) => {
            let meta_name = meta_name_of(&data_name);
            let meta = SnapshotMeta::decode(name, &directory.read(&meta_name)?)
                .map_err(|error| StorageError::SnapshotMeta { name: meta_name, error })?;
            Some(SnapshotFile { meta, data_name, data_bytes: bytes })
        }
        None => None,
    };
    let mut first_index = LogIndex(1);
    if let Some(snapshot) = &snapshot {
        catalogue.keep_log_of(snapshot.meta.index, &snapshot.data_name)?;
        catalogue.leave_out_covered(snapshot.meta.index);
        first_index = catalogue.closed.first().map_or(snapshot.meta.index.next(), |segment| segment.first);
    }
    let has_segments = !catalogue.closed.is_empty() || !catalogue.open.is_empty();
    let mut loaded = Loaded { metadata, snapshot, first_index, entries: Vec::new() };
    load_closed(directory, options, &catalogue, &mut loaded)?;
    load_open(directory, options, &catalogue, &mut loaded)?;
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
    catalogue: &Catalogue,
    loaded: &mut Loaded,
) -> Result<(), StorageError> {
    for (position, segment) in catalogue.closed.iter().enumerate() {
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
                    && position + 1 == catalogue.closed.len()
                {
                    let open = catalogue.open.iter().map(String::as_str);
                    set_aside(
                        directory,
                        options.wall_clock.as_ref(),
                        std::iter::once(segment.name.as_str()).chain(open),
                    )?;
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
    catalogue: &Catalogue,
    loaded: &mut Loaded,
) -> Result<(), StorageError> {
    for (position, name) in catalogue.open.iter().enumerate() {
        let (len, decoded) = match open_content(directory, options, name)? {
            Content::Memory(content) => {
                (content.len(), decode_open(&content).and_then(|good| release_tail(&content, good)))
            }
            Content::File(content) => (content.length(), decode_open(&content)),
        };
        match decoded {
            Ok(good) => {
                let first = loaded.last_index().next();
                close_found(directory, name, first, &good, len)?;
                loaded.entries.extend(good.entries);
            }
            Err(error) => {
                if error.kind() == StorageErrorKind::Corrupt && options.auto_recovery {
                    set_aside(
                        directory,
                        options.wall_clock.as_ref(),
                        catalogue.open.iter().skip(position).map(String::as_str),
                    )?;
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
