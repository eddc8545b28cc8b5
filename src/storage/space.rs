//! Space for the log: what its segments have allocated and not used yet, and what is free beside them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::Directory;
use crate::types::config::{DISK_RESERVE_BYTES, SEGMENT_BYTES};
use crate::types::space::LogSpace;

/// The space of one directory. The log says what it has allocated; who wants to write asks.
#[derive(Debug)]
pub struct Space {
    directory: Directory,
    allocated: AtomicU64,
    /// What was refused last, and would be still.
    wanted: AtomicU64,
}

impl Space {
    pub(super) fn new(directory: Directory) -> Space {
        Space { directory, allocated: AtomicU64::new(0), wanted: AtomicU64::new(0) }
    }

    /// Segments have room for so many bytes more.
    pub(super) fn set_allocated(&self, bytes: u64) {
        self.allocated.store(bytes, Ordering::Relaxed);
    }
}

impl Space {
    fn has(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(DISK_RESERVE_BYTES);
        let allocated = self.allocated.load(Ordering::Relaxed);
        // Whoever writes then gets the error.
        wanted <= allocated
            || self.directory.place().free_bytes().map_or(true, |free| wanted - allocated <= free)
    }
}

impl LogSpace for Space {
    fn takes(&self, bytes: u64) -> bool {
        let takes = self.has(bytes);
        // One that is larger would want another disk, not another leader.
        if !takes && bytes <= SEGMENT_BYTES {
            self.wanted.store(bytes, Ordering::Relaxed);
        }
        takes
    }

    fn is_full(&self) -> bool {
        let is_full = !self.has(self.wanted.load(Ordering::Relaxed));
        if !is_full {
            self.wanted.store(0, Ordering::Relaxed);
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file_disk::FileDisk;

    #[test]
    fn what_is_allocated_and_what_is_free_are_space_but_for_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        let free = directory.place().free_bytes().unwrap();
        let space = Space::new(directory);

        assert!(space.takes(0) && !space.is_full());
        // Others use this file system, too.
        assert!(!space.takes(free * 2) && !space.is_full(), "that was very large");
        space.set_allocated(free * 2 + DISK_RESERVE_BYTES);
        assert!(space.takes(free * 2));
    }
}
