//! Room in flight: what was executed here and is not applied yet is bounded in number and bytes. Room belongs to the pending
//! version, which gives it back when it is applied or discarded; those who wait for room hold nothing of it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::{Instant, sleep};

use crate::types::config::{DISK_FULL_LOOKS_EVERY, DISK_FULL_WAIT};
use crate::types::space::LogSpace;
use crate::types::waiters::Waiters;

/// The room of a store.
#[derive(Debug)]
pub struct Room {
    state: Mutex<State>,
    transactions_max: usize,
    bytes_max: usize,
    disk: OnceLock<Arc<dyn LogSpace>>,
}

#[derive(Debug, Default)]
struct State {
    transactions: usize,
    bytes: usize,
    waiting: Waiters<()>,
    full: Option<Full>,
}

/// A disk that takes nothing.
#[derive(Clone, Copy, Debug)]
struct Full {
    since: Instant,
    seen: Instant,
}

impl Full {
    /// One that is found full. What was seen long ago is another time: there may have been space in between.
    fn found(known: Option<Full>, now: Instant) -> Full {
        let known = known.filter(|full| now.saturating_duration_since(full.seen) < DISK_FULL_WAIT);
        Full { since: known.map_or(now, |full| full.since), seen: now }
    }
}

/// The room that a pending version takes.
#[derive(Debug)]
pub struct Charge {
    of: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// A transaction may begin while fewer than `transactions_max`, and fewer than `bytes_max` bytes, are in flight.
    #[must_use]
    pub fn new(transactions_max: usize, bytes_max: usize) -> Arc<Room> {
        Arc::new(Room { state: Mutex::default(), transactions_max, bytes_max, disk: OnceLock::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        state.transactions < self.transactions_max && state.bytes < self.bytes_max
    }

    /// Waits until there is room for one more transaction, first come first served, and until the disk takes more, or has been full
    /// for `DISK_FULL_WAIT`. Its size is charged when it is known, and may be more than what was left; whether the disk takes it is
    /// asked again at the commit.
    pub fn wait(self: &Arc<Room>) -> impl Future<Output = ()> + Send + 'static + use<> {
        let room = Arc::clone(self);
        let mut state = self.lock();
        let granted =
            if state.waiting.is_empty() && self.has_room(&state) { None } else { Some(state.waiting.wait()) };
        async move {
            if let Some(granted) = granted {
                // A room that has gone holds nobody back.
                let _ = granted.await;
            }
            room.wait_for_disk().await;
        }
    }

    /// What is in flight goes to this disk. The first one stays.
    pub fn set_disk(&self, disk: Arc<dyn LogSpace>) {
        // It is set when a node is made.
        let _ = self.disk.set(disk);
    }

    /// Whether the disk takes a transaction of so many bytes beside what is in flight.
    #[must_use]
    pub fn is_on_disk(&self, bytes: u64) -> bool {
        let in_flight = self.lock().bytes as u64;
        self.disk.get().is_none_or(|disk| disk.takes(bytes.saturating_add(in_flight)))
    }

    /// The end is the same for all: writers wait one after the other, with the writer's turn.
    async fn wait_for_disk(&self) {
        while self.is_worth_waiting() {
            sleep(DISK_FULL_LOOKS_EVERY).await;
        }
    }

    fn is_worth_waiting(&self) -> bool {
        let (is_full, now) = (!self.is_on_disk(0), Instant::now());
        let mut state = self.lock();
        state.full = is_full.then(|| Full::found(state.full, now));
        state.full.is_some_and(|full| now < full.since + DISK_FULL_WAIT)
    }

    /// Charges a version that is pending from here on.
    #[must_use]
    pub fn charge(self: &Arc<Room>, bytes: usize) -> Charge {
        let mut state = self.lock();
        state.transactions += 1;
        state.bytes += bytes;
        Charge { of: Arc::clone(self), bytes }
    }

    /// Transactions and bytes in flight, and how many wait for room.
    #[must_use]
    pub fn usage(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.transactions, state.bytes, state.waiting.count())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.transactions -= 1;
        state.bytes -= self.bytes;
        // All for whom there is room now: one that does not commit gives nothing back, and wakes nobody.
        while self.of.has_room(&state) {
            let Some(waiter) = state.waiting.take_first() else { break };
            // One that gave up needs no room.
            let _ = waiter.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;

    use super::*;

    #[derive(Debug)]
    struct Disk(AtomicBool);

    impl LogSpace for Disk {
        fn takes(&self, _bytes: u64) -> bool {
            !self.is_full()
        }

        fn is_full(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_writers_together_wait_once_for_a_full_disk() {
        let room = Room::new(9, 100);
        let disk = Arc::new(Disk(AtomicBool::new(true)));
        room.set_disk(Arc::clone(&disk) as Arc<dyn LogSpace>);
        let begin = Instant::now();
        // Each has the writer's turn in its turn.
        for _ in 0..100 {
            room.wait().await;
        }
        let waited = begin.elapsed();
        assert!(waited >= DISK_FULL_WAIT && waited < DISK_FULL_WAIT * 2, "{waited:?}");

        // Full again is full anew, whether anybody has seen the space in between or not.
        disk.0.store(false, Ordering::Relaxed);
        let begin = Instant::now();
        room.wait().await;
        assert_eq!(begin.elapsed().as_secs(), 0);
        disk.0.store(true, Ordering::Relaxed);
        for pause in [DISK_FULL_WAIT, DISK_FULL_WAIT * 2] {
            let begin = Instant::now();
            room.wait().await;
            assert!(begin.elapsed() >= DISK_FULL_WAIT);
            sleep(pause).await;
        }
    }

    #[test]
    fn what_is_in_flight_holds_back_the_next_until_it_is_given_back() {
        let room = Room::new(2, 100);
        let large = room.charge(150);
        let mut first = room.wait().boxed();
        let second = room.wait().boxed();
        assert!((&mut first).now_or_never().is_none());
        assert_eq!(room.usage(), (1, 150, 2));

        drop(large);

        // The first does not commit: the second does not depend on it.
        assert!(second.now_or_never().is_some());
        assert!(first.now_or_never().is_some());
        assert_eq!(room.usage(), (0, 0, 0));
    }

    #[test]
    fn a_number_of_transactions_is_a_bound_and_waiters_that_gave_up_take_nothing() {
        let room = Room::new(1, 100);
        let one = room.charge(1);
        drop(room.wait().boxed());
        let mut waits = room.wait().boxed();
        assert!((&mut waits).now_or_never().is_none());

        drop(one);

        assert!(waits.now_or_never().is_some());
        assert!(room.wait().now_or_never().is_some());
    }

    #[test]
    fn bytes_are_a_bound_that_what_has_begun_may_pass() {
        let room = Room::new(9, 100);
        let first = room.charge(99);
        assert!(room.wait().now_or_never().is_some());
        let second = room.charge(1);
        let mut waits = room.wait().boxed();
        assert!((&mut waits).now_or_never().is_none());

        drop(second);

        assert!(waits.now_or_never().is_some());
        drop(first);
    }
}
