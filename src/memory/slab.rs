//! A piece of address space for pages, mapped from the system and given back to it. The only place where pages of memory are raw:
//! a mapping is shared by pages that are read and pages that are filled, which no safe crate offers.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::types::config::PAGE_SIZE;

/// Pages of a slab.
pub(super) const SLAB_PAGES: u32 = 512;

/// All of its pages, and one more that nobody gets: a reader may look a little behind its page.
const MAPPED_BYTES: usize = (SLAB_PAGES as usize + 1) * PAGE_SIZE;

/// A mapping of `SLAB_PAGES` pages; a page takes memory from when it is filled until it is discarded.
#[derive(Debug)]
pub(super) struct Slab {
    base: NonNull<u8>,
}

// SAFETY: the mapping belongs to the slab alone, and is used by way of the functions below, whose contracts exclude that a page is
// filled or discarded while another thread uses it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// A new mapping, which takes no memory yet.
    ///
    /// # Errors
    /// The system's: there is no more address space.
    pub(super) fn map() -> io::Result<Slab> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so that nothing is mapped over.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), MAPPED_BYTES, protection, MapFlags::PRIVATE) }?;
        // A huge page would take memory for pages that are free.
        // SAFETY: the mapping that was just made, nothing in which changes. A system without huge pages refuses: so be it.
        let _ = unsafe { madvise(base, MAPPED_BYTES, Advice::LinuxNoHugepage) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Slab { base })
    }

    fn place(&self, page: u32) -> *mut u8 {
        assert!(page < SLAB_PAGES, "page {page} of a slab of {SLAB_PAGES}");
        // SAFETY: within the mapping, checked above.
        unsafe { self.base.as_ptr().add(page as usize * PAGE_SIZE) }
    }

    /// Where a page lies; behind it the mapping goes on for a page at least.
    pub(super) fn address(&self, page: u32) -> *const u8 {
        self.place(page)
    }

    /// Fills a page.
    ///
    /// # Safety
    /// Nobody else reads, fills or discards this page until this returns.
    pub(super) unsafe fn fill(&self, page: u32, bytes: &[u8; PAGE_SIZE]) {
        // SAFETY: a page of the mapping, which only this call uses, by this function's contract; `bytes` are elsewhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.place(page), PAGE_SIZE) };
    }

    /// The bytes of a page.
    ///
    /// # Safety
    /// The page was filled, and nobody fills or discards it while they are borrowed.
    pub(super) unsafe fn bytes(&self, page: u32) -> &[u8; PAGE_SIZE] {
        // SAFETY: a page of the mapping, any bytes are bytes, and they do not change, by this function's contract.
        unsafe { &*self.place(page).cast_const().cast() }
    }

    /// Gives the memory of pages back. A system that refuses, since the host has locked its memory, keeps it.
    ///
    /// # Safety
    /// Nobody else reads, fills or discards these pages until this returns.
    pub(super) unsafe fn discard(&self, pages: Range<u32>) {
        assert!(pages.start < pages.end && pages.end <= SLAB_PAGES, "pages {pages:?} of a slab");
        let bytes = (pages.end - pages.start) as usize * PAGE_SIZE;
        let start = self.place(pages.start).cast::<c_void>();
        // SAFETY: pages of a private mapping, which nobody uses, by this function's contract.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxDontNeed) };
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the mapping is this slab's, and nobody has it any more. If the system refuses, its address space stays.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), MAPPED_BYTES) };
    }
}
