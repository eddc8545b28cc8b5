//! Permits to be inside SQLite: as many as statements may run at once. In SQLite's single-thread mode all nodes of the process
//! share one. Whoever gives something back is served first, then those who hold a turn that others wait for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::per_process::PerProcess;
use crate::types::config::SQL_BESIDE_MAX;
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
    shared: Arc<Shared>,
}

/// Whoever takes a free permit or gives one back takes no lock while nobody waits.
#[derive(Debug)]
struct Shared {
    places: usize,
    free: AtomicUsize,
    /// Whether there may be somebody in a lane. Who is going to wait sets it before it looks for a free permit; who gives back
    /// looks at it behind that: one of the two sees the other.
    some_wait: AtomicBool,
    waiting: Mutex<Lanes>,
    /// How many are inside without a permit, and how many may be.
    beside: AtomicUsize,
    beside_max: usize,
}

/// Waiters by lane.
type Lanes = [Waiters<SqlPermit>; LANES];

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit, if one is free.
    fn take(&self) -> bool {
        let less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn tell(&self, lanes: &Lanes) {
        self.some_wait.store(lanes.iter().any(|lane| !lane.is_empty()), Ordering::SeqCst);
    }
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
        SqlPermits::with_beside(threads, SQL_BESIDE_MAX)
    }

    fn with_beside(threads: usize, beside_max: usize) -> SqlPermits {
        let places = threads.max(1);
        let (free, some_wait) = (AtomicUsize::new(places), AtomicBool::new(false));
        let (waiting, beside) = (Mutex::default(), AtomicUsize::new(0));
        SqlPermits { shared: Arc::new(Shared { places, free, some_wait, waiting, beside, beside_max }) }
    }

    /// The one permit of a process whose SQLite has no mutexes.
    #[must_use]
    pub fn of_process() -> SqlPermits {
        static ONE: PerProcess<SqlPermits> = PerProcess::new(|| SqlPermits::with_beside(1, 0));
        ONE.get().clone()
    }

    fn permit(&self) -> SqlPermit {
        SqlPermit { of: Some(self.clone()) }
    }

    /// A permit, if one is free now.
    #[must_use]
    pub fn try_acquire(&self) -> Option<SqlPermit> {
        self.shared.take().then(|| self.permit())
    }

    /// Waits for a permit: first come first served within a lane.
    pub async fn acquire(&self, lane: Lane) -> SqlPermit {
        let granted = {
            let mut lanes = self.shared.lock();
            self.shared.some_wait.store(true, Ordering::SeqCst);
            if self.shared.take() {
                self.shared.tell(&lanes);
                return self.permit();
            }
            lanes[lane as usize].wait()
        };
        // A sender is never dropped unsent while its permits live, and this holds them.
        granted.await.unwrap_or(SqlPermit { of: None })
    }

    /// How many are inside without a permit.
    #[cfg(test)]
    pub(crate) fn beside(&self) -> usize {
        self.shared.beside.load(Ordering::Relaxed)
    }

    /// How many are taken, and how many wait.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let lanes = self.shared.lock();
        let taken = self.shared.places - self.shared.free.load(Ordering::SeqCst);
        (taken, lanes.iter().map(Waiters::count).sum())
    }

    /// Gives a permit to the next who waits; nobody does, and it is free.
    fn pass_on(&self) {
        let shared = &self.shared;
        loop {
            if !shared.some_wait.load(Ordering::SeqCst) {
                shared.free.fetch_add(1, Ordering::SeqCst);
                // Who came meanwhile has found none. Unless another one takes it, and passes it on in its turn, it is theirs.
                if !shared.some_wait.load(Ordering::SeqCst) || !shared.take() {
                    return;
                }
            }
            let next = {
                let mut lanes = shared.lock();
                let next = lanes.iter_mut().find_map(Waiters::take_first);
                shared.tell(&lanes);
                next
            };
            let Some(next) = next else { continue };
            match next.send(self.permit()) {
                Ok(()) => return,
                // This waiter gave up: its permit must not be passed on a second time.
                Err(mut permit) => permit.of = None,
            }
        }
    }
}

impl SqlPermit {
    /// Gives the permit to others while its holder goes on inside, unless too many do so.
    pub(super) fn step_aside(self) -> Result<Beside, SqlPermit> {
        let Some(of) = self.of.clone() else { return Err(self) };
        let one_more = |beside: usize| (beside < of.shared.beside_max).then_some(beside + 1);
        match of.shared.beside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Beside(of)),
            Err(_) => Err(self),
        }
    }
}

/// One who is inside without a permit, until this is dropped.
#[derive(Debug)]
pub(super) struct Beside(SqlPermits);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.shared.beside.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn threads_that_come_and_go_at_once_leave_no_permit_behind_and_nobody_waiting() {
        const THREADS: usize = 4;
        let permits = SqlPermits::new(2);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let (permits, inside) = (&permits, &inside);
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let lane = [Lane::GivesBack, Lane::HoldsTurn, Lane::Works][(number + round) % 3];
                        let permit = if round % 5 == 0 { permits.try_acquire() } else { None };
                        let waiting = permits.acquire(lane);
                        let permit = permit.unwrap_or_else(|| runtime.block_on(waiting));
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!((permits.usage(), permits.shared.free.load(Ordering::SeqCst)), ((0, 0), 2));
    }
}
