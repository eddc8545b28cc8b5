//! The data directory as a place: checks, lock, clean-up, metadata files, how files are made. Nothing is removed
//! before the lock is held. spec: disk-format 1, 3, 6, 7.1.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskLock, OpenMode};
use super::error::StorageError;
use super::metadata::{METADATA_BYTES, Metadata};
use super::snapshot_meta::{SnapshotName, meta_name_of};

/// Longest path of a data directory in bytes. spec: disk-format 1.
const PATH_MAX_BYTES: usize = 894;

/// File that is locked.
const LOCK_NAME: &str = "dqlite-lock";

/// Prefix of files being made.
const TEMPORARY_PREFIX: &str = "tmp-";

/// The two metadata files.
const METADATA_NAMES: [&str; 2] = ["metadata1", "metadata2"];

/// A data directory that exists and can be written to.
#[derive(Clone, Debug)]
pub struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    metadata: Metadata,
}

/// The exclusive right to the directory, until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _lock: Box<dyn DiskLock>,
}

impl Directory {
    /// Checks the directory and reads the metadata. Changes nothing: a metadata file that is too short counts as
    /// missing, and `clean_up` removes it.
    ///
    /// # Errors
    /// The conditions of disk-format 7.1 and 3.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Directory, StorageError> {
        let shown = path.display().to_string();
        if path.as_os_str().as_bytes().len() > PATH_MAX_BYTES {
            return Err(StorageError::PathTooLong);
        }
        let stat = match disk.stat(path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StorageError::DirectoryMissing(shown));
            }
            Err(source) => return Err(StorageError::NoAccess { path: shown, source }),
        };
        if !stat.is_directory {
            return Err(StorageError::NotADirectory(shown));
        }
        if !stat.owner_may_write {
            return Err(StorageError::NotWritable(shown));
        }
        let mut directory = Directory { disk, path: path.to_path_buf(), metadata: Metadata::default() };
        directory.metadata = directory.read_metadata()?;
        Ok(directory)
    }

    /// Takes `dqlite-lock`. spec: disk-format 6.2.
    ///
    /// # Errors
    /// `Locked` if another node holds it.
    pub fn lock(&self) -> Result<DirectoryLock, StorageError> {
        let path = self.file(LOCK_NAME);
        match self.disk.lock(&path) {
            Ok(Some(lock)) => Ok(DirectoryLock { _lock: lock }),
            Ok(None) => Err(StorageError::Locked),
            Err(source) => Err(StorageError::io("lock", &path, source)),
        }
    }

    /// Removes `tmp-*`, snapshot data without `.meta`, `.meta` without data, metadata cut off by a crash.
    ///
    /// # Errors
    /// The directory cannot be listed, or a metadata file cannot be removed.
    pub fn clean_up(&self, _lock: &DirectoryLock) -> Result<(), StorageError> {
        let entries = self.list()?;
        let names: BTreeSet<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        for (name, bytes) in &entries {
            let orphan = if let Some(snapshot) = SnapshotName::parse(name) {
                !names.contains(meta_name_of(name).as_str()) && !names.contains(&*snapshot.meta_name())
            } else if SnapshotName::parse_meta(name).is_some() {
                !name.strip_suffix(".meta").is_some_and(|data| names.contains(data))
            } else {
                name.starts_with(TEMPORARY_PREFIX)
            };
            if orphan {
                // Such a file is never read: that it stays does no harm. spec: disk-format 7.1 "errors are ignored".
                let _ = self.disk.remove(&self.file(name));
            }
            if METADATA_NAMES.contains(&name.as_str()) && *bytes < METADATA_BYTES as u64 {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// The metadata as it was when the directory was opened; version 0 if there is none.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system it is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Names and lengths in bytes of the regular files, sorted by name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let entries =
            self.disk.list(&self.path).map_err(|source| StorageError::io("list", &self.path, source))?;
        let mut files: Vec<_> = entries
            .into_iter()
            .filter(|entry| entry.is_file)
            .map(|entry| (entry.name, entry.bytes))
            .collect();
        files.sort();
        Ok(files)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        let path = self.file(name);
        let failed = |source| StorageError::io("read", &path, source);
        let file = self.disk.open(&path, OpenMode::Read).map_err(failed)?;
        let len = usize::try_from(file.len().map_err(failed)?)
            .map_err(|_| failed(ErrorKind::FileTooLarge.into()))?;
        let mut content = vec![0; len];
        let count = file.read_at(&mut content, 0).map_err(failed)?;
        content.truncate(count);
        Ok(content.into())
    }

    /// Makes a file with this content so that it is there completely or not at all, and durable.
    /// spec: disk-format 6.1.
    ///
    /// # Errors
    /// `Exists` if there is a file with this name; those of the file system.
    pub fn make_file(&self, name: &str, content: &[&[u8]]) -> Result<(), StorageError> {
        let temporary = self.file(&format!("{TEMPORARY_PREFIX}{name}"));
        let target = self.file(name);
        let failed = |source| StorageError::io("make", &target, source);
        let mut file = self.disk.open(&temporary, OpenMode::CreateExclusive).map_err(failed)?;
        let slices: Vec<IoSlice<'_>> = content.iter().map(|part| IoSlice::new(part)).collect();
        let written = file.write_vectored_at(&slices, 0).and_then(|()| file.sync_all());
        drop(file);
        let done = match written {
            Ok(()) => match self.disk.stat(&target) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.disk.rename(&temporary, &target).map_err(failed)
                }
                Err(source) => Err(failed(source)),
                Ok(_) => Err(StorageError::Exists(name.to_owned())),
            },
            Err(source) => Err(failed(source)),
        };
        if done.is_err() {
            // The first error counts; the next start removes the file.
            let _ = self.disk.remove(&temporary);
        }
        done?;
        self.sync()
    }

    /// Renames a file of the directory. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.file(from);
        self.disk.rename(&path, &self.file(to)).map_err(|source| StorageError::io("rename", &path, source))
    }

    /// Removes a file of the directory. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.file(name);
        self.disk.remove(&path).map_err(|source| StorageError::io("remove", &path, source))
    }

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.disk.sync_directory(&self.path).map_err(|source| StorageError::io("sync", &self.path, source))
    }

    /// Reads both metadata files; the higher version counts.
    ///
    /// # Errors
    /// The conditions of disk-format 3.
    pub fn read_metadata(&self) -> Result<Metadata, StorageError> {
        let [first, second] = METADATA_NAMES.map(|name| self.read_metadata_file(name));
        match (first?, second?) {
            (None, None) => Ok(Metadata::default()),
            (Some(only), None) | (None, Some(only)) => Ok(only),
            (Some(first), Some(second)) if first.version == second.version => {
                Err(StorageError::MetadataVersions(first.version))
            }
            (Some(first), Some(second)) => Ok(if first.version > second.version { first } else { second }),
        }
    }

    fn read_metadata_file(&self, name: &'static str) -> Result<Option<Metadata>, StorageError> {
        let path = self.file(name);
        let size = match self.disk.stat(&path) {
            Ok(stat) => stat.bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StorageError::io("stat", &path, source)),
        };
        if size > METADATA_BYTES as u64 {
            return Err(StorageError::MetadataSize { name, size });
        }
        match self.read(name)?.first_chunk::<METADATA_BYTES>() {
            Some(bytes) => {
                Metadata::decode(bytes).map(Some).map_err(|error| StorageError::Metadata { name, error })
            }
            // A crash while it was written.
            None => Ok(None),
        }
    }
}
