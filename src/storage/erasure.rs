//! Files that are no longer needed: they lose their name at once, and their bytes bit by bit, through the descriptor that is left. A
//! file system that tells the disk what it frees does so in the commit that the log's syncs wait for; a snapshot and a row of segments
//! removed in one go took tens of milliseconds there. A crash frees the rest.

use std::collections::VecDeque;

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use crate::types::config::{ERASED_AT_ONCE_BYTES, ERASED_FILES_MAX};

/// Removed files whose bytes are still there. They are freed at the latest when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    files: VecDeque<Box<dyn DiskFile>>,
}

impl Erasing {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// More files are taken when some have gone: each keeps a descriptor of the process.
    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= ERASED_FILES_MAX
    }

    /// Takes a file's name away, if it is there. Durable once the directory is synced; nothing may be erased before.
    pub(super) fn take_name(&mut self, directory: &Directory, name: &str) -> Result<(), StorageError> {
        // Where it cannot be opened, it goes at once.
        let file = directory.place().open(name, OpenMode::Write).ok().filter(|_| !self.is_full());
        directory.remove_if_there(name)?;
        self.files.extend(file);
        Ok(())
    }

    /// Frees some bytes.
    pub(super) fn step(&mut self) {
        let Some(file) = self.files.front_mut() else { return };
        match shorten(file.as_mut()) {
            Ok(false) => return,
            Ok(true) => {}
            // It goes with its descriptor.
            Err(error) => tracing::debug!(%error, "a removed file is freed at once"),
        }
        self.files.pop_front();
    }
}

/// Cuts off a part of a file; whether hardly any of it is left.
fn shorten(file: &mut dyn DiskFile) -> std::io::Result<bool> {
    let bytes = file.len()?;
    if bytes <= ERASED_AT_ONCE_BYTES {
        return Ok(true);
    }
    file.set_len(bytes - ERASED_AT_ONCE_BYTES)?;
    // Each part is a commit of its own.
    file.sync_all()?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::file_disk::FileDisk;
    use super::*;

    #[test]
    fn a_removed_file_loses_its_name_at_once_and_its_bytes_bit_by_bit() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, keep.path()).unwrap();
        for name in ["large", "small", "other"] {
            std::fs::write(keep.path().join(name), b"content").unwrap();
        }
        let large = std::fs::File::options().write(true).open(keep.path().join("large")).unwrap();
        large.set_len(ERASED_AT_ONCE_BYTES * 2 + 1).unwrap();
        let mut erasing = Erasing::default();
        for name in ["large", "small", "never there"] {
            erasing.take_name(&directory, name).unwrap();
        }

        assert_eq!(directory.list().unwrap(), [("other".to_owned(), 7)]);
        let mut lengths = Vec::new();
        while !erasing.is_empty() {
            erasing.step();
            lengths.push(large.metadata().unwrap().len());
        }

        lengths.dedup();
        assert_eq!(lengths, [ERASED_AT_ONCE_BYTES + 1, 1]);
    }

    #[test]
    fn the_descriptors_of_removed_files_are_bounded() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, keep.path()).unwrap();
        let mut erasing = Erasing::default();
        for number in 0..=ERASED_FILES_MAX {
            let name = number.to_string();
            std::fs::write(keep.path().join(&name), b"content").unwrap();
            assert_eq!(erasing.is_full(), number == ERASED_FILES_MAX);
            erasing.take_name(&directory, &name).unwrap();
        }

        assert_eq!(erasing.files.len(), ERASED_FILES_MAX);
        assert!(directory.list().unwrap().is_empty());
    }
}
