//! Permits to be inside SQLite: as many as statements may run at once. In SQLite's single-thread mode all nodes of the process
//! share one. Whoever gives something back is served first, then those who hold a turn that others wait for.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::types::waiters::Waiters;

/// Who is served before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Brings a statement to rest or closes a connection: never waits for anything else.
    GivesBack,
    /// Holds the writer's turn of a database.
    HoldsTurn,
    /// Everybody else.
    Works,
}

const LANES: usize = 3;

/// The permits; clones share them.
#[derive(Clone, Debug)]
pub struct SqlPermits {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    places: usize,
    free: usize,
    /// Waiters by lane; there are none while a permit is free.
    waiting: [Waiters<SqlPermit>; LANES],
}

/// A place inside SQLite; given back when dropped.
#[derive(Debug)]
pub struct SqlPermit {
    /// None in a permit that its waiter did not take.
    of: Option<SqlPermits>,
}

impl SqlPermits {
    /// As many at once as there are `threads`, at least one.
    #[must_use]
    pub fn new(threads: usize) -> SqlPermits {
        let places = threads.max(1);
        SqlPermits {
            state: Arc::new(Mutex::new(State { places, free: places, waiting: Default::default() })),
        }
    }

    /// The one permit of a process whose SQLite has no mutexes.
    #[must_use]
    pub fn of_process() -> SqlPermits {
        static ONE: OnceLock<SqlPermits> = OnceLock::new();
        ONE.get_or_init(|| SqlPermits::new(1)).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit, if one is free now.
    #[must_use]
    pub fn try_acquire(&self) -> Option<SqlPermit> {
        let mut state = self.lock();
        state.free = state.free.checked_sub(1)?;
        Some(SqlPermit { of: Some(self.clone()) })
    }

    /// Waits for a permit: first come first served within a lane.
    pub async fn acquire(&self, lane: Lane) -> SqlPermit {
        let granted = {
            let mut state = self.lock();
            if let Some(left) = state.free.checked_sub(1) {
                state.free = left;
                return SqlPermit { of: Some(self.clone()) };
            }
            state.waiting[lane as usize].wait()
        };
        // A sender is never dropped unsent while its permits live, and this holds them.
        granted.await.unwrap_or(SqlPermit { of: None })
    }

    /// How many are taken, and how many wait.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let state = self.lock();
        (state.places - state.free, state.waiting.iter().map(Waiters::count).sum())
    }

    fn pass_on(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.waiting.iter_mut().find_map(Waiters::take_first);
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(SqlPermit { of: Some(self.clone()) }) {
                Ok(()) => return,
                // This waiter gave up: its permit must not be passed on a second time.
                Err(mut permit) => permit.of = None,
            }
        }
    }
}

impl Drop for SqlPermit {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            of.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_gives_back_is_served_first_and_then_who_holds_a_turn() {
        let permits = SqlPermits::new(1);
        let first = permits.try_acquire().unwrap();
        let mut works = permits.acquire(Lane::Works).boxed();
        let mut holds = permits.acquire(Lane::HoldsTurn).boxed();
        let mut gives = permits.acquire(Lane::GivesBack).boxed();
        for waiting in [&mut works, &mut holds, &mut gives] {
            assert!(waiting.now_or_never().is_none());
        }
        assert_eq!(permits.usage(), (1, 3));

        drop(first);
        let given = (&mut gives).now_or_never().unwrap();
        assert!((&mut holds).now_or_never().is_none());
        drop(given);
        let held = (&mut holds).now_or_never().unwrap();
        assert!((&mut works).now_or_never().is_none());
        drop(held);

        assert!(works.now_or_never().is_some());
        assert_eq!(permits.usage(), (0, 0));
    }

    #[test]
    fn a_waiter_that_gave_up_keeps_no_permit_before_or_after_it_was_granted() {
        let permits = SqlPermits::new(1);
        let first = permits.try_acquire().unwrap();
        let mut gave_up = permits.acquire(Lane::Works).boxed();
        assert!((&mut gave_up).now_or_never().is_none());
        let mut granted = permits.acquire(Lane::Works).boxed();
        assert!((&mut granted).now_or_never().is_none());
        drop(gave_up);

        drop(first);
        drop(granted);

        assert_eq!(permits.usage(), (0, 0));
    }
}
