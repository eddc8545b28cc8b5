//! The writer's turn of a database: one holder, the others wait in order. An autocommit write holds it until its
//! proposal is queued; a client's open transaction until it ends, and only that counts against the busy timeout.
//! spec: client-protocol 9.2; architecture "Two roots".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::types::waiters::Waiters;

/// The turns of all databases that are in use in one epoch: each lives as long as a connection to its database. When the epoch
/// ends the turns are new ones: whoever held an old one can commit nothing with it.
#[derive(Debug, Default)]
pub struct Turns {
    current: Mutex<OfEpoch>,
}

#[derive(Debug, Default)]
struct OfEpoch {
    epoch: u64,
    by_database: HashMap<Vec<u8>, Weak<Turn>>,
    /// With so many it is looked whether some are used no more.
    sweep_at: usize,
}

impl OfEpoch {
    fn in_use(&self) -> impl Iterator<Item = Arc<Turn>> {
        self.by_database.values().filter_map(Weak::upgrade)
    }

    fn sweep_if_due(&mut self) {
        if self.by_database.len() >= self.sweep_at {
            self.by_database.retain(|_, turn| turn.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.by_database.len() * 2);
        }
    }
}

/// Turns that are kept at least before those are forgotten which nobody uses.
const SWEEP_MIN: usize = 16;

impl Turns {
    /// The turn of a database in an epoch. Of an epoch that is over it is a turn of nobody else.
    #[must_use]
    pub fn of(&self, database: &[u8], epoch: u64) -> Arc<Turn> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch < current.epoch {
            return Turn::new();
        }
        if epoch > current.epoch {
            *current = OfEpoch { epoch, ..OfEpoch::default() };
        }
        if let Some(turn) = current.by_database.get(database).and_then(Weak::upgrade) {
            return turn;
        }
        current.sweep_if_due();
        let turn = Turn::new();
        current.by_database.insert(database.to_vec(), Arc::downgrade(&turn));
        turn
    }

    /// How many turns of this epoch are held, and how many wait for one.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.in_use().map(|turn| turn.usage()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The longest time for which a turn of this epoch has been held by now, those held by open transactions of clients left out.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.in_use().map(|turn| turn.held_for()).max().unwrap_or_default()
    }
}

/// The turn of one database.
#[derive(Debug)]
pub struct Turn {
    state: Mutex<State>,
    /// Whether an open transaction of a client holds it.
    held_by_client: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// When it was granted the last time, or an open transaction of a client ended that held it.
    since: Option<Instant>,
    waiting: Waiters<TurnGuard>,
}

/// Holding the turn; gives it to the next in line when dropped.
#[derive(Debug)]
pub struct TurnGuard {
    /// None in a guard that its waiter did not take.
    turn: Option<Arc<Turn>>,
}

/// The busy timeout passed while a client's transaction held the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnBusy;

impl Turn {
    /// A free turn.
    #[must_use]
    pub fn new() -> Arc<Turn> {
        Arc::new(Turn { state: Mutex::new(State::default()), held_by_client: watch::Sender::new(false) })
    }

    /// Waits for the turn, first come first served.
    ///
    /// # Errors
    /// Open transactions of clients held it for `busy_timeout` in all.
    pub async fn acquire(self: &Arc<Turn>, busy_timeout: Duration) -> Result<TurnGuard, TurnBusy> {
        let mut granted = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.held {
                state.held = true;
                state.since = Some(Instant::now());
                return Ok(TurnGuard { turn: Some(Arc::clone(self)) });
            }
            state.waiting.wait()
        };
        let mut held = self.held_by_client.subscribe();
        let mut left = busy_timeout;
        loop {
            let by_client = *held.borrow_and_update();
            let since = Instant::now();
            tokio::select! {
                biased;
                guard = &mut granted => return guard.map_err(|_| TurnBusy),
                _ = held.changed() => {}
                () = tokio::time::sleep(left), if by_client => return Err(TurnBusy),
            }
            if by_client {
                left = left.saturating_sub(since.elapsed());
            }
        }
    }

    fn usage(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (usize::from(state.held), state.waiting.count())
    }

    /// How long it has been held by now, unless an open transaction of a client holds it.
    fn held_for(&self) -> Duration {
        if *self.held_by_client.borrow() {
            return Duration::ZERO;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn pass_on(self: &Arc<Turn>) {
        // Else everybody in the queue would be woken for nothing.
        self.held_by_client.send_if_modified(|held| std::mem::replace(held, false));
        loop {
            let next = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let next = state.waiting.take_first();
                state.held = next.is_some();
                state.since = state.held.then(Instant::now);
                next
            };
            let Some(next) = next else { return };
            match next.send(TurnGuard { turn: Some(Arc::clone(self)) }) {
                Ok(()) => return,
                // This waiter gave up: its guard must not pass the turn on a second time.
                Err(mut guard) => guard.turn = None,
            }
        }
    }
}

impl TurnGuard {
    /// Says that the turn stays with an open transaction of a client, or no longer.
    pub fn set_held_by_client(&self, held: bool) {
        if let Some(turn) = &self.turn {
            let changed =
                turn.held_by_client.send_if_modified(|value| std::mem::replace(value, held) != held);
            if changed && !held {
                turn.state.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
            }
        }
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn how_long_a_turn_is_held_counts_from_the_end_of_the_client_s_transaction() {
        let turns = Turns::default();
        let turn = turns.of(b"a", 1);
        assert_eq!(turns.held_for(), Duration::ZERO);
        let guard = turn.acquire(Duration::ZERO).await.unwrap();
        let second = Duration::from_secs(1);
        tokio::time::advance(second * 5).await;
        assert_eq!((turns.held_for(), turns.usage()), (second * 5, (1, 0)));
        guard.set_held_by_client(true);
        tokio::time::advance(second * 5).await;
        assert_eq!(turns.held_for(), Duration::ZERO);
        for _ in 0..2 {
            guard.set_held_by_client(false);
            tokio::time::advance(second).await;
        }
        assert_eq!(turns.held_for(), second * 2);
        drop(guard);
        assert_eq!((turns.held_for(), turns.usage()), (Duration::ZERO, (0, 0)));
    }

    #[test]
    fn a_new_epoch_has_new_turns_and_an_old_one_gets_none_of_them() {
        let turns = Turns::default();
        let old = turns.of(b"a", 3);
        assert!(Arc::ptr_eq(&old, &turns.of(b"a", 3)));
        let new = turns.of(b"a", 4);

        assert!(!Arc::ptr_eq(&old, &new));
        assert!(!Arc::ptr_eq(&new, &turns.of(b"a", 3)));
        assert!(Arc::ptr_eq(&new, &turns.of(b"a", 4)));
    }

    #[tokio::test]
    async fn turns_that_nobody_uses_are_forgotten_and_one_that_is_held_or_waited_for_stays() {
        let turns = Turns::default();
        let held = turns.of(b"held", 1).acquire(Duration::ZERO).await.unwrap();
        for number in 0..10_000 {
            drop(turns.of(format!("{number}").as_bytes(), 1));
            assert!(turns.current.lock().unwrap().by_database.len() <= 2 * SWEEP_MIN);
        }
        let mut waits = Box::pin(async { turns.of(b"held", 1).acquire(Duration::ZERO).await });
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(turns.usage(), (1, 1));
        drop(held);
        assert!(waits.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn writers_get_the_turn_in_order_and_do_not_time_out_on_each_other() {
        let turn = Turn::new();
        let first = turn.acquire(Duration::ZERO).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 {
            let (turn, order) = (Arc::clone(&turn), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let guard = turn.acquire(Duration::ZERO).await.unwrap();
                order.lock().unwrap().push(number);
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(guard);
            }));
            tokio::task::yield_now().await;
        }

        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }

        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }

    // conformance: client-protocol K18
    #[tokio::test(start_paused = true)]
    async fn a_turn_held_by_a_client_is_waited_for_as_long_as_the_busy_timeout_says() {
        let turn = Turn::new();
        let first = turn.acquire(Duration::ZERO).await.unwrap();
        first.set_held_by_client(true);
        let start = Instant::now();

        assert_eq!(turn.acquire(Duration::ZERO).await.unwrap_err(), TurnBusy);
        assert_eq!(turn.acquire(Duration::from_millis(700)).await.unwrap_err(), TurnBusy);

        assert_eq!(start.elapsed().as_millis() / 10, 70);
        drop(first);
        assert!(turn.acquire(Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gave_up_does_not_keep_the_turn() {
        let turn = Turn::new();
        let first = turn.acquire(Duration::ZERO).await.unwrap();
        let waiting = tokio::spawn({
            let turn = Arc::clone(&turn);
            async move { turn.acquire(Duration::ZERO).await.map(drop) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;

        drop(first);

        assert!(turn.acquire(Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn usage_counts_all_databases_and_the_time_of_a_client_s_transaction_does_not_count_as_held() {
        let turns = Turns::default();
        let (first, second) = (turns.of(b"a", 1), turns.of(b"b", 1));
        let held =
            [first.acquire(Duration::ZERO).await.unwrap(), second.acquire(Duration::ZERO).await.unwrap()];
        let mut waits = [&first, &second, &second].map(|turn| Box::pin(turn.acquire(Duration::ZERO)));
        for wait in &mut waits {
            assert!(futures_util::poll!(wait).is_pending());
        }
        assert_eq!(turns.usage(), (2, 3));

        tokio::time::advance(Duration::from_secs(2)).await;
        held[0].set_held_by_client(true);
        assert_eq!(turns.held_for(), Duration::from_secs(2));
        held[1].set_held_by_client(true);
        assert_eq!(turns.held_for(), Duration::ZERO);
        held[0].set_held_by_client(false);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(turns.held_for(), Duration::from_secs(1));
    }
}
