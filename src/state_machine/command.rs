//! Replicated commands as bytes. spec: state-machine 1.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::pages::PageRef;
use crate::types::config::{DATABASE_NAME_MAX_BYTES, PAGE_SIZE};
use crate::types::{Chunk, Entry, EntryData, EntryKind, PageNumber};

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const FRAMES: u8 = 2;
const UNDO: u8 = 3;
const CHECKPOINT: u8 = 4;

/// A command. All but FRAMES change nothing.
#[derive(Clone, Debug)]
pub enum Command {
    /// Emitted until 1.5.
    Open {
        /// Database.
        name: Bytes,
    },
    /// Pages of one transaction.
    Frames(Frames),
    /// Emitted until 1.5.
    Undo {
        /// Transaction.
        transaction: u64,
    },
    /// Emitted from 1.6 to 1.18.2.
    Checkpoint {
        /// Database.
        name: Bytes,
    },
}

/// One transaction: later images of a page win.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Database.
    pub name: Bytes,
    /// Numbers and images, in the order of the entry. The images share memory with it, or are read when they are needed.
    pub pages: Vec<(PageNumber, Chunk)>,
}

/// Why bytes are no command that this node can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The bytes end too early.
    #[error("truncated command: {field} needs {need} bytes at offset {offset}, {have} are left")]
    Truncated {
        /// Which field.
        field: &'static str,
        /// Bytes of the field.
        need: u64,
        /// Where it starts.
        offset: usize,
        /// Bytes left there.
        have: usize,
    },
    /// A value that is not known or not supported.
    #[error("command field {field} is {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// Value found.
        value: u64,
    },
    /// A part of the entry is not in memory and cannot be read.
    #[error("command field {field}: {error}")]
    Unreadable {
        /// Which field.
        field: &'static str,
        /// What happened.
        error: String,
    },
}

/// Bytes of a FRAMES entry before its page images. spec: state-machine 1.2.
#[must_use]
pub fn frames_prefix_bytes(name: &[u8], pages: usize) -> usize {
    8 + (name.len() + 1).next_multiple_of(8) + 24 + 8 * pages
}

/// The entry of a transaction; the images are not copied.
#[must_use]
pub fn encode_frames(name: &[u8], pages: &[(PageNumber, PageRef)]) -> EntryData {
    encode(name, pages.iter().map(|(number, page)| (*number, page.chunk())))
}

fn encode(name: &[u8], pages: impl ExactSizeIterator<Item = (PageNumber, Chunk)> + Clone) -> EntryData {
    let mut prefix = BytesMut::with_capacity(frames_prefix_bytes(name, pages.len()));
    prefix.extend_from_slice(&[FORMAT, FRAMES, 0, 0, 0, 0, 0, 0]);
    prefix.extend_from_slice(name);
    prefix.resize(8 + (name.len() + 1).next_multiple_of(8), 0);
    prefix.extend_from_slice(&[0; 8]); // tx_id
    prefix.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]); // truncate, is_commit, unused
    prefix.extend_from_slice(&u32::try_from(pages.len()).unwrap_or(u32::MAX).to_le_bytes());
    prefix.extend_from_slice(&(PAGE_SIZE as u16).to_le_bytes());
    prefix.extend_from_slice(&[0; 2]);
    let mut chunks = Vec::with_capacity(1 + pages.len());
    chunks.push(Chunk::Memory(Bytes::new()));
    for (number, image) in pages {
        prefix.extend_from_slice(&u64::from(number.0).to_le_bytes());
        chunks.push(image);
    }
    chunks[0] = prefix.freeze().into();
    EntryData::from_chunks(chunks)
}

/// An entry as `encode` makes it: one chunk before the images, one for each of them.
struct Encoded<'a> {
    name: Bytes,
    numbers: Bytes,
    images: &'a [Chunk],
}

impl<'a> Encoded<'a> {
    fn of(data: &'a EntryData) -> Option<Encoded<'a>> {
        let (Chunk::Memory(prefix), images) = data.chunks().split_first()? else { return None };
        let numbers_at = prefix.len().checked_sub(8 * images.len())?;
        let end = 8 + prefix.get(8..)?.iter().position(|byte| *byte == 0)?;
        let is_frames = prefix.starts_with(&[FORMAT, FRAMES])
            && numbers_at == frames_prefix_bytes(&prefix[8..end], 0)
            && images.iter().all(|image| image.len() == PAGE_SIZE);
        is_frames.then(|| Encoded { name: prefix.slice(8..end), numbers: prefix.slice(numbers_at..), images })
    }
}

/// The database of an entry made by `encode_frames` or `merge_frames`, without looking at its pages.
#[must_use]
pub fn frames_name(data: &EntryData) -> Option<Bytes> {
    Encoded::of(data).map(|encoded| encoded.name)
}

/// One entry that does what these do one after the other; none if they are not all transactions of one database. None of
/// them may make the database smaller.
#[must_use]
pub fn merge_frames<'a>(entries: impl Iterator<Item = &'a EntryData>) -> Option<EntryData> {
    let mut name = None;
    let mut last_images = BTreeMap::new();
    for data in entries {
        let encoded = Encoded::of(data)?;
        if *name.get_or_insert_with(|| encoded.name.clone()) != encoded.name {
            return None;
        }
        for (number, image) in encoded.numbers.chunks_exact(8).zip(encoded.images) {
            let number = u64::from_le_bytes(number.try_into().ok()?);
            last_images.insert(PageNumber(u32::try_from(number).ok()?), image);
        }
    }
    Some(encode(&name?, last_images.iter().map(|(number, image)| (*number, Chunk::clone(image)))))
}

/// The database that an entry deletes: it is page 1 alone, which tells a size of 0. spec: state-machine 2.2.
#[must_use]
pub fn deleted_database(entry: &Entry) -> Option<Bytes> {
    let longest = frames_prefix_bytes(&[0; DATABASE_NAME_MAX_BYTES], 1) + PAGE_SIZE;
    if entry.kind != EntryKind::Command || entry.data.len() > longest {
        return None;
    }
    let Ok(Command::Frames(Frames { name, pages })) = Command::decode(&entry.data) else { return None };
    let [(PageNumber(1), page)] = &pages[..] else { return None };
    // What cannot be read may be one.
    let deletes = page.read().map_or(true, |page| page.get(28..32) == Some(&[0; 4]));
    deletes.then_some(name)
}

/// Reads a payload from its begin on, however it is cut.
struct Fields<'a> {
    chunks: &'a [Chunk],
    /// What the first of them holds, once it was looked at.
    current: Option<Bytes>,
    /// Where in the first of them.
    within: usize,
    offset: usize,
    len: usize,
}

impl<'a> Fields<'a> {
    fn new(data: &'a EntryData) -> Fields<'a> {
        Fields { chunks: data.chunks(), current: None, within: 0, offset: 0, len: data.len() }
    }

    /// The rest of the chunk that is being read; empty at the end of the payload.
    fn rest_of_chunk(&mut self, field: &'static str) -> Result<Bytes, CommandError> {
        while let Some(chunk) = self.chunks.first() {
            if self.within < chunk.len() {
                let unreadable =
                    |error: std::io::Error| CommandError::Unreadable { field, error: error.to_string() };
                let bytes = match self.current.take() {
                    Some(bytes) => bytes,
                    None => chunk.read().map_err(unreadable)?,
                };
                let rest = bytes.slice(self.within..);
                self.current = Some(bytes);
                return Ok(rest);
            }
            self.next_chunk();
        }
        Ok(Bytes::new())
    }

    fn next_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.current = None;
        self.within = 0;
    }

    fn advance(&mut self, bytes: usize) {
        self.within += bytes;
        self.offset += bytes;
    }

    fn take(&mut self, field: &'static str, need: u64) -> Result<Bytes, CommandError> {
        let have = self.len - self.offset;
        let length = match usize::try_from(need) {
            Ok(length) if length <= have => length,
            _ => return Err(CommandError::Truncated { field, need, offset: self.offset, have }),
        };
        let first = self.rest_of_chunk(field)?;
        if length <= first.len() {
            self.advance(length);
            return Ok(first.slice(..length));
        }
        let mut taken = BytesMut::with_capacity(length);
        while taken.len() < length {
            let rest = self.rest_of_chunk(field)?;
            let count = rest.len().min(length - taken.len());
            taken.extend_from_slice(&rest[..count]);
            self.advance(count);
        }
        Ok(taken.freeze())
    }

    /// A page: the chunk itself if it is one, so that it need not be read here.
    fn page(&mut self, field: &'static str) -> Result<Chunk, CommandError> {
        while self.chunks.first().is_some_and(|chunk| self.within >= chunk.len()) {
            self.next_chunk();
        }
        if let Some(Chunk::Stored(stored)) = self.chunks.first()
            && self.within == 0
        {
            let chunk = Chunk::Stored(stored.clone());
            self.advance(PAGE_SIZE);
            return Ok(chunk);
        }
        Ok(Chunk::Memory(self.take(field, PAGE_SIZE as u64)?))
    }

    fn number(&mut self, field: &'static str, bytes: u64) -> Result<u64, CommandError> {
        let taken = self.take(field, bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A text with its NUL, padded to words.
    fn text(&mut self, field: &'static str) -> Result<Bytes, CommandError> {
        let (start, have) = (self.offset, self.len - self.offset);
        let mut text = BytesMut::new();
        loop {
            let left = self.len - self.offset;
            if left == 0 {
                return Err(CommandError::Truncated { field, need: have as u64 + 1, offset: start, have });
            }
            let word = self.take(field, left.min(8) as u64)?;
            if let Some(end) = word.iter().position(|byte| *byte == 0) {
                if word.len() < 8 {
                    let need = (text.len() + 8) as u64;
                    return Err(CommandError::Truncated { field, need, offset: start, have });
                }
                text.extend_from_slice(&word[..end]);
                return Ok(text.freeze());
            }
            text.extend_from_slice(&word);
        }
    }
}

impl Command {
    /// Reads an entry. Unused bytes and what follows the command are ignored.
    ///
    /// # Errors
    /// Anything that this node cannot apply: it must stop, never skip.
    pub fn decode(data: &EntryData) -> Result<Command, CommandError> {
        let mut fields = Fields::new(data);
        let format = fields.number("format", 1)?;
        let kind = fields.number("type", 1)?;
        fields.take("unused", 6)?;
        if format != u64::from(FORMAT) {
            return Err(CommandError::Value { field: "format", value: format });
        }
        match u8::try_from(kind) {
            Ok(OPEN) => Ok(Command::Open { name: fields.text("filename")? }),
            Ok(FRAMES) => decode_frames(&mut fields).map(Command::Frames),
            Ok(UNDO) => Ok(Command::Undo { transaction: fields.number("tx_id", 8)? }),
            Ok(CHECKPOINT) => Ok(Command::Checkpoint { name: fields.text("filename")? }),
            _ => Err(CommandError::Value { field: "type", value: kind }),
        }
    }
}

fn decode_frames(fields: &mut Fields<'_>) -> Result<Frames, CommandError> {
    let name = fields.text("filename")?;
    fields.take("tx_id", 8)?;
    fields.take("truncate", 4)?;
    let is_commit = fields.number("is_commit", 1)?;
    fields.take("unused", 3)?;
    let count = fields.number("n_pages", 4)?;
    let page_size = fields.number("page_size", 2)?;
    fields.take("unused", 2)?;
    if is_commit == 0 {
        return Err(CommandError::Value { field: "is_commit", value: is_commit });
    }
    if page_size != PAGE_SIZE as u64 {
        return Err(CommandError::Value { field: "page_size", value: page_size });
    }
    let numbers = fields.take("page numbers", count * 8)?;
    let (need, have) = (count * PAGE_SIZE as u64, fields.len - fields.offset);
    if need > have as u64 {
        return Err(CommandError::Truncated { field: "page images", need, offset: fields.offset, have });
    }
    let pages = numbers
        .chunks_exact(8)
        .map(|bytes| {
            let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
            match u32::try_from(number) {
                Ok(number @ 1..=0x7fff_ffff) => Ok((PageNumber(number), fields.page("page images")?)),
                _ => Err(CommandError::Value { field: "page number", value: number }),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Frames { name, pages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn page(byte: u8) -> PageRef {
        PageRef::new(&[byte; PAGE_SIZE])
    }

    // conformance: state-machine 1, 4
    #[test]
    fn frames_have_the_specified_bytes() {
        let data = encode_frames(b"test.db", &[(PageNumber(1), page(0x53)), (PageNumber(2), page(2))]);

        assert_eq!(data.len(), 8248);
        #[rustfmt::skip]
        assert_eq!(&data.contiguous().unwrap()[..0x39], [
            0x01, 0x02, 0, 0, 0, 0, 0, 0, 0x74, 0x65, 0x73, 0x74, 0x2e, 0x64, 0x62, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            2, 0, 0, 0, 0, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0, 0, 0, 0, 0x53,
        ]);
        assert_eq!(encode_frames(b"test.db", &[(PageNumber(2), page(0))]).len(), 4144);
        assert_eq!(data.chunks().len(), 3);
    }

    // conformance: state-machine 2
    #[test]
    fn commands_of_all_versions_decode() {
        let decode = |bytes: &[u8]| Command::decode(&EntryData::from_bytes(Bytes::copy_from_slice(bytes)));
        assert!(matches!(
            decode(b"\x01\x01\xff\xff\xff\xff\xff\xfftest.db\0").unwrap(),
            Command::Open { name } if name == b"test.db"[..]
        ));
        assert!(matches!(
            decode(b"\x01\x01\0\0\0\0\0\0eightchr\0\0\0\0\0\0\0\0").unwrap(),
            Command::Open { name } if name == b"eightchr"[..]
        ));
        assert!(matches!(
            decode(b"\x01\x03\0\0\0\0\0\0\x05\0\0\0\0\0\0\0").unwrap(),
            Command::Undo { transaction: 5 }
        ));
        assert!(matches!(
            decode(b"\x01\x04\0\0\0\0\0\0test.db\0").unwrap(),
            Command::Checkpoint { name } if name == b"test.db"[..]
        ));
        for bad in [
            &b""[..],
            b"\x02\x01\0\0\0\0\0\0test.db\0",
            b"\x01\x05\0\0\0\0\0\0test.db\0",
            b"\x01\x00\0\0\0\0\0\0test.db\0",
            b"\x01\x01\0\0\0\0\0\0testtest",
            b"\x01\x03\0\0\0\0\0\0\x05\0",
        ] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }

    // conformance: state-machine 2, 3
    #[test]
    fn frames_keep_order_and_duplicates_and_ignore_unused_bytes() {
        let pages = [(PageNumber(559), page(1)), (PageNumber(3), page(2)), (PageNumber(559), page(3))];
        let mut bytes = encode_frames(b"db", &pages).contiguous().unwrap().to_vec();
        for unused in [2, 7, 29, 30, 31, 38, 39] {
            bytes[unused] = 0xff;
        }
        let whole = Bytes::from(bytes);
        for cut in [1, 8, 13, 1000, 4096, whole.len()] {
            let data = EntryData::from_chunks(
                whole.chunks(cut).map(|chunk| Bytes::copy_from_slice(chunk).into()).collect(),
            );

            let Command::Frames(frames) = Command::decode(&data).unwrap() else { panic!("no frames") };

            assert_eq!(frames.name, b"db"[..]);
            let found: Vec<_> =
                frames.pages.iter().map(|(number, chunk)| (*number, chunk.read().unwrap())).collect();
            let expected: Vec<_> =
                pages.iter().map(|(number, page)| (*number, page.chunk().read().unwrap())).collect();
            assert_eq!(found, expected);
        }
        for length in 0..whole.len() {
            let data = EntryData::from_bytes(whole.slice(..length));
            assert!(Command::decode(&data).is_err(), "{length}");
        }
    }

    #[test]
    fn an_entry_deletes_a_database_if_it_is_page_1_alone_with_size_0() {
        let page_one = |size: u8| {
            let mut bytes = [7; PAGE_SIZE];
            bytes[28..32].copy_from_slice(&[0, 0, 0, size]);
            PageRef::new(&bytes)
        };
        let deleted = |name: &[u8], pages: &[(PageNumber, PageRef)]| {
            let data = encode_frames(name, pages);
            deleted_database(&Entry { data, kind: EntryKind::Command, ..Entry::barrier(Term(1)) })
        };

        for name in [&b"a"[..], &[b'a'; DATABASE_NAME_MAX_BYTES]] {
            assert_eq!(deleted(name, &[(PageNumber(1), page_one(0))]).as_deref(), Some(name));
        }
        assert_eq!(deleted(b"a", &[(PageNumber(1), page_one(1))]), None);
        assert_eq!(deleted(b"a", &[(PageNumber(2), page_one(0))]), None);
        assert_eq!(deleted(b"a", &[(PageNumber(1), page_one(0)), (PageNumber(2), page(0))]), None);
        assert_eq!(deleted_database(&Entry::barrier(Term(1))), None);
    }

    #[test]
    fn merged_transactions_are_the_last_images_of_their_pages_in_one() {
        let of = |name: &[u8], pages: &[(u32, u8)]| {
            let pages: Vec<_> =
                pages.iter().map(|(number, byte)| (PageNumber(*number), page(*byte))).collect();
            encode_frames(name, &pages)
        };
        let (one, two, three) = (
            of(b"eightchr", &[(1, 1), (2, 2)]),
            of(b"eightchr", &[(2, 3), (900, 4)]),
            of(b"eightchr", &[(1, 5)]),
        );

        let merged = merge_frames([&one, &two, &three].into_iter()).unwrap();

        assert_eq!(merged, of(b"eightchr", &[(1, 5), (2, 3), (900, 4)]));
        assert_eq!(
            merge_frames([&merged, &one].into_iter()).unwrap(),
            of(b"eightchr", &[(1, 1), (2, 2), (900, 4)])
        );
        assert_eq!(frames_name(&merged).unwrap(), b"eightchr"[..]);
        assert_eq!(frames_name(&one).unwrap(), b"eightchr"[..]);
        assert_eq!(frames_name(&of(b"eightch", &[(1, 1)])).unwrap(), b"eightch"[..]);
        assert!(merge_frames([&one, &of(b"other", &[(1, 1)])].into_iter()).is_none());
        // Not made here: in one piece, or no transaction.
        let received = EntryData::from_bytes(one.contiguous().unwrap());
        for other in [received, Entry::barrier(Term(1)).data, EntryData::default()] {
            assert_eq!(frames_name(&other), None);
            assert!(merge_frames([&one, &other].into_iter()).is_none());
        }
        assert!(merge_frames(std::iter::empty()).is_none());
    }

    // conformance: raft-wire 29
    #[test]
    fn every_command_fills_whole_words() {
        for length in 1..=504 {
            for pages in [1, 2, 3] {
                let pages: Vec<(PageNumber, PageRef)> =
                    (0..pages).map(|number| (PageNumber(number + 1), page(0))).collect();
                let bytes = encode_frames(&vec![b'n'; length], &pages).len();
                assert!(bytes.is_multiple_of(8) && bytes > pages.len() * PAGE_SIZE, "{length}: {bytes}");
            }
        }
    }

    // conformance: state-machine 4
    #[test]
    fn an_announced_count_costs_no_memory_and_partial_transactions_are_refused() {
        let good = encode_frames(b"db", &[(PageNumber(1), page(0))]).contiguous().unwrap().to_vec();
        for (offset, value) in [(32, 0xff), (28, 0), (37, 0x20), (40, 0), (47, 1)] {
            let mut bytes = good.clone();
            bytes[offset] = value;
            assert!(Command::decode(&EntryData::from_bytes(bytes.into())).is_err(), "{offset}");
        }
    }
}
