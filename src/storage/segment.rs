//! Names and bytes of segments: a format word, then batches of entries. spec: disk-format 4.1, 4.4.

use std::io;

use bytes::Bytes;

use super::checksum::crc32;
use super::error::{BatchError, SegmentError};
use super::mark::{self, MARK_BYTES};
use super::segment_content::SegmentContent;
use crate::types::{Entry, EntryKind, LogIndex, Term};

/// First 8 bytes of a segment.
pub const FORMAT_WORD: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// Entries in a batch at most.
pub const BATCH_ENTRIES_MAX: usize = 262_144;

/// Checksums and count in front of a batch.
const PREAMBLE_BYTES: usize = 16;

/// Header of an entry.
const ENTRY_HEADER_BYTES: usize = 16;

/// Digits of a number in the name of a closed segment.
const NAME_DIGITS: usize = 16;

/// What the name of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    /// Complete and immutable.
    Closed {
        /// Index of the first entry.
        first: LogIndex,
        /// Index of the last entry.
        last: LogIndex,
    },
    /// Being written, or left by a crash.
    Open {
        /// Order among the open ones.
        counter: u64,
    },
}

/// Name of a closed segment.
#[must_use]
pub fn closed_name(first: LogIndex, last: LogIndex) -> String {
    format!("{:0width$}-{:0width$}", first.0, last.0, width = NAME_DIGITS)
}

/// Name of an open segment.
#[must_use]
pub fn open_name(counter: u64) -> String {
    format!("open-{counter}")
}

/// What a file name says; `None` if it is not that of a segment. Leading zeros are not required.
#[must_use]
pub fn parse_name(name: &str) -> Option<SegmentName> {
    if let Some(counter) = name.strip_prefix("open-") {
        return Some(SegmentName::Open { counter: parse_number(counter)? });
    }
    let (first, last) = name.split_once('-')?;
    if first.len() > NAME_DIGITS || last.len() > NAME_DIGITS {
        return None;
    }
    Some(SegmentName::Closed { first: LogIndex(parse_number(first)?), last: LogIndex(parse_number(last)?) })
}

/// A number of decimal digits only, without a sign.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Everything of a batch before the payloads: checksums, count, entry headers. The chunks of the payloads follow
/// unchanged.
///
/// # Errors
/// A payload that is not in memory cannot be read.
///
/// # Panics
/// If there is no entry, more than `BATCH_ENTRIES_MAX`, or a payload that is not a multiple of 8 or reaches 4 GiB:
/// the callers have checked that.
pub fn encode_batch_prefix(entries: &[Entry]) -> io::Result<Vec<u8>> {
    assert!((1..=BATCH_ENTRIES_MAX).contains(&entries.len()), "a batch holds 1 to 262144 entries");
    let mut prefix = Vec::with_capacity(PREAMBLE_BYTES + ENTRY_HEADER_BYTES * entries.len());
    prefix.extend_from_slice(&[0; 8]);
    prefix.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let mut data_checksum = 0;
    for entry in entries {
        assert!(entry.data.len().is_multiple_of(8), "entry payloads are multiples of 8");
        let len = u32::try_from(entry.data.len()).expect("ENTRY_MAX_BYTES is below 4 GiB");
        prefix.extend_from_slice(&entry.term.0.to_le_bytes());
        prefix.extend_from_slice(&[entry.kind as u8, 0, 0, 0]);
        prefix.extend_from_slice(&len.to_le_bytes());
        for chunk in entry.data.chunks() {
            data_checksum = crc32(data_checksum, &chunk.read()?);
        }
    }
    let (checksums, header) = prefix.split_at_mut(8);
    let header_checksum = crc32(0, header);
    let (first, second) = checksums.split_at_mut(4);
    first.copy_from_slice(&header_checksum.to_le_bytes());
    second.copy_from_slice(&data_checksum.to_le_bytes());
    Ok(prefix)
}

/// A batch that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its entries; the payloads are wherever the content leaves them.
    pub entries: Vec<Entry>,
    /// Offset behind it.
    pub end: usize,
}

/// Reads the batch at `offset` of a segment's content. Order of checks: disk-format 4.4.
///
/// # Errors
/// See `BatchError`.
pub fn decode_batch<C: SegmentContent>(content: &C, offset: usize) -> Result<Batch, BatchError> {
    let mut reader = BatchReader { content, position: offset };
    let checksums = reader.take("preamble", 8)?;
    let count_bytes = reader.take("preamble", 8)?;
    let header_checksum = u32_at(&checksums, 0);
    let data_checksum = u32_at(&checksums, 4);
    let count = u64_at(&count_bytes, 0);
    if count == 0 {
        return Err(BatchError::ZeroCount);
    }
    if count > BATCH_ENTRIES_MAX as u64 {
        return Err(BatchError::TooManyEntries(count));
    }
    let headers = reader.take("header", count * ENTRY_HEADER_BYTES as u64)?;
    if crc32(crc32(0, &count_bytes), &headers) != header_checksum {
        return Err(BatchError::HeaderChecksum);
    }
    let mut parsed = Vec::with_capacity(headers.len() / ENTRY_HEADER_BYTES);
    let mut data_len = 0u64;
    for header in headers.as_chunks::<ENTRY_HEADER_BYTES>().0 {
        let kind = EntryKind::from_number(header[8]).ok_or(BatchError::EntryType(header[8]))?;
        let len = u32_at(header, 12);
        data_len += u64::from(len);
        parsed.push((Term(u64_at(header, 0)), kind, len as usize));
    }
    let start = reader.position;
    let end = start + reader.check("data", data_len)?;
    if content.checksum(start, end - start)? != data_checksum {
        return Err(BatchError::DataChecksum);
    }
    if parsed.iter().any(|(_, _, len)| !len.is_multiple_of(8)) {
        return Err(BatchError::Unaligned);
    }
    let mut position = start;
    let mut entries = Vec::with_capacity(parsed.len());
    for (term, kind, len) in parsed {
        entries.push(Entry { term, kind, data: content.payload(position, len)?, proposals: None });
        position += len;
    }
    reader.position = end;
    Ok(Batch { entries, end: reader.position })
}

/// Reads the content of a closed segment: all of it is batches, and together they hold `expected` entries.
///
/// # Errors
/// See `SegmentError`.
pub fn decode_closed<C: SegmentContent>(content: &C, expected: u64) -> Result<Vec<Entry>, SegmentError> {
    if content.length() == 0 {
        return Err(SegmentError::Empty);
    }
    let format = format_of(content)?;
    if format != 1 {
        return Err(SegmentError::Format(format));
    }
    let mut entries = Vec::new();
    let mut offset = FORMAT_WORD.len();
    let mut number = 0;
    // A closed segment has at least one batch.
    loop {
        number += 1;
        let batch =
            decode_batch(content, offset).map_err(|error| SegmentError::Batch { number, offset, error })?;
        entries.extend(batch.entries);
        offset = batch.end;
        if offset == content.length() {
            break;
        }
    }
    let found = entries.len() as u64;
    if found != expected {
        return Err(SegmentError::Count { found, expected });
    }
    Ok(entries)
}

/// The good part of an open segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenContent {
    /// Entries of the good batches; none: the file is to be removed.
    pub entries: Vec<Entry>,
    /// Offset behind the last good batch.
    pub end: usize,
    /// Index of the first entry, if the segment says it.
    pub first: Option<LogIndex>,
    /// Something else than zeros is behind the last good batch: it was damaged, or was being written.
    pub is_torn: bool,
}

/// Reads the content of an open segment up to the first damaged batch. A batch that the file cuts off counts as
/// damaged. spec: disk-format 4.4, 13 "Reading" 2.
///
/// # Errors
/// A wrong format word; an unknown type or an unaligned payload under good checksums.
pub fn decode_open<C: SegmentContent>(content: &C) -> Result<OpenContent, SegmentError> {
    if content.length() == 0 {
        return Ok(OpenContent::default());
    }
    let format = format_of(content)?;
    let length = content.length();
    let mark_at = length.saturating_sub(MARK_BYTES).max(FORMAT_WORD.len());
    let last_bytes = content.bytes(mark_at, length - mark_at).map_err(unreadable)?;
    let first = mark::decode(&last_bytes);
    // The format word is written with the first batch, before the mark: a first write that was cut off is no damage.
    if format == 0 && first.is_none() {
        let is_torn = !content.is_zero(0, length).map_err(unreadable)?;
        return Ok(OpenContent { is_torn, ..OpenContent::default() });
    }
    if format != 1 {
        return Err(SegmentError::Format(format));
    }
    let mut good = OpenContent { entries: Vec::new(), end: FORMAT_WORD.len(), first, is_torn: false };
    let mut number = 0;
    while good.end < content.length() {
        number += 1;
        match decode_batch(content, good.end) {
            Ok(batch) => {
                good.entries.extend(batch.entries);
                good.end = batch.end;
            }
            Err(error @ (BatchError::EntryType(_) | BatchError::Unaligned | BatchError::Unreadable(_))) => {
                return Err(SegmentError::Batch { number, offset: good.end, error });
            }
            Err(_) => break,
        }
    }
    // A mark that is not whole is no damage.
    good.is_torn = good.end < mark_at && !content.is_zero(good.end, mark_at).map_err(unreadable)?;
    Ok(good)
}

fn format_of<C: SegmentContent>(content: &C) -> Result<u64, SegmentError> {
    if content.length() < FORMAT_WORD.len() {
        return Err(SegmentError::TooShort(content.length()));
    }
    let word = content.bytes(0, FORMAT_WORD.len()).map_err(unreadable)?;
    Ok(u64_at(&word, 0))
}

fn unreadable(error: io::Error) -> SegmentError {
    SegmentError::Batch { number: 1, offset: 0, error: error.into() }
}

struct BatchReader<'a, C> {
    content: &'a C,
    position: usize,
}

impl<C: SegmentContent> BatchReader<'_, C> {
    /// Whether so many bytes are there.
    fn check(&self, what: &'static str, expected: u64) -> Result<usize, BatchError> {
        let found = self.content.length().saturating_sub(self.position);
        match usize::try_from(expected) {
            Ok(len) if len <= found => Ok(len),
            _ => Err(BatchError::ShortRead { what, found, expected }),
        }
    }

    fn take(&mut self, what: &'static str, expected: u64) -> Result<Bytes, BatchError> {
        let len = self.check(what, expected)?;
        let part = self.content.bytes(self.position, len)?;
        self.position += len;
        Ok(part)
    }
}

/// The number at a place that the caller knows to exist.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let chunk = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>());
    u32::from_le_bytes(*chunk.expect("the length was checked"))
}

/// The number at a place that the caller knows to exist.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let chunk = bytes.get(offset..).and_then(|rest| rest.first_chunk::<8>());
    u64::from_le_bytes(*chunk.expect("the length was checked"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::EntryData;

    proptest! {
        #[test]
        fn any_bytes_give_entries_or_an_error(bytes in prop::collection::vec(0u8..4, 0..200), offset in 0usize..300) {
            let content = Bytes::from(bytes);
            let _ = decode_batch(&content, offset);
            let _ = decode_open(&content);
            let _ = decode_closed(&content, 1);
        }

        #[test]
        fn a_batch_is_read_as_it_was_written(payload_words in prop::collection::vec(0usize..9, 1..9)) {
            let entries: Vec<Entry> = payload_words
                .iter()
                .map(|words| Entry {
                    term: Term(*words as u64),
                    kind: EntryKind::Command,
                    data: EntryData::from_bytes(vec![5; words * 8].into()),
                    proposals: None,
                })
                .collect();
            let mut content = FORMAT_WORD.to_vec();
            content.extend(encode_batch_prefix(&entries).unwrap());
            for chunk in entries.iter().flat_map(|entry| entry.data.chunks()) {
                content.extend_from_slice(&chunk.read().unwrap());
            }
            let content = Bytes::from(content);
            prop_assert_eq!(decode_closed(&content, entries.len() as u64), Ok(entries.clone()));
            prop_assert_eq!(decode_open(&content), Ok(OpenContent { entries, end: content.len(), ..OpenContent::default() }));
        }
    }
}
