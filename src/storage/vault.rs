//! Term and vote on the disk: two files, of which the older one is written. spec: disk-format 3.

use std::io::{self, IoSlice};

use super::directory::{Directory, DirectoryLock};
use super::disk::OpenMode;
use super::error::StorageError;
use super::housekeeping::Done;
use super::metadata::{METADATA_BYTES, METADATA_NAMES, Metadata};
use crate::types::{NodeId, Term};

/// Reads both metadata files; the higher version counts, 0 is that of none. Changes nothing: a file that is too short counts as missing.
///
/// # Errors
/// The conditions of disk-format 3.
pub fn read_metadata(directory: &Directory) -> Result<Metadata, StorageError> {
    let [first, second] = METADATA_NAMES.map(|name| read_file(directory, name));
    match (first?, second?) {
        (None, None) => Ok(Metadata::default()),
        (Some(only), None) | (None, Some(only)) => Ok(only),
        (Some(first), Some(second)) if first.version == second.version => {
            Err(StorageError::MetadataVersions(first.version))
        }
        (Some(first), Some(second)) => Ok(if first.version > second.version { first } else { second }),
    }
}

fn read_file(directory: &Directory, name: &'static str) -> Result<Option<Metadata>, StorageError> {
    let Some(stat) = directory.stat(name)? else { return Ok(None) };
    if !stat.is_file {
        return Err(StorageError::NoRegularFile(name.to_owned()));
    }
    if stat.bytes > METADATA_BYTES as u64 {
        return Err(StorageError::MetadataSize { name, size: stat.bytes });
    }
    match directory.read(name)?.first_chunk::<METADATA_BYTES>() {
        Some(bytes) => {
            Metadata::decode(bytes).map(Some).map_err(|error| StorageError::Metadata { name, error })
        }
        // A crash while it was written.
        None => Ok(None),
    }
}

/// What the vault can be asked to do.
pub enum VaultRequest {
    /// Stores term and vote.
    Store {
        /// Current term.
        term: Term,
        /// Node voted for in that term, 0 for none.
        voted_for: NodeId,
        /// Called when it is synced.
        done: Done,
    },
    /// Makes the second file if there is but one, so that a full disk can still store votes where files are overwritten in place.
    MakeBoth,
}

/// Writes term and vote of a running node. Nothing else writes its files.
#[derive(Debug)]
pub struct Vault {
    directory: Directory,
    /// Held as long as votes may be stored.
    lock: DirectoryLock,
    stored: Metadata,
    /// The last attempt to store a vote failed.
    in_doubt: bool,
    /// That it fails was told.
    told: bool,
}

impl Vault {
    /// Goes on from what is stored.
    #[must_use]
    pub fn new(directory: Directory, lock: DirectoryLock, stored: Metadata) -> Vault {
        Vault { directory, lock, stored, in_doubt: false, told: false }
    }

    /// Works on a request; gives it back if it is to be tried again. With `is_last_try`, or when the directory has gone, it gets
    /// its error instead.
    pub fn process(&mut self, request: VaultRequest, is_last_try: bool) -> Option<VaultRequest> {
        match request {
            VaultRequest::Store { term, voted_for, done } => match self.store(term, voted_for) {
                Err(error) if !is_last_try && !error.is_final() && self.directory.check().is_ok() => {
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::error!(%error, "term and vote cannot be stored");
                    }
                    return Some(VaultRequest::Store { term, voted_for, done });
                }
                result => {
                    if result.is_ok() && std::mem::replace(&mut self.told, false) {
                        tracing::info!("term and vote are stored again");
                    }
                    done(result);
                }
            },
            VaultRequest::MakeBoth => {
                if let Err(error) = self.make_both() {
                    tracing::debug!(%error, "the second file of term and vote could not be made");
                }
            }
        }
        None
    }

    fn make_both(&mut self) -> Result<(), StorageError> {
        let whole = METADATA_BYTES as u64;
        for name in METADATA_NAMES {
            let is_missing = self.directory.stat(name)?.is_none_or(|stat| stat.bytes < whole);
            // The first vote makes the first file.
            if is_missing && self.stored.version > 0 {
                return self.store(self.stored.term, self.stored.voted_for);
            }
        }
        Ok(())
    }

    /// Stores term and vote durably. Can be called again after an error.
    fn store(&mut self, term: Term, voted_for: NodeId) -> Result<(), StorageError> {
        let metadata = Metadata { version: self.stored.version + 1, term, voted_for };
        self.lock.check()?;
        // A failed attempt may have made the file without making its name durable.
        let may_be_new = std::mem::replace(&mut self.in_doubt, true);
        write_file(&self.directory, &metadata, may_be_new)?;
        // Whoever has the lock by now may have read the term before this one was there.
        self.lock.check()?;
        self.in_doubt = false;
        self.stored = metadata;
        Ok(())
    }
}

/// Writes metadata to the file of its version, in place, and durably.
pub(super) fn write_metadata(directory: &Directory, metadata: &Metadata) -> Result<(), StorageError> {
    write_file(directory, metadata, false)
}

/// `may_be_new` says that the name may not be durable, although the file has content.
fn write_file(directory: &Directory, metadata: &Metadata, may_be_new: bool) -> Result<(), StorageError> {
    let name = Metadata::file_name(metadata.version);
    let write = || -> io::Result<()> {
        let mut file = directory.place().open(name, OpenMode::CreateWrite)?;
        let is_new = may_be_new || file.is_empty()?;
        file.write_vectored_at(&[IoSlice::new(&metadata.encode())], 0)?;
        if !is_new {
            return file.sync_data();
        }
        file.sync_all()?;
        directory.place().sync()
    };
    write().map_err(|source| StorageError::io("write", name, source))
}
