//! One immutable page, shared by every root that contains it: in memory or in the page file.

use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::file::{PageFile, Slot};
use crate::types::PageNumber;
use crate::types::config::{HEAP_AHEAD_PAGES, PAGE_SIZE};
use crate::types::payload::{Chunk, StoredBytes};
use crate::types::scratch::ScratchDisk;

/// An immutable page of 4096 bytes; a clone shares it. Where it lives is hidden.
#[derive(Clone)]
pub struct PageRef(Place);

#[derive(Clone)]
enum Place {
    Memory(Arc<[u8; PAGE_SIZE]>),
    File(Arc<Slot>),
}

/// The memory of a page, for `Bytes`.
struct Shared(Arc<[u8; PAGE_SIZE]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Lets the heap grow for many pages at once. glibc extends the heaps of threads by what one request lacks, with a system call
/// each: for a page at a time that was a quarter of the time in which a large database is read from a snapshot. Memory that
/// was asked for and given back stays with the heap, and is what the next pages are made of. False: there is no more memory.
fn grow_heap_ahead() -> bool {
    thread_local!(static PAGES_LEFT: Cell<usize> = const { Cell::new(0) });
    PAGES_LEFT.with(|left| {
        if left.get() == 0 {
            if !has_memory(HEAP_AHEAD_PAGES * PAGE_SIZE) {
                return false;
            }
            left.set(HEAP_AHEAD_PAGES);
        }
        left.set(left.get() - 1);
        true
    })
}

/// Whether so many bytes can be had. They are given back at once, so that another thread may take them in between: what is made
/// of them is made of many small pieces, none of which could be refused without ending the process.
#[must_use]
pub fn has_memory(bytes: usize) -> bool {
    black_box(&mut Vec::<u8>::new()).try_reserve_exact(bytes).is_ok()
}

impl PageRef {
    /// A page in memory with a copy of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; PAGE_SIZE]) -> PageRef {
        // Whoever can do without the page has asked before.
        let _ = grow_heap_ahead();
        PageRef(Place::Memory(Arc::new(*bytes)))
    }

    /// The bytes as a part of an entry, sharing the page.
    #[must_use]
    pub fn chunk(&self) -> Chunk {
        match &self.0 {
            Place::Memory(bytes) => Chunk::Memory(Bytes::from_owner(Shared(Arc::clone(bytes)))),
            Place::File(slot) => {
                let slot: Arc<dyn StoredBytes> = Arc::<Slot>::clone(slot);
                Chunk::Stored(slot)
            }
        }
    }

    /// Gives the bytes to `read`.
    ///
    /// # Errors
    /// The page file cannot be read; never for a page in memory, as page 1 always is.
    pub fn with<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        match &self.0 {
            Place::Memory(bytes) => Ok(read(bytes)),
            Place::File(slot) => slot.with(read),
        }
    }

    /// The bytes where they lie, as long as anybody holds the page. `None`: in the page file.
    #[must_use]
    pub fn in_memory(&self) -> Option<&[u8; PAGE_SIZE]> {
        match &self.0 {
            Place::Memory(bytes) => Some(bytes),
            Place::File(_) => None,
        }
    }

    /// As `with`, for whoever reads all pages once: what others use stays in memory.
    ///
    /// # Errors
    /// As `with`.
    pub fn scan<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        match &self.0 {
            Place::Memory(bytes) => Ok(read(bytes)),
            Place::File(slot) => slot.scan(read),
        }
    }

    /// Whether both are one page.
    #[must_use]
    pub fn is_same(&self, other: &PageRef) -> bool {
        match (&self.0, &other.0) {
            (Place::Memory(left), Place::Memory(right)) => Arc::ptr_eq(left, right),
            (Place::File(left), Place::File(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }
}

/// A page that cannot be read equals none but itself: it counts as changed.
impl PartialEq for PageRef {
    fn eq(&self, other: &PageRef) -> bool {
        match (&self.0, &other.0) {
            _ if self.is_same(other) => true,
            (Place::Memory(left), Place::Memory(right)) => left == right,
            (Place::File(left), Place::File(right)) if left.checksum() != right.checksum() => false,
            _ => self
                .scan(|left| other.scan(|right| left == right))
                .is_ok_and(|equal| equal.is_ok_and(|equal| equal)),
        }
    }
}

impl Eq for PageRef {}

impl fmt::Debug for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Memory(_) => f.write_str("PageRef(4096 bytes)"),
            Place::File(slot) => f.debug_tuple("PageRef").field(slot).finish(),
        }
    }
}

/// Where the pages of a store live: in memory, or in a page file. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PageSpace {
    file: Option<FileSpace>,
}

#[derive(Clone, Debug)]
struct FileSpace {
    pages: Arc<PageFile>,
    scratch: Arc<dyn ScratchDisk>,
}

impl PageSpace {
    /// Memory.
    #[must_use]
    pub fn memory() -> PageSpace {
        PageSpace::default()
    }

    /// A page file on `scratch`, of which about `cache_bytes` stay in memory.
    ///
    /// # Errors
    /// There is no room for a file.
    pub fn on_disk(scratch: Arc<dyn ScratchDisk>, cache_bytes: usize) -> io::Result<PageSpace> {
        let pages = PageFile::new(scratch.create()?, cache_bytes);
        Ok(PageSpace { file: Some(FileSpace { pages, scratch }) })
    }

    /// The page file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<PageFile>> {
        self.file.as_ref().map(|file| &file.pages)
    }

    /// Where files of the same kind can be made, if pages are not in memory.
    #[must_use]
    pub fn scratch(&self) -> Option<&Arc<dyn ScratchDisk>> {
        self.file.as_ref().map(|file| &file.scratch)
    }

    /// As `page`, for whoever can do without it.
    ///
    /// # Errors
    /// As `page`; `OutOfMemory` if memory for it, and for what goes with it, is short.
    pub fn page_if_possible(&self, number: PageNumber, bytes: &[u8; PAGE_SIZE]) -> io::Result<PageRef> {
        if !grow_heap_ahead() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.page(number, bytes)
    }

    /// A page with a copy of these bytes. Page 1 stays in memory: it is asked for the size of the database.
    ///
    /// # Errors
    /// The page file cannot be written.
    pub fn page(&self, number: PageNumber, bytes: &[u8; PAGE_SIZE]) -> io::Result<PageRef> {
        match &self.file {
            Some(file) if number != PageNumber(1) => Ok(PageRef(Place::File(file.pages.write(bytes)?))),
            _ => Ok(PageRef::new(bytes)),
        }
    }

    /// A page with the bytes of a chunk, which is not copied if it is a page of this space already.
    ///
    /// # Errors
    /// The page file cannot be read or written, the chunk is not a page long.
    pub fn page_of(&self, number: PageNumber, chunk: &Chunk) -> io::Result<PageRef> {
        if let (Some(file), Chunk::Stored(stored)) = (&self.file, chunk)
            && number != PageNumber(1)
            && let Ok(slot) = Arc::clone(stored).into_any().downcast::<Slot>()
            && slot.is_of(&file.pages)
        {
            return Ok(PageRef(Place::File(slot)));
        }
        let bytes = chunk.read()?;
        let page = <&[u8; PAGE_SIZE]>::try_from(&bytes[..])
            .map_err(|_| io::Error::other(format!("a page of {} bytes", bytes.len())))?;
        self.page(number, page)
    }
}
