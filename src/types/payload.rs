//! Payloads that lie where pages do: pieces of one size, in memory or in a file, where they are read when they are needed.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::config::PAGE_SIZE;
use super::entry::EntryData;

/// `PAGE_SIZE` bytes that lie where pages do.
pub trait StoredBytes: Send + Sync + Debug + 'static {
    /// Reads them.
    ///
    /// # Errors
    /// They cannot be read, or are not what was written.
    fn read(self: Arc<Self>) -> io::Result<Bytes>;

    /// They, if they are in memory all the same: never waits for a disk.
    fn cached(self: Arc<Self>) -> Option<Bytes>;

    /// They, if memory is where they lie.
    fn in_memory(&self) -> Option<&[u8; PAGE_SIZE]> {
        None
    }

    /// For whoever knows what they are.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Takes payloads to where pages lie, so that the pages of an entry are there once.
pub trait PayloadStore: Send + Sync + Debug {
    /// Keeps `PAGE_SIZE` bytes.
    ///
    /// # Errors
    /// They cannot be written.
    fn store(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<dyn StoredBytes>>;

    /// Whether that may wait for a disk.
    fn may_wait(&self) -> bool {
        true
    }
}

/// A piece of a payload.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// In memory of its own.
    Memory(Bytes),
    /// Where pages lie.
    Stored(Arc<dyn StoredBytes>),
}

impl Chunk {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Chunk::Memory(bytes) => bytes.len(),
            Chunk::Stored(_) => PAGE_SIZE,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    ///
    /// # Errors
    /// They are not in memory and cannot be read.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Chunk::Memory(bytes) => Ok(bytes.clone()),
            Chunk::Stored(stored) => Arc::clone(stored).read(),
        }
    }

    /// The bytes, if that takes no disk.
    #[must_use]
    pub fn cached(&self) -> Option<Bytes> {
        match self {
            Chunk::Memory(bytes) => Some(bytes.clone()),
            Chunk::Stored(stored) => Arc::clone(stored).cached(),
        }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Chunk {
        Chunk::Memory(bytes)
    }
}

/// Takes a payload as it comes and leaves it in a store. The pieces are cut from the end of the payload: there the pages of
/// a transaction lie, and a piece that is a page need not be written again when it is applied.
#[derive(Debug)]
pub struct PayloadKeeper {
    store: Arc<dyn PayloadStore>,
    chunks: Vec<Chunk>,
    /// Bytes of the piece that is not complete.
    partial: Vec<u8>,
    /// Its length when it is.
    wanted: usize,
    left: usize,
}

impl PayloadKeeper {
    /// For a payload of `len` bytes.
    #[must_use]
    pub fn new(store: Arc<dyn PayloadStore>, len: usize) -> PayloadKeeper {
        let first = if len.is_multiple_of(PAGE_SIZE) { PAGE_SIZE.min(len) } else { len % PAGE_SIZE };
        PayloadKeeper { store, chunks: Vec::new(), partial: Vec::new(), wanted: first, left: len }
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes the next bytes, at most `left`; what is more is ignored.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = &bytes[..bytes.len().min(self.left)];
        self.left -= rest.len();
        while !rest.is_empty() {
            let count = rest.len().min(self.wanted - self.partial.len());
            let (taken, more) = rest.split_at(count);
            rest = more;
            match <&[u8; PAGE_SIZE]>::try_from(taken) {
                Ok(page) if self.partial.is_empty() => self.keep(page)?,
                _ => {
                    self.partial.extend_from_slice(taken);
                    self.complete()?;
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, page: &[u8; PAGE_SIZE]) -> io::Result<()> {
        self.chunks.push(Chunk::Stored(self.store.store(page)?));
        self.wanted = PAGE_SIZE;
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        if self.partial.len() < self.wanted {
            return Ok(());
        }
        let partial = std::mem::take(&mut self.partial);
        match <&[u8; PAGE_SIZE]>::try_from(partial.as_slice()) {
            Ok(page) => self.keep(page),
            Err(_) => {
                self.chunks.push(Chunk::Memory(partial.into()));
                self.wanted = PAGE_SIZE;
                Ok(())
            }
        }
    }

    /// The payload. To be called when nothing is left.
    #[must_use]
    pub fn finish(self) -> EntryData {
        debug_assert_eq!(self.left, 0, "{} bytes of a payload are missing", self.left);
        EntryData::from_chunks(self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Kept([u8; PAGE_SIZE]);

    impl StoredBytes for Kept {
        fn read(self: Arc<Self>) -> io::Result<Bytes> {
            Ok(Bytes::copy_from_slice(&self.0))
        }

        fn cached(self: Arc<Self>) -> Option<Bytes> {
            None
        }

        fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
            self
        }
    }

    #[derive(Debug)]
    struct InMemory;

    impl PayloadStore for InMemory {
        fn store(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<dyn StoredBytes>> {
            Ok(Arc::new(Kept(*bytes)))
        }
    }

    #[test]
    fn a_payload_is_kept_as_it_came_and_whole_pages_lie_at_its_end() {
        for len in [0, 8, PAGE_SIZE - 8, PAGE_SIZE, PAGE_SIZE + 8, 3 * PAGE_SIZE, 3 * PAGE_SIZE + 40] {
            let payload: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
            for piece in [1, 1000, PAGE_SIZE, 100_000] {
                let mut keeper = PayloadKeeper::new(Arc::new(InMemory), len);
                for bytes in payload.chunks(piece) {
                    keeper.push(bytes).unwrap();
                }
                assert_eq!(keeper.left(), 0);
                let data = keeper.finish();

                assert_eq!(data.len(), len);
                assert_eq!(data.contiguous().unwrap(), payload);
                let stored = data.chunks().iter().filter(|chunk| matches!(chunk, Chunk::Stored(_))).count();
                assert_eq!(stored, len / PAGE_SIZE);
            }
        }
    }
}
