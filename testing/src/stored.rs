//! What the data directory of a node that does not run holds. It is read from a copy: reading closes segments and sets
//! damaged ones aside, and the node is to find its directory as it left it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dqlite::storage::directory::Directory;
use dqlite::storage::file_disk::FileDisk;
use dqlite::storage::load::{LoadOptions, load};
use dqlite::types::clock::SystemWallClock;

/// The entries of a data directory, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Index of the newest snapshot, 0 without one.
    pub snapshot: u64,
    /// Index of the first entry.
    pub first: u64,
    /// Index of the last entry or of the snapshot, whichever is later.
    pub last: u64,
    /// Whether an entry has a lower term than the one before it.
    pub terms_fall: bool,
}

impl Stored {
    /// Reads the directory by way of `copy`, which is made and removed.
    ///
    /// # Errors
    /// It cannot be copied, or no node would start on it.
    pub fn read(directory: &Path, copy: &Path) -> io::Result<Stored> {
        std::fs::create_dir(copy)?;
        let read = read_copy(directory, copy);
        std::fs::remove_dir_all(copy)?;
        read
    }

    /// Whether this entry is there by itself, not as a part of a snapshot.
    #[must_use]
    pub fn holds(&self, index: u64) -> bool {
        (self.first..=self.last).contains(&index)
    }
}

fn read_copy(directory: &Path, copy: &Path) -> io::Result<Stored> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A socket or a folder is no part of the log.
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    let directory = Directory::open(&FileDisk, copy).map_err(io::Error::other)?;
    let lock = directory.lock().map_err(io::Error::other)?;
    let options = LoadOptions { auto_recovery: true, wall_clock: Arc::new(SystemWallClock), payloads: None };
    let loaded = load(&directory, &lock, &options).map_err(io::Error::other)?;
    Ok(Stored {
        snapshot: loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.meta.index.0),
        first: loaded.first_index.0,
        last: loaded.last_index().0,
        terms_fall: loaded.entries.windows(2).any(|pair| pair[1].term < pair[0].term),
    })
}
