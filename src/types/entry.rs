//! A raft log entry as all layers carry it: term, kind, payload, and in memory only what the proposer knows it by.
//! spec: raft-wire 4, disk-format 4.1.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Term;
use super::payload::Chunk;

/// Kind of an entry. The numbers are those of the wire and of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A command of the state machine.
    Command = 1,
    /// Changes nothing.
    Barrier = 2,
    /// A complete new configuration.
    Change = 3,
}

impl EntryKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<EntryKind> {
        match number {
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Barrier),
            3 => Some(EntryKind::Change),
            _ => None,
        }
    }
}

/// Payload of an entry: chunks that share memory with pages, frames from a peer or a file that was read, or are read when
/// they are needed. Its length is a multiple of 8. A clone shares the chunks.
#[derive(Clone, Debug, Default)]
pub struct EntryData {
    chunks: Arc<[Chunk]>,
    len: usize,
}

impl EntryData {
    /// A payload in one piece.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> EntryData {
        EntryData { len: bytes.len(), chunks: Arc::new([Chunk::Memory(bytes)]) }
    }

    /// A payload of several pieces, in order.
    #[must_use]
    pub fn from_chunks(chunks: Vec<Chunk>) -> EntryData {
        EntryData { len: chunks.iter().map(Chunk::len).sum(), chunks: chunks.into() }
    }

    /// The pieces, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The payload in one piece; copies unless it is in one piece. Not for payloads that may be large.
    ///
    /// # Errors
    /// A chunk that is not in memory cannot be read.
    pub fn contiguous(&self) -> io::Result<Bytes> {
        if let [only] = &*self.chunks {
            return only.read();
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for chunk in &*self.chunks {
            whole.extend_from_slice(&chunk.read()?);
        }
        Ok(whole.freeze())
    }
}

/// A payload that cannot be read equals none.
impl PartialEq for EntryData {
    fn eq(&self, other: &EntryData) -> bool {
        let both = || Some((self.contiguous().ok()?, other.contiguous().ok()?));
        self.len == other.len && both().is_some_and(|(left, right)| left == right)
    }
}

impl Eq for EntryData {}

/// Names one proposal of this process: its epoch (one stretch of uninterrupted leadership) and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalToken {
    /// Epoch in which it was proposed; never used again.
    pub epoch: u64,
    /// Place in the epoch's one queue over all databases: 1, 2, 3, ... without a gap.
    pub sequence: u64,
}

/// The proposals that one entry holds: consecutive places of one epoch, all of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProposalRange {
    /// Their epoch.
    pub epoch: u64,
    /// Place of the first.
    pub first: u64,
    /// Place of the last.
    pub last: u64,
}

impl ProposalRange {
    /// One proposal alone.
    #[must_use]
    pub const fn of(token: ProposalToken) -> ProposalRange {
        ProposalRange { epoch: token.epoch, first: token.sequence, last: token.sequence }
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.last.saturating_sub(self.first).saturating_add(1)).unwrap_or(usize::MAX)
    }

    /// The last of them.
    #[must_use]
    pub const fn last_token(self) -> ProposalToken {
        ProposalToken { epoch: self.epoch, sequence: self.last }
    }
}

/// One log entry. Its index is where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that made it; may be lower than that of the entry before it (disk-format 9).
    pub term: Term,
    /// Kind.
    pub kind: EntryKind,
    /// Payload.
    pub data: EntryData,
    /// Set on the node that proposed it, while it is in memory. Neither stored nor sent.
    pub proposals: Option<ProposalRange>,
}

impl Entry {
    /// A barrier: 8 zero bytes. spec: raft-wire 4.1.
    #[must_use]
    pub fn barrier(term: Term) -> Entry {
        Entry {
            term,
            kind: EntryKind::Barrier,
            data: EntryData::from_bytes(Bytes::from_static(&[0; 8])),
            proposals: None,
        }
    }
}
