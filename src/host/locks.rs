//! Locks that the calling thread, or the parent of its process, may hold itself: they are not waited for without end.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// Pause between two tries.
const TRY_AGAIN: Duration = Duration::from_micros(100);

/// The lock, if it can be had within `patience`.
pub(super) fn locked_within<T>(lock: &Mutex<T>, patience: Duration) -> Option<MutexGuard<'_, T>> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => std::thread::sleep(TRY_AGAIN),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_the_calling_thread_is_not_waited_for_without_end() {
        let lock = Mutex::new(1);
        let held = lock.lock().unwrap();
        assert!(locked_within(&lock, Duration::from_millis(20)).is_none());
        drop(held);
        assert!(locked_within(&lock, Duration::from_millis(20)).is_some());
    }
}
