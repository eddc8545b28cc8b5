//! What becomes of a panic's own line. Every panic of the library is caught at the boundary of its thread or of its call and becomes
//! an error of the node, so nothing of it goes to the host's standard error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::register;

thread_local! {
    static LOGS: Cell<bool> = const { Cell::new(false) };
    static STAYS: Cell<bool> = const { Cell::new(false) };
}

/// How tokio panics when descriptors of its own were closed by others: it cannot wait, or wake who waits.
const OF_LOST_DESCRIPTORS: [&str; 2] =
    ["unexpected error when polling the I/O driver", "failed to wake I/O driver"];

/// The calling thread is a runtime's. When that has lost its descriptors and their numbers are other files', the thread stays where it
/// is for ever: to unwind it would close those files, or panic again in what it drops, which ends the process.
pub fn stay_without_descriptors() {
    STAYS.set(true);
}

/// Whether a panic is one for which the calling thread stays.
fn is_to_stay(panic: &PanicHookInfo<'_>) -> bool {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    STAYS.try_with(Cell::get).unwrap_or(false) && OF_LOST_DESCRIPTORS.iter().any(|of| text.starts_with(of))
}

/// No lock: a child that was forked while it is held would wait for ever.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Panics of the calling thread are told to the log alone, from now on.
pub fn log_here() {
    LOGS.set(true);
}

/// Does `work`, whose panic is told to the log alone and comes back as an error.
///
/// # Errors
/// What it panicked of.
pub fn caught<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            LOGS.set(self.0);
        }
    }
    let _before = Before(LOGS.replace(true));
    catch_unwind(AssertUnwindSafe(work))
}

/// Has panics of threads of the library logged. The hook belongs to the copy of Rust's runtime that is inside the shared object; a
/// host in Rust that links the archive shares it, and what its own threads panic of is told as before.
pub fn install() {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A thread that ends has no such mark any more.
        if LOGS.try_with(Cell::get).unwrap_or(true) {
            let all_there = register::put_back_all();
            tracing::error!(%panic, "caught");
            while !all_there && is_to_stay(panic) {
                std::thread::park();
            }
        } else {
            others(panic);
        }
    }));
}
