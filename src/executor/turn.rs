//! The writer's turn of a database: one holder, the others wait in order. An autocommit write holds it until its
//! proposal is queued; a client's open transaction until it ends, and only that counts against the busy timeout.
//! spec: client-protocol 9.2; architecture "Two roots".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

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
    waiting: VecDeque<oneshot::Sender<TurnGuard>>,
    /// Length from which on those who gave up are looked for: twice what was left the last time, so that a waiter costs the
    /// same however many there are.
    sweep_at: usize,
}

/// Fewer waiters are never swept.
const SWEEP_MIN: usize = 32;

impl State {
    fn wait(&mut self) -> oneshot::Receiver<TurnGuard> {
        if self.waiting.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.waiting.retain(|waiter| !waiter.is_closed());
            self.sweep_at = self.waiting.len() * 2;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(sender);
        receiver
    }
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
                return Ok(TurnGuard { turn: Some(Arc::clone(self)) });
            }
            state.wait()
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

    /// Whether somebody holds it, and how many wait for it.
    #[must_use]
    pub fn usage(&self) -> (bool, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.held, state.waiting.iter().filter(|waiter| !waiter.is_closed()).count())
    }

    fn pass_on(self: &Arc<Turn>) {
        // Else everybody in the queue would be woken for nothing.
        self.held_by_client.send_if_modified(|held| std::mem::replace(held, false));
        loop {
            let next = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let next = state.waiting.pop_front();
                state.held = next.is_some();
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
            turn.held_by_client.send_if_modified(|value| std::mem::replace(value, held) != held);
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
    async fn waiters_that_gave_up_are_not_kept_for_ever() {
        let turn = Turn::new();
        let first = turn.acquire(Duration::ZERO).await.unwrap();
        first.set_held_by_client(true);

        for _ in 0..100 * SWEEP_MIN {
            assert_eq!(turn.acquire(Duration::ZERO).await.unwrap_err(), TurnBusy);
        }

        assert!(turn.state.lock().unwrap().waiting.len() <= SWEEP_MIN);
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
}
