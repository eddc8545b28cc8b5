//! Clients that do not take what they are sent, and keep old versions of pages meanwhile. Together those may keep a number of bytes;
//! beyond it the one that has waited longest goes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// When a message began to wait for its socket, and a number of its own.
type Since = (Instant, u64);

/// All of a node.
#[derive(Debug)]
pub(super) struct Stalled {
    waiting: Mutex<BTreeSet<Since>>,
    next_number: AtomicU64,
    kept_bytes_max: AtomicU64,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(super) struct Stall {
    of: Arc<Stalled>,
    since: Since,
}

impl Stalled {
    /// Nobody, of all that may keep so many bytes.
    pub(super) fn new(kept_bytes_max: u64) -> Arc<Stalled> {
        Arc::new(Stalled {
            waiting: Mutex::default(),
            next_number: AtomicU64::default(),
            kept_bytes_max: AtomicU64::new(kept_bytes_max),
        })
    }

    /// Sets how many bytes they may keep.
    #[cfg(test)]
    pub(super) fn set_kept_bytes_max(&self, bytes: u64) {
        self.kept_bytes_max.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Since>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, whose message has waited since then.
    pub(super) fn enter(self: &Arc<Stalled>, since: Instant) -> Stall {
        let since = (since, self.next_number.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(since);
        Stall { of: Arc::clone(self), since }
    }
}

impl Stall {
    /// Whether this one is to go: more bytes are kept than may be, and nobody has waited longer.
    pub(super) fn must_go(&self, kept_bytes: impl FnOnce() -> u64) -> bool {
        let is_first = self.of.lock().first() == Some(&self.since);
        is_first && kept_bytes() > self.of.kept_bytes_max.load(Ordering::Relaxed)
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.of.lock().remove(&self.since);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_goes_and_only_beyond_the_bound() {
        let stalled = Stalled::new(100);
        let now = Instant::now();
        let late = stalled.enter(now + Duration::from_secs(1));
        let first = stalled.enter(now);
        let second = stalled.enter(now);

        assert!(!first.must_go(|| 100));
        assert!(first.must_go(|| 101));
        assert!(![&second, &late].into_iter().any(|stall| stall.must_go(|| 101)));
        drop(first);
        assert!(second.must_go(|| 101) && !late.must_go(|| 101));
        drop(second);
        assert!(late.must_go(|| 101));
        drop(late);
        assert!(stalled.lock().is_empty());
    }
}
