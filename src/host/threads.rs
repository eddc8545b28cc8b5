//! Making threads, which may fail at any time: under a limit of processes, of a control group, or of memory.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};

use super::{panics, room, signals};
use crate::types::config::{CALL_STACK_BYTES, THREAD_ADDRESS_BYTES};

/// Of a thread for which nothing else is said, in Rust's standard library.
const DEFAULT_STACK_BYTES: usize = 2 << 20;
/// What the C library gives a thread that asks for nothing, unless the host has limited stacks: its usual limit.
const FOREIGN_STACK_BYTES: usize = 8 << 20;

fn named(name: &str, stack_bytes: Option<usize>) -> Builder {
    let builder = Builder::new().name(name.to_owned());
    match stack_bytes {
        Some(bytes) => builder.stack_size(bytes),
        None => builder,
    }
}

/// Whether a thread with such a stack can begin: what it takes first, within the C library, ends the process if it is refused.
fn has_room(stack_bytes: Option<usize>) -> io::Result<()> {
    room::check(stack_bytes.unwrap_or(DEFAULT_STACK_BYTES).saturating_add(THREAD_ADDRESS_BYTES))
}

fn refused(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("no thread {name}: {error}"))
}

/// Makes a thread.
///
/// # Errors
/// The operating system's, with the thread's name.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack_bytes: Option<usize>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let work = || {
        panics::log_here();
        work()
    };
    has_room(stack_bytes)
        .and_then(|()| signals::blocked(|| named(name, stack_bytes).spawn(work)))
        .map_err(|error| refused(name, &error))
}

/// Does `work` on a thread made for it while the caller waits: a host may call on a thread with a stack of 16 KiB, and takes signals
/// on it. A panic goes on in the caller.
///
/// # Errors
/// The operating system gives no thread; nothing was done.
pub fn call<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let work = || {
        panics::log_here();
        work()
    };
    // Not `std::thread::scope`: it makes a handle of the calling thread, which a host's thread that ends without unwinding keeps.
    // SAFETY: the thread has ended when this function returns: it is joined at once, and nothing before the join can panic. So
    // nothing that `work` borrows is gone while it runs.
    let spawn = || signals::blocked(|| unsafe { named(name, Some(CALL_STACK_BYTES)).spawn_unchecked(work) });
    let thread = has_room(Some(CALL_STACK_BYTES)).and_then(|()| spawn());
    let thread = thread.map_err(|error| refused(name, &error))?;
    Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// In glibc's and musl's pthread.h.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// Does `work`, in which the calling thread is not cancelled: that would unwind frames of Rust, which ends the process. A cancellation
/// that comes meanwhile takes place at the host's next chance.
pub fn uncancelled<T>(work: impl FnOnce() -> T) -> T {
    struct Before(c_int);
    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: the state that the thread had before.
            unsafe { pthread_setcancelstate(self.0, std::ptr::null_mut()) };
        }
    }
    let mut before = 0;
    // SAFETY: a state that there is, and a place for the one before.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let _before = Before(before);
    work()
}

/// The same for what must be done: on the caller's own stack if there is no thread.
pub fn call_anyway<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let mut waiting = Some(work);
    let done = call(name, || waiting.take().map(|work| work()));
    match done.ok().flatten() {
        Some(result) => result,
        None => signals::blocked(waiting.take().unwrap_or_else(|| unreachable!("it was not done"))),
    }
}

/// What a thread of the operating system runs.
pub type Foreign = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Runs `function` on a thread that has nothing else on its stack, and waits for its end: it may call `pthread_exit`, or be
/// cancelled, which must not unwind Rust's own frames.
///
/// # Errors
/// The operating system gives no thread; nothing was done.
///
/// # Safety
/// `function` may be called once with `argument` on another thread, keeps nothing that needs to be dropped, and does not panic.
pub unsafe fn call_foreign(function: Foreign, argument: *mut c_void) -> io::Result<()> {
    has_room(Some(FOREIGN_STACK_BYTES))?;
    // SAFETY: the same function with another word for how it may end; the C library ends threads by unwinding.
    let function: extern "C" fn(*mut c_void) -> *mut c_void = unsafe { std::mem::transmute(function) };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: a place for a thread, no attributes, and the caller's function and argument.
    let create =
        || unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), function, argument) };
    let error = signals::blocked(create);
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: filled by the call that succeeded.
    let thread: libc::pthread_t = unsafe { thread.assume_init() };
    // SAFETY: made above, and joined here alone.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    Ok(())
}

/// Whether so many threads with such stacks can be had at once just now; they end again.
///
/// # Errors
/// They cannot.
pub fn probe(name: &str, count: usize, stack_bytes: usize) -> io::Result<()> {
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
    let mut threads = Vec::new();
    let mut result = Ok(());
    for _ in 0..count {
        let ended = std::sync::Arc::clone(&ended);
        // The end is that nobody can send any more.
        let wait = move || drop(ended.lock().map(|ended| ended.recv()));
        match spawn(name, Some(stack_bytes), wait) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    drop(ends);
    for thread in threads {
        // It does nothing that panics.
        drop(thread.join());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_room_for_its_stack_is_refused_by_its_name() {
        let error = spawn("wide", Some(usize::MAX / 2), || ()).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().starts_with("no thread wide: "), "{error}");
    }
}
