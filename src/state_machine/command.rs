//! Replicated commands as bytes. spec: state-machine 1.

use bytes::{Bytes, BytesMut};

use crate::pages::PageRef;
use crate::types::config::PAGE_SIZE;
use crate::types::{EntryData, PageNumber};

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const FRAMES: u8 = 2;
const UNDO: u8 = 3;
const CHECKPOINT: u8 = 4;

/// A command. All but FRAMES change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Database.
    pub name: Bytes,
    /// Numbers and images, in the order of the entry. The images share memory with it.
    pub pages: Vec<(PageNumber, Bytes)>,
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
}

/// Bytes of a FRAMES entry before its page images. spec: state-machine 1.2.
#[must_use]
pub fn frames_prefix_bytes(name: &[u8], pages: usize) -> usize {
    8 + (name.len() + 1).next_multiple_of(8) + 24 + 8 * pages
}

/// The entry of a transaction; the images are not copied.
#[must_use]
pub fn encode_frames(name: &[u8], pages: &[(PageNumber, PageRef)]) -> EntryData {
    let mut prefix = BytesMut::with_capacity(frames_prefix_bytes(name, pages.len()));
    prefix.extend_from_slice(&[FORMAT, FRAMES, 0, 0, 0, 0, 0, 0]);
    prefix.extend_from_slice(name);
    prefix.resize(8 + (name.len() + 1).next_multiple_of(8), 0);
    prefix.extend_from_slice(&[0; 8]); // tx_id
    prefix.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]); // truncate, is_commit, unused
    prefix.extend_from_slice(&u32::try_from(pages.len()).unwrap_or(u32::MAX).to_le_bytes());
    prefix.extend_from_slice(&(PAGE_SIZE as u16).to_le_bytes());
    prefix.extend_from_slice(&[0; 2]);
    for (number, _) in pages {
        prefix.extend_from_slice(&u64::from(number.0).to_le_bytes());
    }
    let images = pages.iter().map(|(_, page)| page.bytes());
    EntryData::from_chunks(std::iter::once(prefix.freeze()).chain(images).collect())
}

/// The database of an entry made by `encode_frames`, without looking at its pages.
#[must_use]
pub fn frames_name(data: &EntryData) -> Option<Bytes> {
    let prefix = data.chunks().first()?;
    let mut fields = Fields { data: prefix, offset: 8.min(prefix.len()) };
    fields.text("filename").ok()
}

struct Fields<'a> {
    data: &'a Bytes,
    offset: usize,
}

impl Fields<'_> {
    fn take(&mut self, field: &'static str, need: u64) -> Result<Bytes, CommandError> {
        let have = self.data.len() - self.offset;
        match usize::try_from(need) {
            Ok(length) if length <= have => {
                let taken = self.data.slice(self.offset..self.offset + length);
                self.offset += length;
                Ok(taken)
            }
            _ => Err(CommandError::Truncated { field, need, offset: self.offset, have }),
        }
    }

    fn number(&mut self, field: &'static str, bytes: u64) -> Result<u64, CommandError> {
        let taken = self.take(field, bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, field: &'static str) -> Result<Bytes, CommandError> {
        let rest = self.data.slice(self.offset..);
        let have = rest.len();
        let Some(length) = rest.iter().position(|byte| *byte == 0) else {
            return Err(CommandError::Truncated { field, need: have as u64 + 1, offset: self.offset, have });
        };
        let padded = (length + 1).next_multiple_of(8);
        Ok(self.take(field, padded as u64)?.slice(..length))
    }
}

impl Command {
    /// Reads an entry. Unused bytes and what follows the command are ignored.
    ///
    /// # Errors
    /// Anything that this node cannot apply: it must stop, never skip.
    pub fn decode(data: &Bytes) -> Result<Command, CommandError> {
        let mut fields = Fields { data, offset: 0 };
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
    let images = fields.take("page images", count * PAGE_SIZE as u64)?;
    let pages = numbers
        .chunks_exact(8)
        .enumerate()
        .map(|(position, bytes)| {
            let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
            match u32::try_from(number) {
                Ok(number @ 1..=0x7fff_ffff) => {
                    Ok((PageNumber(number), images.slice(position * PAGE_SIZE..(position + 1) * PAGE_SIZE)))
                }
                _ => Err(CommandError::Value { field: "page number", value: number }),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Frames { name, pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> PageRef {
        PageRef::new(&[byte; PAGE_SIZE])
    }

    // conformance: state-machine 1, 4
    #[test]
    fn frames_have_the_specified_bytes() {
        let data = encode_frames(b"test.db", &[(PageNumber(1), page(0x53)), (PageNumber(2), page(2))]);

        assert_eq!(data.len(), 8248);
        #[rustfmt::skip]
        assert_eq!(&data.contiguous()[..0x39], [
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
        let decode = |bytes: &[u8]| Command::decode(&Bytes::copy_from_slice(bytes));
        assert_eq!(
            decode(b"\x01\x01\xff\xff\xff\xff\xff\xfftest.db\0").unwrap(),
            Command::Open { name: Bytes::from_static(b"test.db") }
        );
        assert_eq!(
            decode(b"\x01\x01\0\0\0\0\0\0eightchr\0\0\0\0\0\0\0\0").unwrap(),
            Command::Open { name: Bytes::from_static(b"eightchr") }
        );
        assert_eq!(
            decode(b"\x01\x03\0\0\0\0\0\0\x05\0\0\0\0\0\0\0").unwrap(),
            Command::Undo { transaction: 5 }
        );
        assert_eq!(
            decode(b"\x01\x04\0\0\0\0\0\0test.db\0").unwrap(),
            Command::Checkpoint { name: Bytes::from_static(b"test.db") }
        );
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
        let mut bytes = encode_frames(b"db", &pages).contiguous().to_vec();
        for unused in [2, 7, 29, 30, 31, 38, 39] {
            bytes[unused] = 0xff;
        }

        let Command::Frames(frames) = Command::decode(&bytes.clone().into()).unwrap() else {
            panic!("no frames")
        };

        let expected: Vec<_> = pages.iter().map(|(number, page)| (*number, page.bytes())).collect();
        assert_eq!(frames, Frames { name: Bytes::from_static(b"db"), pages: expected });
        for length in 0..bytes.len() {
            assert!(Command::decode(&Bytes::copy_from_slice(&bytes[..length])).is_err(), "{length}");
        }
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
        let good = encode_frames(b"db", &[(PageNumber(1), page(0))]).contiguous().to_vec();
        for (offset, value) in [(32, 0xff), (28, 0), (37, 0x20), (40, 0), (47, 1)] {
            let mut bytes = good.clone();
            bytes[offset] = value;
            assert!(Command::decode(&bytes.into()).is_err(), "{offset}");
        }
    }
}
