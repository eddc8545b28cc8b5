//! Messages as the versions of upstream write them. spec: raft-wire 3, 10.

use bytes::{BufMut, Bytes, BytesMut};
use dqlite::peers::message::{Message, PREAMBLE_BYTES};
use dqlite::types::{EntryData, NodeId};
use rand::Rng;
use rand::rngs::SmallRng;

/// What differs between the versions in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Short results.
    Old,
    /// As in 1.18.
    Current,
    /// Snapshots without their last word.
    Later,
}

impl Dialect {
    /// Nodes differ in it.
    #[must_use]
    pub fn of(id: NodeId) -> Dialect {
        match id.0 % 3 {
            0 => Dialect::Old,
            1 => Dialect::Later,
            _ => Dialect::Current,
        }
    }
}

/// A message and its payload; what is unused holds anything.
pub(super) fn encode(
    message: &Message,
    payload: &[&EntryData],
    dialect: Dialect,
    random: &mut SmallRng,
) -> Bytes {
    let mut bytes = BytesMut::from(&message.encode()[..]);
    let shortened = matches!(
        (message, dialect),
        (Message::AppendEntriesResult(_), Dialect::Old) | (Message::InstallSnapshot(_), Dialect::Later)
    );
    if shortened {
        bytes.truncate(bytes.len() - 8);
        let header = (bytes.len() - PREAMBLE_BYTES) as u64;
        bytes[8..16].copy_from_slice(&header.to_le_bytes());
    } else if matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_)) {
        let last = bytes.len() - 8;
        random.fill(&mut bytes[last..]);
    }
    if let Message::AppendEntries(append) = message {
        for place in 0..append.entries.len() {
            let unused = PREAMBLE_BYTES + 40 + place * 16 + 9;
            random.fill(&mut bytes[unused..unused + 3]);
        }
    }
    for data in payload {
        for chunk in data.chunks() {
            // Payloads of a simulated node are in memory.
            if let Ok(piece) = chunk.read() {
                bytes.put_slice(&piece);
            }
        }
    }
    bytes.freeze()
}
