//! One immutable page, shared by every root that contains it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::config::PAGE_SIZE;

/// An immutable page of 4096 bytes; a clone shares it. Where it lives is hidden.
#[derive(Clone)]
pub struct PageRef {
    memory: Arc<[u8; PAGE_SIZE]>,
}

impl PageRef {
    /// A page with a copy of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; PAGE_SIZE]) -> PageRef {
        PageRef { memory: Arc::new(*bytes) }
    }

    /// A page with a copy of these bytes, or `None` if they are not 4096.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<PageRef> {
        <&[u8; PAGE_SIZE]>::try_from(bytes).ok().map(PageRef::new)
    }

    /// The bytes, sharing the page's memory.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Gives the bytes to `read`.
    pub fn with<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> T {
        read(&self.memory)
    }

    /// Whether both are one page in memory.
    #[must_use]
    pub fn is_same(&self, other: &PageRef) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }
}

impl AsRef<[u8]> for PageRef {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_slice()
    }
}

impl PartialEq for PageRef {
    fn eq(&self, other: &PageRef) -> bool {
        self.is_same(other) || self.memory == other.memory
    }
}

impl Eq for PageRef {}

impl fmt::Debug for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageRef(4096 bytes)")
    }
}
