//! The lock of a data directory: `flock` of a file in it, and who else holds it. spec: disk-format 6.2.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::disk::{DiskLock, Locking};
use crate::host::pin::Pin;
use crate::host::register::{Kept, Register};

/// Locks an open file without waiting. `name` is that of the file in the open directory.
pub(super) fn lock(
    file: OwnedFd,
    directory: &Arc<Kept<OwnedFd>>,
    name: &str,
    register: &Register,
) -> io::Result<Locking> {
    match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Locking::Held(Box::new(HeldLock::new(file, directory, name, register)?))),
        Err(Errno::WOULDBLOCK) => Ok(Locking::Taken { by: holder(&File::from(file)) }),
        Err(error) => Err(error.into()),
    }
}

/// `flock` of an open file. It is held by the file, not by its descriptor: where the file can be pinned, it stays when the
/// descriptor is closed by others, until this is dropped.
#[derive(Debug)]
pub(super) struct HeldLock {
    handle: Kept<OwnedFd>,
    _pin: Option<Pin>,
    directory: Arc<Kept<OwnedFd>>,
    name: String,
    /// What has the name.
    file: Numbers,
}

/// What tells a file from all others that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    device: u64,
    inode: u64,
}

impl Numbers {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "their types differ between machines"
    )]
    fn of(stat: &Stat) -> Numbers {
        Numbers { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}

/// What has a name; none if nothing has.
fn named(directory: &OwnedFd, name: &str) -> io::Result<Option<Numbers>> {
    match retry_on_intr(|| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(stat) => Ok(Some(Numbers::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl HeldLock {
    pub(super) fn new(
        handle: OwnedFd,
        directory: &Arc<Kept<OwnedFd>>,
        name: &str,
        register: &Register,
    ) -> io::Result<HeldLock> {
        let own = Numbers::of(&rustix::fs::fstat(&handle)?);
        let file = named(directory.checked()?, name)?;
        // Some file systems tell other numbers of a name than of the open file.
        let is_own = || -> io::Result<bool> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let folder: &OwnedFd = directory.checked()?;
            let again = retry_on_intr(|| rustix::fs::openat(folder, name, flags, Mode::empty()))?;
            Ok(Numbers::of(&rustix::fs::fstat(&again)?) == own)
        };
        let Some(file) = file.filter(|file| *file == own || is_own().unwrap_or(false)) else {
            return Err(io::Error::other(format!("{name} was removed or replaced while it was taken")));
        };
        let _pin = Pin::new(&handle);
        let handle = Kept::new(handle, register, name)?;
        Ok(HeldLock { handle, _pin, directory: Arc::clone(directory), name: name.to_owned(), file })
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // A child that was forked without an exec has the same open file, and would hold the lock until it ends.
        if let Ok(handle) = self.handle.checked() {
            // Nothing can be done about an error; the file is closed next.
            let _ = rustix::fs::flock(handle, FlockOperation::Unlock);
        }
    }
}

impl DiskLock for HeldLock {
    fn check(&self) -> io::Result<()> {
        self.handle.check()?;
        match named(self.directory.checked()?, &self.name) {
            Ok(found) if found != Some(self.file) => {
                let how = if found.is_some() { "replaced by another" } else { "removed" };
                let text = format!("{} was {how}: another node may use the directory", self.name);
                Err(io::Error::other(text))
            }
            // A name that cannot be looked up is there.
            _ => Ok(()),
        }
    }
}

/// Where the kernel's list of locks has a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LockPlace {
    major: u32,
    minor: u32,
    inode: u64,
}

impl LockPlace {
    fn of(file: &File) -> Option<LockPlace> {
        let metadata = file.metadata().ok()?;
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let told = LockPlace { major, minor, inode: metadata.ino() };
        let information = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok();
        Some(
            information.zip(mounts).map_or(told, |(information, mounts)| told.mounted(&information, &mounts)),
        )
    }

    /// What /proc says of the open file and of all mounts. A file of a btrfs, or of an overlay, tells another device than that of its
    /// mount. Pure.
    fn mounted(self, information: &str, mounts: &str) -> LockPlace {
        let value = |name: &str| {
            information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let device = |mount: &str| {
            let line = mounts.lines().find(|line| line.split(' ').next() == Some(mount))?;
            let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let (major, minor) = value("mnt_id").and_then(device).unwrap_or((self.major, self.minor));
        let inode = value("ino").and_then(|inode| inode.parse().ok()).unwrap_or(self.inode);
        LockPlace { major, minor, inode }
    }

    /// Whose lock is in the list. Pure.
    fn holder(self, locks: &str) -> Option<u32> {
        let place = format!("{:02x}:{:02x}:{}", self.major, self.minor, self.inode);
        let of_file =
            |line: &&str| line.split_whitespace().any(|word| word == place) && line.contains("FLOCK");
        let mut of_files = locks.lines().filter(of_file);
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2097 0 EOF`; one that waits has an arrow.
        of_files.find_map(|line| line.split_whitespace().nth(4)?.parse().ok())
    }
}

/// Who holds the lock of a file, by the kernel's list of locks.
fn holder(file: &File) -> Option<String> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let process = LockPlace::of(file)?.holder(&locks)?;
    if process == std::process::id() {
        return Some("this process".to_owned());
    }
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = name.trim_end();
    Some(if name.is_empty() { format!("process {process}") } else { format!("process {process} ({name})") })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A folder that is open, and a lock of the file `lock` in it.
    fn locked(folder: &Path) -> (Box<dyn DiskLock>, OwnedFd) {
        let register = Register::default();
        let directory = Kept::new(OwnedFd::from(File::open(folder).unwrap()), &register, "it").unwrap();
        let file = OwnedFd::from(File::create(folder.join("lock")).unwrap());
        let copy = file.try_clone().unwrap();
        match lock(file, &Arc::new(directory), "lock", &register).unwrap() {
            Locking::Held(lock) => (lock, copy),
            Locking::Taken { by } => panic!("taken by {by:?}"),
        }
    }

    fn is_free(folder: &Path) -> bool {
        let file = File::open(folder.join("lock")).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    #[test]
    fn a_lock_is_free_when_it_is_dropped_though_a_forked_child_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, _copy) = locked(folder.path());
        assert!(!is_free(folder.path()));

        drop(lock);

        assert!(is_free(folder.path()));
    }

    #[test]
    fn a_lock_whose_file_was_removed_or_replaced_or_has_another_name_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (held, _copy) = locked(folder.path());
        held.check().unwrap();
        let text = || held.check().unwrap_err().to_string();

        std::fs::rename(&path, folder.path().join("other")).unwrap();
        assert_eq!(text(), "lock was removed: another node may use the directory");
        File::create(&path).unwrap();
        assert_eq!(text(), "lock was replaced by another: another node may use the directory");
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        held.check().unwrap();
    }

    #[test]
    fn a_file_that_was_replaced_while_it_was_taken_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::default();
        let directory =
            Arc::new(Kept::new(OwnedFd::from(File::open(folder.path()).unwrap()), &register, "it").unwrap());
        let path = folder.path().join("lock");
        for replaced in [false, true] {
            let file = OwnedFd::from(File::create(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
            if replaced {
                File::create(&path).unwrap();
            }

            let error = lock(file, &directory, "lock", &register).unwrap_err();

            assert_eq!(error.to_string(), "lock was removed or replaced while it was taken");
        }
    }

    #[test]
    fn a_lock_is_looked_for_at_the_device_of_the_mount() {
        let told = LockPlace { major: 0, minor: 42, inode: 258 };
        let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n91 27 0:41 / /data rw - btrfs /dev/loop4 rw\n";
        let locks = "1: FLOCK  ADVISORY  WRITE 15 00:2a:258 0 EOF\n2: POSIX  ADVISORY  WRITE 16 00:29:258 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 00:29:258 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 18 00:29:258 0 EOF\n";

        let place = told.mounted("pos:\t0\nmnt_id:\t91\nino:\t258\n", mounts);

        assert_eq!(place, LockPlace { minor: 41, ..told });
        assert_eq!(place.holder(locks), Some(4711));
        assert_eq!(LockPlace { inode: 25, ..place }.holder(locks), None);
        // Older kernels do not tell the inode; a mount may be in another namespace.
        assert_eq!(told.mounted("mnt_id:\t91\n", mounts), place);
        assert_eq!(told.mounted("mnt_id:\t90\nino:\t7\n", mounts), LockPlace { inode: 7, ..told });
        assert_eq!(told.mounted("", ""), told);
    }
}
