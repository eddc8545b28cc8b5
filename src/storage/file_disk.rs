//! The file system of the machine. Descriptors are above those of standard input, output and error, whatever the host has closed:
//! nobody else's texts may get into a file of the log. spec: disk-format 1, 6.2.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::{Errno, retry_on_intr};

use super::disk::{DirEntryInfo, DirectoryStatus, Disk, DiskDirectory, DiskFile, Locking, OpenMode, Stat};
use super::file_lock;
use crate::host::descriptors::above_standard;
use crate::host::register::{Kept, Lost, Register};
use crate::types::scratch::ScratchFile;

/// Permissions of every file that is made. spec: disk-format 1.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Slices handed to one write (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// Names of scratch files, with a number, for the moment before they are removed, where there are no files without a name. A start removes
/// them.
const SCRATCH_NAME: &str = "tmp-unnamed";
/// Scratch files that this process has made so.
static SCRATCH_FILES: AtomicU64 = AtomicU64::new(0);

/// Room for the longest entry of a directory.
const ENTRY_BYTES: usize = 512;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskDirectory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = above_standard(uninterrupted(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))?)?;
        let register = Register::default();
        let handle = Kept::new(handle, &register, "the data directory")?;
        Ok(Arc::new(OpenDirectory { handle: Arc::new(handle), register, naming: Arc::default() }))
    }
}

/// Calls until no signal comes in between.
fn uninterrupted<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    Ok(retry_on_intr(call)?)
}

/// How a file without a name gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Not at all: there are no such files, or no way.
    Never,
    /// By its entry in /proc.
    Proc,
    /// By its descriptor, which needs a capability.
    Descriptor,
}

#[derive(Debug)]
struct OpenDirectory {
    handle: Arc<Kept<OwnedFd>>,
    /// Of the directory and its files.
    register: Register,
    /// Shared with files that have no name yet.
    naming: Arc<FoundNaming>,
}

/// How files without a name get one, once it was found out; anew when that way is gone: a host may lose its /proc.
#[derive(Debug, Default)]
struct FoundNaming(Mutex<Option<Naming>>);

impl FoundNaming {
    fn known(&self) -> Option<Naming> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, naming: Option<Naming>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = naming;
    }

    /// Tries it with `file`. The name `.` is always taken: a way that works says so.
    fn find(&self, directory: &OwnedFd, file: &OwnedFd) -> Naming {
        self.known().unwrap_or_else(|| {
            let found = [Naming::Proc, Naming::Descriptor]
                .into_iter()
                .find(|naming| link(directory, file, *naming, ".") == Err(Errno::EXIST))
                .unwrap_or(Naming::Never);
            self.set(Some(found));
            found
        })
    }
}

impl OpenDirectory {
    /// The descriptor, if it still is that of this directory: names of others are never changed.
    fn handle(&self) -> Result<&OwnedFd, Lost> {
        self.handle.checked()
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let (flags, handle) = (flags | OFlags::CLOEXEC, self.handle()?);
        above_standard(uninterrupted(|| rustix::fs::openat(handle, name, flags, FILE_MODE))?)
    }

    fn file(&self, handle: OwnedFd, name: &str, place: Option<Place>) -> io::Result<OpenFile> {
        let file = Kept::new(File::from(handle), &self.register, &format!("file {name}"))?;
        Ok(OpenFile { file, place, register: self.register.clone() })
    }

    /// Whether the kernel lists nothing of it any more, since it was removed. An overlay's that has something below, a subvolume of a
    /// btrfs, and some of FUSE keep links then. One that cannot be listed for another reason is there.
    fn is_dead(&self) -> bool {
        let listed = match self.open_at(".", OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(listed) => listed,
            Err(error) => return error.kind() == ErrorKind::NotFound,
        };
        // The C library takes this error for the end of the list.
        let mut buffer = [MaybeUninit::uninit(); ENTRY_BYTES];
        let first = retry_on_intr(|| RawDir::new(&listed, &mut buffer).next().transpose().map(drop));
        first == Err(Errno::NOENT)
    }

    /// A file whose name is removed at once. Nobody else has it: several threads make some.
    fn open_and_remove(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        loop {
            let name = format!("{SCRATCH_NAME}-{}", SCRATCH_FILES.fetch_add(1, Ordering::Relaxed));
            match self.open_at(&name, flags) {
                // What a crash has left. There are not many of them.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(handle) => {
                    self.remove(&name)?;
                    return Ok(handle);
                }
            }
        }
    }

    /// A file without a name; none where there is no such thing.
    fn open_unnamed(&self) -> io::Result<Option<OwnedFd>> {
        match self.open_at(".", OFlags::TMPFILE | OFlags::RDWR) {
            Ok(handle) => Ok(Some(handle)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn link(directory: &OwnedFd, file: impl AsFd, naming: Naming, name: &str) -> rustix::io::Result<()> {
    match naming {
        Naming::Proc => {
            let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            rustix::fs::linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
        }
        Naming::Descriptor => rustix::fs::linkat(file, "", directory, name, AtFlags::EMPTY_PATH),
        Naming::Never => Err(Errno::NOENT),
    }
}

impl DiskDirectory for OpenDirectory {
    fn status(&self) -> io::Result<DirectoryStatus> {
        let stat = match rustix::fs::fstat(self.handle()?) {
            // So says a file system that asks elsewhere, FUSE or NFS.
            Err(Errno::NOENT | Errno::STALE) => {
                return Ok(DirectoryStatus { owner_may_write: false, is_removed: true });
            }
            stat => stat?,
        };
        let is_removed = stat.st_nlink == 0 || self.is_dead();
        Ok(DirectoryStatus { owner_may_write: stat.st_mode & 0o200 != 0, is_removed })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(self.handle()?)
    }

    fn list(&self) -> io::Result<Vec<DirEntryInfo>> {
        let mut entries = Vec::new();
        let listed = self.open_at(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in rustix::fs::Dir::new(listed)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if [".", ".."].contains(&name) {
                continue;
            }
            match self.stat(name) {
                Ok(stat) => entries.push(DirEntryInfo { name: name.to_owned(), stat }),
                // Removed since.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A log is not read without one of its segments.
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let flags = match mode {
            // What is no file is not waited for.
            OpenMode::Read => OFlags::RDONLY | OFlags::NONBLOCK,
            OpenMode::Write => OFlags::RDWR,
            OpenMode::CreateWrite => OFlags::RDWR | OFlags::CREATE,
            OpenMode::CreateExclusive => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let handle = self.open_at(name, flags | OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&handle)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Box::new(self.file(handle, name, None)?))
    }

    fn create_unnamed(&self) -> io::Result<Option<Box<dyn DiskFile>>> {
        if self.naming.known() == Some(Naming::Never) {
            return Ok(None);
        }
        let Some(handle) = self.open_unnamed()? else {
            // Whoever asks again is spared the question.
            self.naming.set(Some(Naming::Never));
            return Ok(None);
        };
        if self.naming.find(self.handle()?, &handle) == Naming::Never {
            return Ok(None);
        }
        let place = Place { directory: Arc::clone(&self.handle), naming: Arc::clone(&self.naming) };
        Ok(Some(Box::new(self.file(handle, "without a name yet", Some(place))?)))
    }

    fn create_scratch(&self) -> io::Result<Box<dyn ScratchFile>> {
        let handle = match self.open_unnamed()? {
            Some(handle) => handle,
            None => self.open_and_remove()?,
        };
        Ok(Box::new(self.file(handle, "without a name", None)?))
    }

    fn descriptors(&self) -> Register {
        self.register.clone()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let handle = self.handle()?;
        uninterrupted(|| rustix::fs::renameat(handle, from, handle, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let handle = self.handle()?;
        uninterrupted(|| rustix::fs::unlinkat(handle, name, AtFlags::empty()))
    }

    fn sync(&self) -> io::Result<()> {
        let handle = self.handle()?;
        uninterrupted(|| rustix::fs::fsync(handle))
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        let handle = self.handle()?;
        let stat = uninterrupted(|| rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(Stat { bytes: u64::try_from(stat.st_size).unwrap_or(0), is_file })
    }

    fn lock(&self, name: &str) -> io::Result<Locking> {
        let handle = self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW)?;
        file_lock::lock(handle, &self.handle, name, &self.register)
    }
}

/// Where and how a file gets its name.
#[derive(Clone, Debug)]
struct Place {
    directory: Arc<Kept<OwnedFd>>,
    naming: Arc<FoundNaming>,
}

#[derive(Debug)]
struct OpenFile {
    file: Kept<File>,
    /// Of a file that may get a name.
    place: Option<Place>,
    register: Register,
}

impl OpenFile {
    /// The file, before it is changed: whatever else has its number by now is left alone.
    fn ours(&self) -> Result<&File, Lost> {
        self.file.checked()
    }

    /// The result of a sync, if what was synced was this file.
    fn synced(&self, result: io::Result<()>) -> io::Result<()> {
        self.file.check()?;
        result
    }
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
        let (mut position, file) = (offset, self.ours()?);
        let mut slices: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).map(|slice| IoSlice::new(slice)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let together = &left[..left.len().min(SLICES_MAX)];
            let written = uninterrupted(|| rustix::io::pwritev(file, together, position))?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            position += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.ours()?.set_len(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<bool> {
        let (flags, file) = (FallocateFlags::empty(), self.ours()?);
        match retry_on_intr(|| rustix::fs::fallocate(file, flags, 0, bytes)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.synced(self.file.sync_data())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.synced(self.file.sync_all())
    }

    fn link(&mut self, name: &str) -> io::Result<()> {
        let Some(Place { directory, naming }) = &self.place else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the file was made with a name"));
        };
        let (directory, file) = (directory.checked()?, self.ours()?);
        // A way may have gone since it was found: a host may lose its /proc.
        let ways = naming.known().into_iter().chain([Naming::Proc, Naming::Descriptor]);
        let mut linked = Err(Errno::NOENT);
        for way in ways {
            linked = retry_on_intr(|| link(directory, file, way, name));
            if linked != Err(Errno::NOENT) {
                break;
            }
        }
        if linked == Err(Errno::NOENT) {
            // Whoever makes a file from now on finds out that it needs a name.
            naming.set(None);
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "a file without a name can get none any more",
            ));
        }
        Ok(linked?)
    }

    fn duplicate(&self) -> io::Result<Box<dyn DiskFile>> {
        let handle = above_standard(self.ours()?.as_fd().try_clone_to_owned()?)?;
        let file = Kept::new(File::from(handle), &self.register, "a file, opened twice")?;
        Ok(Box::new(OpenFile { file, place: self.place.clone(), register: self.register.clone() }))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl ScratchFile for OpenFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.ours()?.write_all_at(bytes, offset)
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self.ours()?, flags, offset, bytes)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(self.ours()?)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.ours()?.set_len(bytes)
    }
}

fn free_bytes(file: impl AsFd) -> io::Result<u64> {
    let state = rustix::fs::fstatvfs(file)?;
    Ok(state.f_bavail.saturating_mul(state.f_frsize))
}

#[cfg(test)]
#[path = "file_disk_tests.rs"]
mod tests;
