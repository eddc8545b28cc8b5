//! An open segment: prepared, written to, closed. spec: disk-format 4.

use std::io::{self, IoSlice};
use std::path::PathBuf;

use bytes::Bytes;

use crate::types::config::{PAYLOAD_WINDOW_BYTES, SYNC_BYTES_LARGE, WRITTEN_OUT_AT_ONCE_BYTES};
use crate::types::{Chunk, Entry, LogIndex};

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use super::operations::{failed, remove_if_there, rename, rename_unless_done, sync_directory};
use super::segment::{self, FORMAT_WORD};

/// Length of the format word.
pub(super) const FORMAT_BYTES: u64 = FORMAT_WORD.len() as u64;
/// Bytes of a batch before its entry headers; also what must be left after a batch that does not end the file.
pub(super) const PREAMBLE_BYTES: u64 = 16;
/// Zeros written at once while a segment is prepared.
const ZEROS: &[u8; 256 * 1024] = &[0; 256 * 1024];

/// A batch as it goes to disk: the bytes before the payloads, and the entries that own the payloads.
pub(super) struct Batch<'a> {
    prefix: Vec<u8>,
    entries: &'a [Entry],
    pub(super) bytes: u64,
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

/// An open segment.
pub(super) struct OpenSegment {
    pub(super) name: String,
    /// The number in its name: segments with entries are loaded in this order.
    pub(super) counter: u64,
    file: Box<dyn DiskFile>,
    /// Length of the file.
    pub(super) reserved: u64,
    /// Bytes up to the end of the last batch that was synced; 0 without one.
    pub(super) used: u64,
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    /// A write or sync failed: nothing behind `used` counts.
    pub(super) in_doubt: bool,
    pub(super) syncs: u64,
}

impl OpenSegment {
    /// Whether batches of `bytes` fit behind `position` without leaving 1 to 15 bytes.
    pub(super) fn fits(&self, position: u64, bytes: u64) -> bool {
        let end = position.max(FORMAT_BYTES) + bytes;
        end == self.reserved || end + PREAMBLE_BYTES <= self.reserved
    }

    /// Writes batches that fit: one write, one sync. Returns the bytes written.
    /// After an error nothing of them counts, and the segment takes no more batches.
    pub(super) fn write(
        &mut self,
        directory: &Directory,
        batches: &[Batch<'_>],
    ) -> Result<u64, StorageError> {
        assert!(!self.in_doubt, "segment {} is in doubt and must not be written to", self.name);
        let mut pieces =
            Pieces { file: self.file.as_mut(), offset: self.used, window: Vec::new(), stored: 0 };
        let path = || directory.path().join(&self.name);
        let first = if self.used == 0 { self.first } else { self.last.next() };
        self.in_doubt = true;
        if self.used == 0 {
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
        let bytes = pieces.offset - self.used;
        self.file.sync_data().map_err(failed)?;
        self.in_doubt = false;
        self.syncs += 1;
        if self.used == 0 {
            self.last = self.first.previous();
        }
        self.used += bytes;
        self.last = self.last.plus(batches.iter().map(Batch::count).sum());
        Ok(bytes)
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
    pub(super) fn after(bytes: u64, syncs: u64) -> Zeros {
        if bytes / syncs.max(1) >= SYNC_BYTES_LARGE { Zeros::Allocated } else { Zeros::Written }
    }
}

/// Makes an open segment of `bytes` zeros. It gets its name when it is complete: a file of a few bytes stops upstream's
/// start, a `tmp-` file does not.
pub(super) fn make_open(
    directory: &Directory,
    counter: u64,
    bytes: u64,
    zeros: Zeros,
) -> Result<OpenSegment, StorageError> {
    let name = segment::open_name(counter);
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
    let OpenSegment { name, file, reserved, used, in_doubt, first, last, .. } = segment;
    close_file(directory, name, (*used > 0).then_some((*first, *last)), || {
        // Whatever a failed write left behind `used` goes with this.
        file.set_len(*used)?;
        file.sync_all()?;
        *reserved = *used;
        *in_doubt = true;
        Ok(())
    })
}

/// Gives an open segment its final name, that of its first and last entry; removes it if it has none. `cut` takes away what
/// is behind them, durably. Can be called again after an error. spec: disk-format 4.4.
pub(super) fn close_file(
    directory: &Directory,
    name: &str,
    entries: Option<(LogIndex, LogIndex)>,
    cut: impl FnOnce() -> io::Result<()>,
) -> Result<(), StorageError> {
    let path = directory.path().join(name);
    match entries {
        None => remove_if_there(directory, path)?,
        Some((first, last)) => {
            cut().map_err(|error| failed("cut segment", path.clone(), error))?;
            let closed = directory.path().join(segment::closed_name(first, last));
            rename_unless_done(directory, path, closed)?;
        }
    }
    sync_directory(directory)
}
