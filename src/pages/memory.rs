//! A page in memory.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::memory::ArenaPage;
use crate::types::config::PAGE_SIZE;
use crate::types::payload::StoredBytes;

/// Where it lies.
pub(super) enum MemoryPage {
    /// Among the others.
    Arena(ArenaPage),
    /// In memory of its own.
    Alone(Box<[u8; PAGE_SIZE]>),
}

impl MemoryPage {
    pub(super) fn alone(bytes: &[u8; PAGE_SIZE]) -> MemoryPage {
        MemoryPage::Alone(Box::new(*bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; PAGE_SIZE] {
        match self {
            MemoryPage::Arena(page) => page.bytes(),
            MemoryPage::Alone(bytes) => bytes,
        }
    }

    /// Where it lies, if so many bytes behind it are memory, too.
    pub(super) fn in_place(&self, behind: usize) -> Option<*const u8> {
        match self {
            MemoryPage::Arena(page) if behind <= PAGE_SIZE => Some(page.address()),
            _ => None,
        }
    }
}

/// The memory of a page, for `Bytes`.
struct Shared(Arc<MemoryPage>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for MemoryPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryPage(4096 bytes)")
    }
}

impl StoredBytes for MemoryPage {
    fn read(self: Arc<Self>) -> io::Result<Bytes> {
        Ok(Bytes::from_owner(Shared(self)))
    }

    fn cached(self: Arc<Self>) -> Option<Bytes> {
        Some(Bytes::from_owner(Shared(self)))
    }

    fn in_memory(&self) -> Option<&[u8; PAGE_SIZE]> {
        Some(self.bytes())
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync> {
        self
    }
}
