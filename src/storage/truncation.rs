//! Shortening the log on disk, step by step so that upstream loads every state between. spec: disk-format 8.

use std::io::{self, IoSlice};

use bytes::Bytes;

use crate::types::LogIndex;

use super::catalogue::{Catalogue, ClosedSegment};
use super::checksum::crc32;
use super::directory::Directory;
use super::error::StorageError;
use super::log_segments::{LogSegments, Shortening};
use super::new_file::NewFile;
use super::segment::{self, FORMAT_WORD};

/// Bytes of an entry header.
const ENTRY_HEADER_BYTES: usize = 16;

impl LogSegments {
    /// Removes the entries from `index` on. spec: disk-format 8, the order that upstream loads at every step.
    pub(super) fn truncate_from(&mut self, index: LogIndex) -> Result<(), StorageError> {
        self.finish_shortening()?;
        self.close_current()?;
        for segment in self.closed()?.into_iter().rev() {
            if segment.last < index {
                break;
            }
            if segment.first >= index {
                self.directory.remove_if_there(&segment.name)?;
                self.directory.sync()?;
                continue;
            }
            let keep = index.0 - segment.first.0;
            if self.is_numbered_by_name_alone(&segment)? {
                return self.replace_first(&segment, keep);
            }
            // Damaged content is found before anything is renamed.
            shorten(&self.directory.read(&segment.name)?, keep)
                .map_err(|error| failed(&segment.name, error))?;
            let open_name = self.next_open_name()?;
            self.directory.rename(&segment.name, &open_name)?;
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
            self.directory.remove_if_there(&other.name)?;
        }
        self.directory.sync()?;
        let newest = Catalogue::of(&self.directory.list()?).snapshot;
        Ok(newest.is_some_and(|snapshot| segment.first <= snapshot.name.index))
    }

    /// Keeps the first `keep` entries of the first segment but one: its successor begins one entry later, so that the two
    /// are never taken for each other, and a load between the steps finds the successor alone. spec: disk-format 7.3, 3.
    fn replace_first(&mut self, segment: &ClosedSegment, keep: u64) -> Result<(), StorageError> {
        if keep > 1 {
            let content = self.directory.read(&segment.name)?;
            let shortened = shorten(&content, keep)
                .and_then(|content| without_first(content, keep))
                .map_err(|error| failed(&segment.name, error))?;
            let last = LogIndex(segment.first.0 + keep - 1);
            let name = segment::closed_name(segment.first.next(), last);
            // An earlier attempt may have come as far as this.
            if !self.directory.exists(&name)? {
                make(&self.directory, &name, &shortened)?.name()?;
            }
            self.directory.sync()?;
        }
        self.directory.remove_if_there(&segment.name)?;
        self.directory.sync()
    }

    /// Second half of a truncation: the segment is an open one; shorten and close it.
    fn finish_shortening(&mut self) -> Result<(), StorageError> {
        let Some(Shortening { open_name, first, keep }) = &self.shortening else { return Ok(()) };
        let last = LogIndex(first.0 + keep - 1);
        self.directory.sync()?;
        if self.directory.exists(open_name)? {
            let content = self.directory.read(open_name)?;
            let shortened = shorten(&content, *keep).map_err(|error| failed(open_name, error))?;
            make(&self.directory, open_name, &shortened)?.replace()?;
            self.directory.sync()?;
            self.directory.rename(open_name, &segment::closed_name(*first, last))?;
        }
        self.directory.sync()?;
        self.shortening = None;
        Ok(())
    }

    /// Whether a truncation stopped half-way.
    pub(super) fn is_shortening(&self) -> bool {
        self.shortening.is_some()
    }
}

fn failed(name: &str, error: io::Error) -> StorageError {
    StorageError::io("truncate segment", name, error)
}

/// A file of `content`, synced, that has no name yet.
fn make(directory: &Directory, name: &str, content: &[u8]) -> Result<NewFile, StorageError> {
    let mut file = NewFile::create(directory, name)?;
    file.write(&[IoSlice::new(content)]).map_err(|source| StorageError::io("write", name, source))?;
    Ok(file)
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
