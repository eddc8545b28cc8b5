//! Room in flight: what was executed here and is not applied yet is bounded in number and bytes. Room belongs to the pending
//! version, which gives it back when it is applied or discarded; those who wait for room hold nothing of it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::waiters::Waiters;

/// The room of a store.
#[derive(Debug)]
pub struct Room {
    state: Mutex<State>,
    transactions_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    transactions: usize,
    bytes: usize,
    waiting: Waiters<()>,
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
        Arc::new(Room { state: Mutex::default(), transactions_max, bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        state.transactions < self.transactions_max && state.bytes < self.bytes_max
    }

    /// Waits until there is room for one more transaction, first come first served. Its size is charged when it is known,
    /// and may be more than what was left.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut state = self.lock();
        let granted =
            if state.waiting.is_empty() && self.has_room(&state) { None } else { Some(state.waiting.wait()) };
        async move {
            if let Some(granted) = granted {
                // A room that has gone holds nobody back.
                let _ = granted.await;
            }
        }
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
    use futures_util::FutureExt;

    use super::*;

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
