//! Keeps an open file open whatever is closed: a mapping of it, which nobody reads, holds it without a descriptor. What belongs to the
//! open file, above all its lock, stays until the mapping goes.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Any length is a page.
const MAPPED_BYTES: usize = 1;

/// A mapping that holds an open file.
#[derive(Debug)]
pub struct Pin(*mut c_void);

// SAFETY: an address, at which nobody reads or writes.
unsafe impl Send for Pin {}
// SAFETY: as above.
unsafe impl Sync for Pin {}

impl Pin {
    /// Holds the file, if its file system has mappings. Not in processes that are forked.
    #[must_use]
    pub fn new(file: &impl AsFd) -> Option<Pin> {
        // SAFETY: no address is asked for, so that nothing is mapped over; nothing in the mapping may be touched.
        let mapped =
            unsafe { mmap(ptr::null_mut(), MAPPED_BYTES, ProtFlags::empty(), MapFlags::PRIVATE, file, 0) };
        let pin = Pin(mapped.ok()?);
        // SAFETY: the mapping that was just made, nothing in which changes. Where it is refused, a child holds the file as it does
        // by its copy of the descriptor.
        let _ = unsafe { madvise(pin.0, MAPPED_BYTES, Advice::LinuxDontFork) };
        Some(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's, and nobody has looked into it. If the system refuses, the file stays open.
        let _ = unsafe { munmap(self.0, MAPPED_BYTES) };
    }
}
