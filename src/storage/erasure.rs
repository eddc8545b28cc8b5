//! Files that are no longer needed: they lose their name at once, and their bytes bit by bit. A file system that tells the
//! disk what it frees does so in the commit that the log's syncs wait for; a snapshot and a row of segments removed in one go
//! took tens of milliseconds there. A crash in between leaves a `tmp-` file, which every node ignores and the next start
//! removes. spec: disk-format 1, 7.1.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::disk::OpenMode;
use super::error::StorageError;
use super::operations::{list, rename};
use crate::types::config::ERASED_AT_ONCE_BYTES;

/// How the name of a removed file begins.
const REMOVED_PREFIX: &str = "tmp-removed-";

/// Takes a file's name away. Durable once the directory is synced; nothing may be erased before.
pub(super) fn take_name(directory: &Directory, name: &str) -> Result<(), StorageError> {
    let from = directory.path().join(name);
    let to = directory.path().join(format!("{REMOVED_PREFIX}{name}"));
    match rename(directory, from, to) {
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removed files whose bytes are still there.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    files: VecDeque<PathBuf>,
}

impl Erasing {
    /// All of a directory whose names have gone for good.
    pub(super) fn of(directory: &Directory) -> Result<Erasing, StorageError> {
        let names = list(directory)?.into_iter().filter(|name| name.starts_with(REMOVED_PREFIX));
        Ok(Erasing { files: names.map(|name| directory.path().join(name)).collect() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Frees some bytes. What cannot be erased is left to the next start.
    pub(super) fn step(mut self, directory: &Directory) -> Erasing {
        let Some(path) = self.files.front() else { return self };
        match shorten(directory, path) {
            Ok(true) => {}
            Ok(false) => return self,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(%error, path = %path.display(), "a removed file stays"),
        }
        self.files.pop_front();
        self
    }

    /// Frees the rest at once.
    pub(super) fn finish(self, directory: &Directory) {
        for path in self.files {
            // What stays is removed by the next start.
            let _ = directory.disk().remove(&path);
        }
    }
}

/// Cuts off a part of a file, or removes it if there is no more of it; whether it has gone.
fn shorten(directory: &Directory, path: &Path) -> std::io::Result<bool> {
    let mut file = directory.disk().open(path, OpenMode::Write)?;
    let bytes = file.len()?;
    if bytes <= ERASED_AT_ONCE_BYTES {
        drop(file);
        return directory.disk().remove(path).map(|()| true);
    }
    file.set_len(bytes - ERASED_AT_ONCE_BYTES)?;
    // Each part is a commit of its own.
    file.sync_all()?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::FileDisk;
    use super::*;

    #[test]
    fn a_removed_file_goes_bit_by_bit_and_others_stay() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(Arc::new(FileDisk), keep.path()).unwrap();
        let bytes = ERASED_AT_ONCE_BYTES * 2 + 1;
        for name in ["large", "small", "other"] {
            std::fs::write(keep.path().join(name), b"content").unwrap();
        }
        std::fs::File::options().write(true).open(keep.path().join("large")).unwrap().set_len(bytes).unwrap();
        take_name(&directory, "large").unwrap();
        take_name(&directory, "small").unwrap();
        take_name(&directory, "never there").unwrap();

        let mut erasing = Erasing::of(&directory).unwrap();
        let mut lengths = Vec::new();
        while !erasing.is_empty() {
            erasing = erasing.step(&directory);
            let length = std::fs::metadata(keep.path().join("tmp-removed-large"));
            lengths.extend(length.ok().map(|length| length.len()));
        }

        lengths.dedup();
        assert!(lengths.ends_with(&[ERASED_AT_ONCE_BYTES + 1, 1]), "{lengths:?}");
        let left: Vec<String> = list(&directory).unwrap();
        assert_eq!(left, ["other"]);
    }

    #[test]
    fn a_file_that_has_gone_meanwhile_is_no_obstacle() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(Arc::new(FileDisk), keep.path()).unwrap();
        std::fs::write(keep.path().join("one"), b"content").unwrap();
        take_name(&directory, "one").unwrap();
        let erasing = Erasing::of(&directory).unwrap();
        std::fs::remove_file(keep.path().join("tmp-removed-one")).unwrap();

        assert!(erasing.step(&directory).is_empty());
    }
}
