//! Term and vote on the disk: two files, of which the older one is written. spec: disk-format 3.

use std::io::{ErrorKind, IoSlice};

use super::directory::Directory;
use super::disk::OpenMode;
use super::error::StorageError;
use super::metadata::Metadata;
use super::operations::failed;
use crate::types::{NodeId, Term};

/// Writes term and vote of a running node.
pub(super) struct Vault {
    directory: Directory,
    stored: Metadata,
    /// The last attempt to store a vote failed.
    in_doubt: bool,
}

impl Vault {
    /// Goes on from what is stored.
    pub(super) fn new(directory: Directory, stored: Metadata) -> Vault {
        Vault { directory, stored, in_doubt: false }
    }

    /// Stores term and vote durably. Can be called again after an error.
    pub(super) fn store(&mut self, term: Term, voted_for: NodeId) -> Result<(), StorageError> {
        let metadata = Metadata { version: self.stored.version + 1, term, voted_for };
        let directory = &self.directory;
        let path = directory.path().join(Metadata::file_name(metadata.version));
        // A failed attempt may have made the file without making its name durable.
        let retried = std::mem::replace(&mut self.in_doubt, true);
        let write = || {
            let mut file = directory.disk().open(&path, OpenMode::CreateWrite)?;
            let is_new = retried || file.is_empty()?;
            file.write_vectored_at(&[IoSlice::new(&metadata.encode())], 0)?;
            if !is_new {
                return file.sync_data();
            }
            file.sync_all()?;
            directory.disk().sync_directory(directory.path())
        };
        write().map_err(|error| failed("write", path.clone(), error))?;
        self.in_doubt = false;
        self.stored = metadata;
        Ok(())
    }
}

/// Writes metadata to the file of its version, in place, and durably.
pub(super) fn write_metadata(directory: &Directory, metadata: &Metadata) -> Result<(), StorageError> {
    let path = directory.file(Metadata::file_name(metadata.version));
    let failed = |source| StorageError::io("write", &path, source);
    let is_missing = match directory.disk().stat(&path) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(source) => return Err(failed(source)),
    };
    let mut file = directory.disk().open(&path, OpenMode::CreateWrite).map_err(failed)?;
    file.write_vectored_at(&[IoSlice::new(&metadata.encode())], 0).map_err(failed)?;
    if is_missing {
        file.sync_all().map_err(failed)?;
        return directory.sync();
    }
    file.sync_data().map_err(failed)
}
