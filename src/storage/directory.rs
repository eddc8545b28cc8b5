//! The data directory as a place: opened once, its checks, its lock, and one operation each on its files with the name in the error.
//! The path is kept for messages only. spec: disk-format 1, 6, 7.1.

use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::disk::{DirEntryInfo, Disk, DiskDirectory, DiskFile, DiskLock, Locking, OpenMode, Stat};
use super::error::StorageError;
use super::segment::parse_name;
use super::snapshot_meta::SnapshotName;
use crate::host::register::{Register, lost_in};

/// Longest path of a data directory in bytes. spec: disk-format 1.
const PATH_MAX_BYTES: usize = 894;

/// File that is locked.
const LOCK_NAME: &str = "dqlite-lock";

/// Bytes of a file that are read at once.
const READ_PIECE_BYTES: usize = 1 << 18;

/// Prefix of files being made.
pub(super) const TEMPORARY_PREFIX: &str = "tmp-";

/// A data directory that existed and could be written to when it was opened.
#[derive(Clone, Debug)]
pub struct Directory {
    place: Arc<dyn DiskDirectory>,
    path: Arc<Path>,
}

/// Whether a name is among those that `Directory::list` gave.
pub(super) fn is_listed(files: &[(String, u64)], name: &str) -> bool {
    files.binary_search_by(|(listed, _)| listed.as_str().cmp(name)).is_ok()
}

/// Whether a log has files of this name.
fn is_of_log(name: &str) -> bool {
    let is_snapshot = SnapshotName::parse(name).or_else(|| SnapshotName::parse_meta(name)).is_some();
    is_snapshot || parse_name(name).is_some()
}

/// The exclusive right to the directory. Whoever may write to it holds a clone; it is given back with the last one.
#[derive(Clone, Debug)]
pub struct DirectoryLock {
    lock: Arc<dyn DiskLock>,
    directory: Directory,
}

impl DirectoryLock {
    /// Whether it is held still: what is written without it may be lost.
    ///
    /// # Errors
    /// The directory or the file of the lock was removed, or others have closed its descriptor.
    pub fn check(&self) -> Result<(), StorageError> {
        let Err(source) = self.lock.check() else { return Ok(()) };
        self.directory.check()?;
        Err(StorageError::LockLost { path: self.directory.path.display().to_string(), source })
    }

    /// Looks at it and does not hold it.
    #[must_use]
    pub fn watch(&self) -> LockWatch {
        LockWatch { lock: Arc::downgrade(&self.lock), directory: self.directory.clone() }
    }
}

/// Whoever wants to know whether a lock is held still, while somebody holds it.
#[derive(Clone, Debug)]
pub struct LockWatch {
    lock: Weak<dyn DiskLock>,
    directory: Directory,
}

impl LockWatch {
    /// The directory of the lock.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// As `DirectoryLock::check`. One that was given back is nobody's concern.
    ///
    /// # Errors
    /// Its.
    pub fn check(&self) -> Result<(), StorageError> {
        let Some(lock) = self.lock.upgrade() else { return Ok(()) };
        DirectoryLock { lock, directory: self.directory.clone() }.check()
    }
}

impl Directory {
    /// Opens and checks the directory; changes nothing.
    ///
    /// # Errors
    /// The conditions of disk-format 7.1.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Directory, StorageError> {
        let shown = path.display().to_string();
        if path.as_os_str().as_bytes().len() > PATH_MAX_BYTES {
            return Err(StorageError::PathTooLong);
        }
        let place = match disk.open_directory(path) {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StorageError::DirectoryMissing(shown));
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(StorageError::NotADirectory(shown));
            }
            Err(source) => return Err(StorageError::NoAccess { path: shown, source }),
        };
        let status =
            place.status().map_err(|source| StorageError::NoAccess { path: shown.clone(), source })?;
        if !status.owner_may_write {
            return Err(StorageError::NotWritable(shown));
        }
        let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Ok(Directory { place, path: path.into() })
    }

    /// Takes `dqlite-lock`. spec: disk-format 6.2.
    ///
    /// # Errors
    /// `Locked` if another node holds it.
    pub fn lock(&self) -> Result<DirectoryLock, StorageError> {
        match self.place.lock(LOCK_NAME) {
            Ok(Locking::Held(lock)) => Ok(DirectoryLock { lock: Arc::from(lock), directory: self.clone() }),
            Ok(Locking::Taken { by }) => Err(StorageError::Locked { by }),
            Err(source) => Err(StorageError::io("lock", LOCK_NAME, source)),
        }
    }

    /// Where it was when it was opened: for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error if the directory was removed: what is written to it is lost.
    ///
    /// # Errors
    /// `DirectoryGone`; others have closed its descriptor. One that cannot be looked at counts as there.
    pub fn check(&self) -> Result<(), StorageError> {
        match self.place.status() {
            Ok(status) if status.is_removed => {
                Err(StorageError::DirectoryGone(self.path.display().to_string()))
            }
            Err(source) if lost_in(&source).is_some() => {
                Err(StorageError::io("look at", &self.path.display().to_string(), source))
            }
            _ => Ok(()),
        }
    }

    /// The descriptors of the directory and of its files.
    #[must_use]
    pub fn descriptors(&self) -> Register {
        self.place.descriptors()
    }

    /// The directory itself.
    pub(super) fn place(&self) -> &Arc<dyn DiskDirectory> {
        &self.place
    }

    /// Names and lengths in bytes of the regular files, sorted by name: `is_listed` depends on that.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let entries = self.entries()?;
        let files = entries.into_iter().filter(|entry| entry.stat.is_file);
        let mut files: Vec<_> = files.map(|entry| (entry.name, entry.stat.bytes)).collect();
        files.sort();
        Ok(files)
    }

    /// An error if what is no regular file has a name of the log: it may stand for what is to be read.
    ///
    /// # Errors
    /// `NoRegularFile`; those of the file system.
    pub(super) fn check_names(&self) -> Result<(), StorageError> {
        let is_other = |entry: &DirEntryInfo| !entry.stat.is_file && is_of_log(&entry.name);
        match self.entries()?.into_iter().find(is_other) {
            Some(other) => Err(StorageError::NoRegularFile(other.name)),
            None => Ok(()),
        }
    }

    fn entries(&self) -> Result<Vec<DirEntryInfo>, StorageError> {
        self.place.list().map_err(|source| StorageError::io("list", &self.path.display().to_string(), source))
    }

    /// What a name is; none if there is no such name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stat(&self, name: &str) -> Result<Option<Stat>, StorageError> {
        match self.place.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StorageError::io("stat", name, source)),
        }
    }

    /// Whether there is such a name.
    pub(super) fn exists(&self, name: &str) -> Result<bool, StorageError> {
        Ok(self.stat(name)?.is_some())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_file(&self, name: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>, StorageError> {
        self.place.open(name, mode).map_err(|source| StorageError::io("open", name, source))
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        let read = || {
            let file = self.place.open(name, OpenMode::Read)?;
            let len = usize::try_from(file.len()?).map_err(|_| ErrorKind::FileTooLarge)?;
            let mut content = Vec::new();
            // A file may be said to be longer than any memory.
            content.try_reserve_exact(len).map_err(|_| {
                io::Error::new(ErrorKind::OutOfMemory, format!("no memory for its {len} bytes"))
            })?;
            while content.len() < len {
                let done = content.len();
                content.resize(len.min(done + READ_PIECE_BYTES), 0);
                let count = file.read_at(&mut content[done..], done as u64)?;
                if done + count < content.len() {
                    content.truncate(done + count);
                    break;
                }
            }
            Ok(content.into())
        };
        read().map_err(|source| StorageError::io("read", name, source))
    }

    /// Writes a file over whatever had its name, so that a crash leaves the old content or the whole of the other. It has the name
    /// `temporary` meanwhile.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn replace_file(&self, temporary: &str, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let write = || {
            // What a crash left there may be another's file under one more name.
            match self.place.remove(temporary) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = self.place.open(temporary, OpenMode::CreateExclusive)?;
            file.write_vectored_at(&[IoSlice::new(content)], 0)?;
            file.sync_all()
        };
        write().map_err(|source| StorageError::io("write", temporary, source))?;
        self.rename(temporary, name)?;
        self.sync()
    }

    /// Renames a file of the directory. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.place.rename(from, to).map_err(|source| StorageError::io("rename", from, source))
    }

    /// A rename that may have happened before its directory could not be synced.
    pub(super) fn rename_unless_done(&self, from: &str, to: &str) -> Result<(), StorageError> {
        if !self.exists(from)? && self.exists(to)? {
            return Ok(());
        }
        self.rename(from, to)
    }

    /// Removes a file of the directory. Durable after `sync`.
    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.place.remove(name).map_err(|source| StorageError::io("remove", name, source))
    }

    /// The same for one that may have been removed before.
    pub(super) fn remove_if_there(&self, name: &str) -> Result<(), StorageError> {
        match self.place.remove(name) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StorageError::io("remove", name, source))
            }
            _ => Ok(()),
        }
    }

    /// Makes created, renamed and removed names durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let shown = || self.path.display().to_string();
        self.place.sync().map_err(|source| StorageError::io("sync directory", &shown(), source))
    }
}
