//! An open segment: prepared, written to, closed. spec: disk-format 4.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use crate::types::config::PAYLOAD_WINDOW_BYTES;
use crate::types::{Chunk, Entry, LogIndex};

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use super::mark::{self, MARK_BYTES};
use super::segment::{self, FORMAT_WORD};
use super::zeros::{Filling, Zeros, fill};

/// Length of the format word.
pub(super) const FORMAT_BYTES: u64 = FORMAT_WORD.len() as u64;
/// Bytes of a batch before its entry headers: so many zeros behind the last batch tell a load that there is none.
const PREAMBLE_BYTES: u64 = 16;

/// Bytes for the format word and batches in a segment of `bytes`: at its end are zeros, and its mark.
pub(super) fn room(bytes: u64) -> u64 {
    bytes.saturating_sub(PREAMBLE_BYTES + MARK_BYTES as u64)
}

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
    zeros: Zeros,
    /// Zeros or entries were written up to here, or will be by `filling`.
    zeroed: u64,
    filling: Option<Filling>,
}

impl OpenSegment {
    /// Whether batches of `bytes` fit behind `position`.
    pub(super) fn fits(&self, position: u64, bytes: u64) -> bool {
        position.max(FORMAT_BYTES) + bytes <= room(self.reserved)
    }

    /// Bytes that it has room for.
    pub(super) fn room_left(&self) -> u64 {
        if self.in_doubt { 0 } else { room(self.reserved).saturating_sub(self.used.max(FORMAT_BYTES)) }
    }

    /// Writes batches that fit: one write, one sync. Returns the bytes written.
    /// After an error nothing of them counts, and the segment takes no more batches.
    pub(super) fn write(&mut self, batches: &[Batch<'_>]) -> Result<u64, StorageError> {
        assert!(!self.in_doubt, "segment {} is in doubt and must not be written to", self.name);
        let mut pieces =
            Pieces { file: self.file.as_mut(), offset: self.used, window: Vec::new(), stored: 0 };
        let first = if self.used == 0 { self.first } else { self.last.next() };
        self.in_doubt = true;
        if self.used == 0 {
            pieces.push(&FORMAT_WORD);
        }
        let failed = |source| StorageError::io("write to segment", &self.name, source);
        for batch in batches {
            pieces.push(&batch.prefix);
            for chunk in batch.entries.iter().flat_map(|entry| entry.data.chunks()) {
                match chunk {
                    Chunk::Memory(bytes) => pieces.push(bytes),
                    Chunk::Stored(stored) => {
                        if let Some(bytes) = stored.in_memory() {
                            pieces.push(bytes);
                            continue;
                        }
                        let read = Arc::clone(stored).read();
                        let bytes = read.map_err(|source| StorageError::Payload { first, source })?;
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
            self.write_mark();
        }
        self.used += bytes;
        self.last = self.last.plus(batches.iter().map(Batch::count).sum());
        Ok(bytes)
    }
}

impl OpenSegment {
    /// What is to be filled with zeros next, if anything.
    pub(super) fn next_filling(&mut self) -> Option<Filling> {
        if self.zeros == Zeros::Allocated || self.in_doubt {
            return None;
        }
        let filling = Filling::due(&self.name, self.used, self.zeroed, room(self.reserved))?;
        self.zeroed = filling.end();
        self.filling = Some(filling.clone());
        Some(filling)
    }

    /// Whether `bytes` may be written: nobody is about to fill that place with zeros.
    pub(super) fn is_free(&self, bytes: u64) -> bool {
        let end = self.used.max(FORMAT_BYTES) + bytes;
        self.filling.as_ref().is_none_or(|filling| filling.makes_way(end))
    }

    /// Says where the segment begins. It becomes durable with the next batches; without it a load counts as it always did.
    fn write_mark(&mut self) {
        let offset = self.reserved - MARK_BYTES as u64;
        let written = self.file.write_vectored_at(&[IoSlice::new(&mark::encode(self.first))], offset);
        if let Err(error) = written {
            tracing::debug!(%error, segment = self.name, "a segment does not say where it begins");
        }
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

/// Makes an open segment of `bytes` zeros. It gets its name when it is complete: a file of a few bytes stops upstream's start. Where a
/// file cannot be without a name, it is empty first and then has its length at once, which are both no entries to a load.
pub(super) fn make_open(
    directory: &Directory,
    counter: u64,
    bytes: u64,
    zeros: Zeros,
) -> Result<OpenSegment, StorageError> {
    let name = segment::open_name(counter);
    let failed = |source| StorageError::io("prepare segment", &name, source);
    let place = directory.place();
    let unnamed = place.create_unnamed().map_err(failed)?;
    let mut has_name = unnamed.is_none();
    let mut file = match unnamed {
        Some(file) => file,
        None => place.open(&name, OpenMode::CreateExclusive).map_err(failed)?,
    };
    let made = fill(file.as_mut(), bytes, zeros).and_then(|zeroed| {
        if !has_name {
            file.link(&name)?;
            has_name = true;
            // By the name that it has now: the system shows the other one as that of a removed file.
            file = place.open(&name, OpenMode::Write)?;
        }
        place.sync()?;
        Ok(zeroed)
    });
    // A name that is taken is another's.
    if made.is_err() && has_name {
        // Frees the space; the error that matters is the first, and what stays is an all-zero file.
        let _ = directory.remove_if_there(&name);
    }
    let zeroed = made.map_err(failed)?;
    let none = LogIndex::NONE;
    Ok(OpenSegment {
        name,
        counter,
        file,
        reserved: bytes,
        used: 0,
        first: none,
        last: none,
        in_doubt: false,
        syncs: 0,
        zeros,
        zeroed,
        filling: None,
    })
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
    match entries {
        None => directory.remove_if_there(name)?,
        Some((first, last)) => {
            cut().map_err(|source| StorageError::io("cut segment", name, source))?;
            directory.rename_unless_done(name, &segment::closed_name(first, last))?;
        }
    }
    directory.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file_disk::FileDisk;

    #[test]
    fn a_name_that_is_taken_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        std::fs::write(folder.path().join("open-7"), "another's").unwrap();

        let error = make_open(&directory, 7, 4096, Zeros::Written).map(drop).unwrap_err();

        assert!(error.to_string().contains("prepare segment open-7"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("open-7")).unwrap(), b"another's");
    }
}
