//! Whether the process may map more addresses, which a limit (`ulimit -v`) may refuse at any time. Asked before something that would end the
//! process if it were refused in its middle.

#![allow(unsafe_code)]

use std::io;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Whether so many bytes could be mapped just now. Nothing stands behind them: it costs two calls.
///
/// # Errors
/// The operating system's.
pub fn check(bytes: usize) -> io::Result<()> {
    // SAFETY: no address is asked for, so that nothing is mapped over; nothing in the mapping may be touched.
    let mapped = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    // SAFETY: the mapping that was just made, which nobody knows.
    Ok(unsafe { munmap(mapped, bytes) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_are_addresses_is_refused() {
        assert!(check(1 << 20).is_ok());
        assert_eq!(check(usize::MAX / 2).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
