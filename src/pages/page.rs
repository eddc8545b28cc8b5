//! One immutable page, shared by every root that contains it: in memory or in the page file.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use super::file::{Loss, PageFile, Slot};
use super::memory::MemoryPage;
use crate::memory::{Arena, Returned};
use crate::types::PageNumber;
use crate::types::config::{HEAP_AHEAD_PAGES, PAGE_SIZE};
use crate::types::payload::{Chunk, PayloadStore, StoredBytes};
use crate::types::scratch::ScratchDisk;
use crate::types::tasks::BlockingPool;

/// An immutable page of 4096 bytes; a clone shares it. Where it lives is hidden.
#[derive(Clone)]
pub struct PageRef(Place);

#[derive(Clone)]
enum Place {
    Memory(Arc<MemoryPage>),
    File(Arc<Slot>),
}

/// Whether there is memory for what goes with the next page: its place in lists, a piece of a journal. It is small, and none of
/// it could be refused without ending the process.
fn has_memory_beside_pages() -> bool {
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
    /// A page in memory of its own with a copy of these bytes: for the few that are made where no space is known.
    #[must_use]
    pub fn new(bytes: &[u8; PAGE_SIZE]) -> PageRef {
        PageRef(Place::Memory(Arc::new(MemoryPage::alone(bytes))))
    }

    /// The bytes as a part of an entry, sharing the page.
    #[must_use]
    pub fn chunk(&self) -> Chunk {
        let stored: Arc<dyn StoredBytes> = match &self.0 {
            Place::Memory(page) => Arc::<MemoryPage>::clone(page),
            Place::File(slot) => Arc::<Slot>::clone(slot),
        };
        Chunk::Stored(stored)
    }

    /// Gives the bytes to `read`.
    ///
    /// # Errors
    /// The page file cannot be read; never for a page in memory, as page 1 always is.
    pub fn with<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        match &self.0 {
            Place::Memory(page) => Ok(read(page.bytes())),
            Place::File(slot) => slot.with(read),
        }
    }

    /// Where the bytes lie, as long as anybody holds the page, if `behind` bytes after them are memory, too, whatever is in them.
    /// `None`: in the page file, or nobody knows what comes after them.
    #[must_use]
    pub fn in_place(&self, behind: usize) -> Option<*const u8> {
        match &self.0 {
            Place::Memory(page) => page.in_place(behind),
            Place::File(_) => None,
        }
    }

    /// As `with`, for whoever reads all pages once: what others use stays in memory.
    ///
    /// # Errors
    /// As `with`.
    pub fn scan<T>(&self, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> io::Result<T> {
        match &self.0 {
            Place::Memory(page) => Ok(read(page.bytes())),
            Place::File(slot) => slot.scan(read),
        }
    }

    pub(super) fn is_in_file(&self) -> bool {
        matches!(self.0, Place::File(_))
    }

    /// This page and those of `next` that lie behind it in the page file without a gap, `most` altogether.
    pub(super) fn run<'a>(
        &'a self,
        next: impl Iterator<Item = &'a PageRef>,
        most: usize,
    ) -> Vec<&'a PageRef> {
        let mut run = vec![self];
        for page in next.take(most.saturating_sub(1)) {
            match (&run[run.len() - 1].0, &page.0) {
                (Place::File(before), Place::File(slot)) if slot.is_behind(before) => run.push(page),
                _ => break,
            }
        }
        run
    }

    /// Reads a run at once; what was read is to be asked about with `holds`.
    pub(super) fn read_run(run: &[&PageRef], window: &mut [u8]) -> io::Result<()> {
        match run {
            [PageRef(Place::File(first)), ..] => first.read_from(&mut window[..run.len() * PAGE_SIZE]),
            _ => Err(io::Error::other("no run in the page file")),
        }
    }

    /// Whether these bytes, which were read from the page file, are what was written.
    pub(super) fn holds(&self, bytes: &[u8; PAGE_SIZE]) -> bool {
        matches!(&self.0, Place::File(slot) if slot.holds(bytes))
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
            (Place::Memory(left), Place::Memory(right)) => left.bytes() == right.bytes(),
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
#[derive(Clone, Debug)]
pub struct PageSpace {
    arena: Arc<Arena>,
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
        PageSpace { arena: Arena::new(), file: None }
    }

    /// A page file on `scratch`, of which about `cache_bytes` stay in memory.
    ///
    /// # Errors
    /// There is no room for a file.
    pub fn on_disk(scratch: Arc<dyn ScratchDisk>, cache_bytes: usize) -> io::Result<PageSpace> {
        let arena = Arena::new();
        let pages = PageFile::new(scratch.create()?, cache_bytes, arena.returned().clone());
        Ok(PageSpace { arena, file: Some(FileSpace { pages, scratch }) })
    }

    /// From here on what is free is given back to the system on this pool, and not where the last user of a page drops it.
    pub fn set_pool(&self, pool: &Arc<dyn BlockingPool>) {
        self.arena.set_pool(Arc::clone(pool));
        if let Some(file) = &self.file {
            file.pages.set_pool(Arc::clone(pool));
        }
    }

    /// From here on this hears of pages that cannot be read back from the page file, if there is one.
    pub fn set_loss(&self, loss: Loss) {
        if let Some(file) = &self.file {
            file.pages.set_loss(loss);
        }
    }

    /// What was given back to the system.
    #[must_use]
    pub fn returned(&self) -> &Returned {
        self.arena.returned()
    }

    /// The page file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<PageFile>> {
        self.file.as_ref().map(|file| &file.pages)
    }

    /// Memory for pages, for those that are not in the page file.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Where payloads of entries go, so that their pages need not be copied when they are applied.
    #[must_use]
    pub fn payloads(&self) -> Arc<dyn PayloadStore> {
        match &self.file {
            Some(file) => Arc::<PageFile>::clone(&file.pages),
            None => Arc::new(MemoryPages(Arc::clone(&self.arena))),
        }
    }

    /// Where files of the same kind can be made, if pages are not in memory.
    #[must_use]
    pub fn scratch(&self) -> Option<&Arc<dyn ScratchDisk>> {
        self.file.as_ref().map(|file| &file.scratch)
    }

    /// As `page`, for a transaction, which can do without it: what log and snapshots need is left to them.
    ///
    /// # Errors
    /// As `page`; `OutOfMemory` if memory for what goes with it is short.
    pub fn page_if_possible(&self, number: PageNumber, bytes: &[u8; PAGE_SIZE]) -> io::Result<PageRef> {
        if !has_memory_beside_pages() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        match &self.file {
            Some(file) if number != PageNumber(1) => {
                file.pages.write_leaving_reserve(bytes).map(|slot| PageRef(Place::File(slot)))
            }
            _ => self.page(number, bytes),
        }
    }

    /// A page with a copy of these bytes. Page 1 stays in memory: it is asked for the size of the database.
    ///
    /// # Errors
    /// The page file cannot be written; `OutOfMemory`.
    pub fn page(&self, number: PageNumber, bytes: &[u8; PAGE_SIZE]) -> io::Result<PageRef> {
        Ok(PageRef(match &self.file {
            Some(file) if number != PageNumber(1) => Place::File(file.pages.write(bytes)?),
            _ => Place::Memory(Arc::new(MemoryPage::Arena(self.arena.page(bytes)?))),
        }))
    }

    /// A page with the bytes of a chunk, which is not copied if it is a page of this space already.
    ///
    /// # Errors
    /// The page file cannot be read or written, the chunk is not a page long; `OutOfMemory`.
    pub fn page_of(&self, number: PageNumber, chunk: &Chunk) -> io::Result<PageRef> {
        if let Chunk::Stored(stored) = chunk
            && let Some(page) = self.own(number, Arc::clone(stored).into_any())
        {
            return Ok(page);
        }
        let bytes = chunk.read()?;
        let page = <&[u8; PAGE_SIZE]>::try_from(&bytes[..])
            .map_err(|_| io::Error::other(format!("a page of {} bytes", bytes.len())))?;
        self.page(number, page)
    }

    /// What was stored, if that is where this page belongs.
    fn own(&self, number: PageNumber, stored: Arc<dyn Any + Send + Sync>) -> Option<PageRef> {
        match &self.file {
            Some(file) if number != PageNumber(1) => {
                let slot = stored.downcast::<Slot>().ok()?;
                slot.is_of(&file.pages).then_some(PageRef(Place::File(slot)))
            }
            _ => stored.downcast::<MemoryPage>().ok().map(|page| PageRef(Place::Memory(page))),
        }
    }
}

/// Payloads in memory.
#[derive(Debug)]
struct MemoryPages(Arc<Arena>);

impl PayloadStore for MemoryPages {
    fn store(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<dyn StoredBytes>> {
        Ok(Arc::new(MemoryPage::Arena(self.0.page(bytes)?)))
    }

    fn may_wait(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
