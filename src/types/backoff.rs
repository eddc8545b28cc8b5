//! Pauses between tries, each twice as long as the one before, up to a bound.

use std::time::Duration;

/// The pauses of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    pause: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, pause: first }
    }

    /// The pause that is next.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// That pause is over.
    pub fn lengthen(&mut self) {
        self.pause = (self.pause * 2).min(self.most);
    }

    /// The pause that is to be made now.
    pub fn take(&mut self) -> Duration {
        let pause = self.pause;
        self.lengthen();
        pause
    }

    /// A try has succeeded.
    pub fn reset(&mut self) {
        self.pause = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(18));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.take().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 18, 18]);

        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_millis(5));
        backoff.lengthen();
        assert_eq!(backoff.pause(), Duration::from_millis(10));
    }
}
