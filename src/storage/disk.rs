//! File operations below the storage: the only way to the file system, so that faults, power cuts and a simulation
//! can be put beneath. A directory is opened once, and all its files are reached from there, whatever becomes of the path that
//! led to it. Nothing is retried and nothing is durable before a sync returned without an error.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::host::register::Register;
use crate::types::scratch::ScratchFile;

/// How a file is opened. A symbolic link is never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Only read; the file exists.
    Read,
    /// Read and write in place; the file exists.
    Write,
    /// Read and write in place; created if missing, not truncated.
    CreateWrite,
    /// Read and write; the file does not exist yet.
    CreateExclusive,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntryInfo {
    /// The name. One that is not UTF-8 is not listed, nor one whose status cannot be read: they are none of ours.
    pub name: String,
    /// What it names.
    pub stat: Stat,
}

/// What a name of a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is a regular file; a symbolic link to one is not.
    pub is_file: bool,
}

/// What an open directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryStatus {
    /// Whether its owner may write to it.
    pub owner_may_write: bool,
    /// It was removed: what is written to it is lost.
    pub is_removed: bool,
}

/// What came of an attempt to lock a file.
#[derive(Debug)]
pub enum Locking {
    /// It is locked.
    Held(Box<dyn DiskLock>),
    /// Somebody else holds the lock.
    Taken {
        /// Who, as far as that can be found out.
        by: Option<String>,
    },
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Opens a directory; symbolic links in the path are followed.
    ///
    /// # Errors
    /// Those of the file system.
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskDirectory>>;
}

/// An open directory. Names are those of files in it, without any path.
pub trait DiskDirectory: Send + Sync + Debug {
    /// What the directory is.
    ///
    /// # Errors
    /// Those of the file system.
    fn status(&self) -> io::Result<DirectoryStatus>;

    /// The names in it, in any order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self) -> io::Result<Vec<DirEntryInfo>>;

    /// Opens a file; a created one has mode 0600.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for `CreateExclusive`.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// A file with mode 0600 that has no name until `DiskFile::link`; none where the file system or the machine cannot do that.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_unnamed(&self) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// A file without a name that never gets one.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_scratch(&self) -> io::Result<Box<dyn ScratchFile>>;

    /// Bytes that are free for this process in the file system of the directory.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Renames, over an existing file too. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after `sync`.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed in the directory durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&self) -> io::Result<()>;

    /// What the name is; links are not followed.
    ///
    /// # Errors
    /// Those of the file system; `NotFound` if there is nothing.
    fn stat(&self, name: &str) -> io::Result<Stat>;

    /// The descriptors of the directory and of its files, where there are such.
    fn descriptors(&self) -> Register {
        Register::default()
    }

    /// Creates the file if missing and locks it exclusively, without waiting.
    ///
    /// # Errors
    /// Those of the file system.
    fn lock(&self, name: &str) -> io::Result<Locking>;
}

/// An open file.
pub trait DiskFile: Send + Debug {
    /// Reads at `offset` in bytes; less than asked for only at the end of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all slices one after the other from `offset` in bytes.
    ///
    /// # Errors
    /// Those of the file system; any part may have been written.
    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes the file this long, with zeros that take up space but were not written. False where the file system cannot:
    /// nothing has changed.
    ///
    /// # Errors
    /// Those of the file system, above all that there is no space.
    fn allocate(&mut self, bytes: u64) -> io::Result<bool>;

    /// Makes the content durable, and the length where it is needed to read it.
    ///
    /// # Errors
    /// Those of the file system; nothing since the last good sync counts then.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Makes content and attributes durable.
    ///
    /// # Errors
    /// Those of the file system; nothing since the last good sync counts then.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Gives a file of `DiskDirectory::create_unnamed` its name. Durable after a sync of the directory.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` if the name is taken.
    fn link(&mut self, name: &str) -> io::Result<()>;

    /// The same open file once more.
    ///
    /// # Errors
    /// Those of the operating system.
    fn duplicate(&self) -> io::Result<Box<dyn DiskFile>>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are no bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock that is held until it is dropped.
pub trait DiskLock: Send + Sync + Debug {
    /// Whether it is held still.
    ///
    /// # Errors
    /// Others have closed its descriptor, or its file was removed or replaced: somebody else may hold a lock of that name.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}
