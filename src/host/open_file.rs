//! What tells one open file of a process from another that has got its number.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::SeekFrom;

/// What tells files apart. Sockets have an inode each; files without one (epoll, eventfd) share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: libc::dev_t,
    inode: libc::ino_t,
    kind: libc::mode_t,
}

impl Identity {
    pub(super) fn of(number: RawFd) -> io::Result<Identity> {
        // SAFETY: borrowed for a call that only asks; that the number is no descriptor is an error of the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let stat = rustix::fs::fstat(descriptor)?;
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino, kind: stat.st_mode & libc::S_IFMT })
    }

    /// Whether this is what was opened as `opened`. What was in a removed subvolume of a btrfs has no device any more.
    pub(super) fn is_still(self, opened: Identity) -> bool {
        self == opened || self == Identity { device: NO_DEVICE, ..opened }
    }
}

/// Nothing that can be opened is on it.
const NO_DEVICE: libc::dev_t = 0;

/// Whether an error says that a number is no descriptor. Others come from the file system of one that is open: FUSE and NFS do not tell
/// what a removed file is.
pub(super) fn is_of_closed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADF)
}

/// What belongs to an open file under each of its numbers, and that others of the same identity do not have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// Of a regular file, which nobody reads but at places that he names: where it would be read next. Another one of the same name, or
    /// one that got the inode of a removed file, has another.
    Place(u64),
    /// Of a file without an inode: the signal that would be sent when it is ready, if it sent any.
    Signal(c_int),
}

impl Mark {
    /// The mark of an open file, which it gets unless it has one: under another number. None where the system has none for it.
    pub(super) fn of(number: RawFd, identity: Identity) -> io::Result<Option<Mark>> {
        match identity.kind {
            libc::S_IFREG => place_marked(number).map(|place| Some(Mark::Place(place))),
            0 => Ok(signal_marked(number).ok().map(Mark::Signal)),
            _ => Ok(None),
        }
    }

    pub(super) fn is_on(self, number: RawFd) -> bool {
        match self {
            Mark::Place(place) => place_of(number).ok() == Some(place),
            Mark::Signal(signal) => signal_of(number).ok() == Some(signal),
        }
    }
}

/// Tells the open files of this process apart.
static NEXT_MARK: AtomicU64 = AtomicU64::new(0);

/// Where an open file would be read next.
fn place_of(number: RawFd) -> io::Result<u64> {
    // SAFETY: borrowed for a call that only asks.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::fs::tell(descriptor)?)
}

fn place_marked(number: RawFd) -> io::Result<u64> {
    /// As many as fit into the shortest longest file.
    const PLACES: u64 = 1 << 30;
    let place = place_of(number)?;
    if place > 0 {
        return Ok(place);
    }
    let mark = NEXT_MARK.fetch_add(1, Ordering::Relaxed) % PLACES + 1;
    // SAFETY: borrowed for a call that moves where the file is read next.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::fs::seek(descriptor, SeekFrom::Start(mark))?;
    Ok(mark)
}

/// The signal of an open file that is said to be ready, 0 if none was chosen.
fn signal_of(number: RawFd) -> io::Result<c_int> {
    const F_GETSIG: c_int = 11;
    // SAFETY: a question about a number.
    match unsafe { libc::fcntl(number, F_GETSIG) } {
        -1 => Err(io::Error::last_os_error()),
        signal => Ok(signal),
    }
}

fn signal_marked(number: RawFd) -> io::Result<c_int> {
    const F_SETSIG: c_int = 10;
    /// Numbers of signals that Linux has on every machine.
    const SIGNALS: u64 = 64;
    let signal = signal_of(number)?;
    if signal > 0 {
        return Ok(signal);
    }
    let mark = (NEXT_MARK.fetch_add(1, Ordering::Relaxed) % SIGNALS) as c_int + 1;
    // SAFETY: changes a number that the system keeps with the file; none is sent unless somebody asks for that, too (O_ASYNC).
    match unsafe { libc::fcntl(number, F_SETSIG, mark) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(mark),
    }
}

/// Whether two descriptors are surely different open files.
pub(super) fn is_other(one: RawFd, other: RawFd) -> bool {
    const KCMP_FILE: c_int = 0;
    let process = std::process::id();
    // SAFETY: a question about two numbers of this process; nothing is changed.
    let answer = unsafe { libc::syscall(libc::SYS_kcmp, process, process, KCMP_FILE, one, other) };
    // Less than 0: the system does not tell.
    answer > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_device_has_gone_is_the_same_and_any_other_is_not() {
        let opened = Identity { device: 42, inode: 258, kind: libc::S_IFREG };

        assert!(opened.is_still(opened));
        assert!(Identity { device: NO_DEVICE, ..opened }.is_still(opened));
        for other in [
            Identity { device: 43, ..opened },
            Identity { device: NO_DEVICE, inode: 259, ..opened },
            Identity { device: NO_DEVICE, kind: libc::S_IFDIR, ..opened },
        ] {
            assert!(!other.is_still(opened), "{other:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_was_not_closed() {
        let of = |number| is_of_closed(&io::Error::from_raw_os_error(number));

        assert!(of(libc::EBADF));
        assert!(![libc::ENOENT, libc::ESTALE, libc::EIO, libc::ENOTCONN].into_iter().any(of));
    }
}
