//! Replicated commands, read from entries. spec: state-machine 1.

use bytes::Bytes;

use super::fields::{Fields, little_endian};
use crate::types::config::PAGE_SIZE;
use crate::types::{Chunk, EntryData, PageNumber};

pub(super) const FORMAT: u8 = 1;
const OPEN: u8 = 1;
pub(super) const FRAMES: u8 = 2;
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
    let (need, have) = (count * PAGE_SIZE as u64, fields.left());
    if need > have as u64 {
        return Err(CommandError::Truncated { field: "page images", need, offset: fields.offset(), have });
    }
    let pages = numbers
        .chunks_exact(8)
        .map(|bytes| {
            let number = little_endian(bytes);
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
    use super::super::frames::encode_frames;
    use super::*;
    use crate::pages::testing::page;

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
