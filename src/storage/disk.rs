//! File operations below the storage: the only way to the file system, so that faults, power cuts and a simulation
//! can be put beneath. Nothing is retried and nothing is durable before a sync returned without an error.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Permissions of every file that is made. spec: disk-format 1.
const FILE_MODE: u32 = 0o600;

/// Slices handed to one write (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// How a file is opened.
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
    /// Name without the directory. A name that is not UTF-8 is not listed: it is none of ours.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether its owner may write to it.
    pub owner_may_write: bool,
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntryInfo>>;

    /// Opens a file; a created one has mode 0600.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for `CreateExclusive`.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames, over an existing file too. Durable after `sync_directory`.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after `sync_directory`.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created, renamed and removed in the directory durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// What the path is; links are followed.
    ///
    /// # Errors
    /// Those of the file system; `NotFound` if there is nothing.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// Creates the file if missing and locks it exclusively, without waiting; `None` if somebody else holds the lock.
    ///
    /// # Errors
    /// Those of the file system.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
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
pub trait DiskLock: Send + Debug {}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntryInfo>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = OsString::into_string(entry.file_name()) else {
                continue;
            };
            match std::fs::metadata(entry.path()) {
                Ok(metadata) => {
                    entries.push(DirEntryInfo { name, bytes: metadata.len(), is_file: metadata.is_file() });
                }
                // Removed since, or a link to nothing.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateWrite => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateExclusive => {
                options.write(true).create_new(true);
            }
        }
        Ok(Box::new(OpenFile { file: options.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let metadata = std::fs::metadata(path)?;
        Ok(Stat {
            bytes: metadata.len(),
            is_directory: metadata.is_dir(),
            owner_may_write: metadata.mode() & 0o200 != 0,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(HeldLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct OpenFile {
    file: File,
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut position = offset;
        let mut slices: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).map(|slice| IoSlice::new(slice)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let together = &left[..left.len().min(SLICES_MAX)];
            let written = match rustix::io::pwritev(&self.file, together, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            position += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<bool> {
        use rustix::io::Errno;
        loop {
            return match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
                Ok(()) => Ok(true),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
                Err(error) => Err(error.into()),
            };
        }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// `flock` of an open file; closing the file releases it.
#[derive(Debug)]
struct HeldLock {
    _file: File,
}

impl DiskLock for HeldLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_space_reads_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = FileDisk.open(&path, OpenMode::CreateExclusive).unwrap();

        if file.allocate(10_000).unwrap() {
            assert_eq!(std::fs::read(&path).unwrap(), [0; 10_000]);
        }
    }

    #[test]
    fn more_slices_than_one_call_takes_are_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = FileDisk.open(&path, OpenMode::CreateExclusive).unwrap();
        let pieces: Vec<Vec<u8>> =
            (0..SLICES_MAX * 2 + 7).map(|piece| vec![piece as u8; piece % 3]).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();

        file.write_vectored_at(&slices, 5).unwrap();

        assert_eq!(std::fs::read(&path).unwrap()[5..], pieces.concat());
    }

    #[test]
    fn a_lock_is_exclusive_until_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dqlite-lock");

        let held = FileDisk.lock(&path).unwrap().unwrap();
        assert!(FileDisk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(FileDisk.lock(&path).unwrap().is_some());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn slices_are_written_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut file = FileDisk.open(&path, OpenMode::CreateExclusive).unwrap();
        assert_eq!(
            FileDisk.open(&path, OpenMode::CreateExclusive).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );

        file.write_vectored_at(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")], 3).unwrap();

        let mut buffer = [9; 10];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer[..8], b"\0\0\0abcde");
        assert_eq!(file.len().unwrap(), 8);
    }
}
