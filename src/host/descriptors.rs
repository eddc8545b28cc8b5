//! Descriptors 0, 1 and 2 are the host's, closed or not: whatever its process prints would go into a file of the log.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::per_process::PerProcess;
use super::register::{Kept, Register};

/// The first number that is no standard stream's.
pub(super) const LOWEST: RawFd = 3;

/// Whether a descriptor has the number of a standard stream.
#[must_use]
pub fn is_standard(descriptor: &impl AsRawFd) -> bool {
    descriptor.as_raw_fd() < LOWEST
}

/// The same file under a number of 3 or above, closed in programs that the host starts.
///
/// # Errors
/// There is no such number free.
pub fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if !is_standard(&descriptor) {
        return Ok(descriptor);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, LOWEST)?)
}

/// Does `work` while nothing that it opens can get a number below 3: for what opens descriptors that cannot be moved. What holds
/// those numbers meanwhile can neither be read nor written, as if they were closed.
///
/// # Errors
/// No descriptor can be had.
pub fn with_standard_taken<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    // One at a time: the end of another's work would free the numbers.
    static TAKEN: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);
    let _one = TAKEN.get().lock().unwrap_or_else(PoisonError::into_inner);
    let (register, mut held) = (Register::default(), Vec::new());
    loop {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open("/", flags, Mode::empty())?;
        if !is_standard(&descriptor) {
            break;
        }
        // The host may take the number back meanwhile: then it is not closed.
        held.push(Kept::new(descriptor, &register, "in place of a standard stream")?);
    }
    Ok(work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_number_is_one_below_three() {
        let numbers: Vec<bool> = (0..5).map(|number| is_standard(&Number(number))).collect();
        assert_eq!(numbers, [true, true, true, false, false]);
    }

    struct Number(RawFd);

    impl AsRawFd for Number {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }

    #[test]
    fn a_descriptor_that_is_high_enough_stays_as_it_is() {
        let file = std::fs::File::open("/").unwrap();
        let number = file.as_raw_fd();

        assert_eq!(above_standard(file.into()).unwrap().as_raw_fd(), number);
        assert!(with_standard_taken(|| std::fs::File::open("/").unwrap().as_raw_fd()).unwrap() >= LOWEST);
    }
}
