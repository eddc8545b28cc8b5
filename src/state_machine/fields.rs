//! The fields of a command, read from a payload in pieces. spec: state-machine 1.

use bytes::{Bytes, BytesMut};

use super::command::CommandError;
use crate::types::config::PAGE_SIZE;
use crate::types::{Chunk, EntryData};

/// Reads a payload from its begin on, however it is cut.
pub(super) struct Fields<'a> {
    chunks: &'a [Chunk],
    /// What the first of them holds, once it was looked at.
    current: Option<Bytes>,
    /// Where in the first of them.
    within: usize,
    offset: usize,
    len: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(data: &'a EntryData) -> Fields<'a> {
        Fields { chunks: data.chunks(), current: None, within: 0, offset: 0, len: data.len() }
    }

    /// Bytes not yet read.
    pub(super) fn left(&self) -> usize {
        self.len - self.offset
    }

    /// Where the next field starts.
    pub(super) fn offset(&self) -> usize {
        self.offset
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

    pub(super) fn take(&mut self, field: &'static str, need: u64) -> Result<Bytes, CommandError> {
        let have = self.left();
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
    pub(super) fn page(&mut self, field: &'static str) -> Result<Chunk, CommandError> {
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

    pub(super) fn number(&mut self, field: &'static str, bytes: u64) -> Result<u64, CommandError> {
        Ok(little_endian(&self.take(field, bytes)?))
    }

    /// A text with its NUL, padded to words.
    pub(super) fn text(&mut self, field: &'static str) -> Result<Bytes, CommandError> {
        let (start, have) = (self.offset, self.left());
        let mut text = BytesMut::new();
        loop {
            let left = self.left();
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

/// The number in up to 8 bytes.
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
