//! Those who wait for something in order, each of whom may give up at any time.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Fewer waiters are never swept.
pub const SWEEP_MIN: usize = 32;

/// A queue of waiters. What is sent to one that gave up comes back to the sender.
#[derive(Debug)]
pub struct Waiters<T> {
    queue: VecDeque<oneshot::Sender<T>>,
    /// Length from which on those who gave up are looked for: twice what was left the last time, so that a waiter costs the
    /// same however many there are.
    sweep_at: usize,
}

impl<T> Default for Waiters<T> {
    fn default() -> Waiters<T> {
        Waiters { queue: VecDeque::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T> Waiters<T> {
    /// A waiter behind all others.
    pub fn wait(&mut self) -> oneshot::Receiver<T> {
        if self.queue.len() >= self.sweep_at {
            self.queue.retain(|waiter| !waiter.is_closed());
            self.sweep_at = SWEEP_MIN.max(self.queue.len() * 2);
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.push_back(sender);
        receiver
    }

    /// The first of them, which may have given up.
    pub fn take_first(&mut self) -> Option<oneshot::Sender<T>> {
        self.queue.pop_front()
    }

    /// Whether nobody waits; those who gave up count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait; those who gave up do not count.
    #[must_use]
    pub fn count(&self) -> usize {
        self.queue.iter().filter(|waiter| !waiter.is_closed()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_that_gave_up_are_not_kept_for_ever() {
        let mut waiters = Waiters::<()>::default();
        let patient = waiters.wait();

        for _ in 0..100 * SWEEP_MIN {
            drop(waiters.wait());
        }

        assert!(waiters.queue.len() <= SWEEP_MIN);
        assert_eq!(waiters.count(), 1);
        waiters.take_first().unwrap().send(()).unwrap();
        drop(patient);
    }
}
