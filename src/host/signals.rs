//! Signals belong to the host: no thread of the library takes one.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Signals that an instruction of the thread itself raises. Blocked, they would end the process without asking the host's handler.
const RAISED_BY_THE_THREAD: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Every signal but those.
fn foreign() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: a place for a set, which the call fills.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: filled above.
    let mut set = unsafe { set.assume_init() };
    for signal in RAISED_BY_THE_THREAD {
        // SAFETY: a set, and the number of a signal.
        unsafe { libc::sigdelset(&raw mut set, signal) };
    }
    set
}

/// Puts the calling thread's mask back.
struct Mask(libc::sigset_t);

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: a mask that the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Does `work` while the calling thread takes no signals; threads that it makes never do. A signal that comes meanwhile is taken
/// afterwards, by this thread or by another.
pub fn blocked<T>(work: impl FnOnce() -> T) -> T {
    let mut before = MaybeUninit::uninit();
    let foreign = foreign();
    // SAFETY: a set, and a place for another, which the call fills.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const foreign, before.as_mut_ptr()) };
    // SAFETY: filled above: the call fails for an unknown first argument alone.
    let _mask = Mask(unsafe { before.assume_init() });
    work()
}

/// Whether the calling thread, or the process, is to take a signal that the thread blocks.
fn is_pending(signal: c_int) -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: a place for a set, which the call fills.
    unsafe { libc::sigpending(set.as_mut_ptr()) };
    // SAFETY: filled above: the call cannot fail.
    let set: libc::sigset_t = unsafe { set.assume_init() };
    // SAFETY: a set, and the number of a signal.
    unsafe { libc::sigismember(&raw const set, signal) == 1 }
}

/// Does a write that raises no SIGPIPE.
pub fn without_pipe_signal<T>(write: impl FnOnce() -> T) -> T {
    blocked(|| {
        let before = is_pending(libc::SIGPIPE);
        let result = write();
        if !before && is_pending(libc::SIGPIPE) {
            let mut set = MaybeUninit::uninit();
            // SAFETY: a place for a set, which the call fills.
            unsafe { libc::sigemptyset(set.as_mut_ptr()) };
            // SAFETY: filled above.
            let mut set = unsafe { set.assume_init() };
            // SAFETY: a set, and the number of a signal.
            unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
            let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a set, nothing to be filled, and a time.
            unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const no_time) };
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_pipe_without_a_reader_leaves_no_signal() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let write = || {
            let written = rustix::io::write(&writer, b"x");
            (written.is_err(), is_pending(libc::SIGPIPE))
        };

        blocked(|| {
            assert!(without_pipe_signal(write).0);
            assert!(!is_pending(libc::SIGPIPE));
        });
    }

    /// Whether the calling thread blocks a signal.
    fn is_blocked(signal: c_int) -> bool {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: nothing is set, and there is a place for what is.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: filled above.
        let mask: libc::sigset_t = unsafe { mask.assume_init() };
        // SAFETY: a set, and the number of a signal.
        unsafe { libc::sigismember(&raw const mask, signal) == 1 }
    }

    #[test]
    fn a_thread_made_by_blocked_work_takes_no_signals_and_its_maker_goes_on_taking_them() {
        let signals =
            [libc::SIGXFSZ, libc::SIGPIPE, libc::SIGTERM, libc::SIGINT, libc::SIGURG, libc::SIGALRM];

        let thread = blocked(|| std::thread::spawn(move || signals.map(is_blocked)));

        assert_eq!(thread.join().unwrap(), [true; 6]);
        assert_eq!(signals.map(is_blocked), [false; 6]);
        blocked(|| assert_eq!(RAISED_BY_THE_THREAD.map(is_blocked), [false; 6]));
    }
}
