//! Time in which this node ran. A process that was stopped, a frozen machine, a host whose processors are taken: whoever
//! wakes up finds that nobody was heard for long, and says nothing about the others by it. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::config::{GAPS_MAX, PAUSE_MIN};

/// Pauses of this node, the latest ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awake {
    /// Begin and end, in their order, apart from each other.
    pauses: VecDeque<(Instant, Instant)>,
}

impl Awake {
    /// A timer that was due ended now. What lies between is a pause, unless it is short.
    pub(crate) fn woke(&mut self, due: Instant, now: Instant) {
        if now.saturating_duration_since(due) < PAUSE_MIN {
            return;
        }
        // Several timers tell of the same pause.
        let mut pause = (due, now);
        self.pauses.retain(|(begin, end)| {
            let is_apart = *end < pause.0 || *begin > pause.1;
            if !is_apart {
                pause = (pause.0.min(*begin), pause.1.max(*end));
            }
            is_apart
        });
        self.pauses.push_back(pause);
        if self.pauses.len() > GAPS_MAX {
            self.pauses.pop_front();
        }
    }

    /// How much of the time from `since` to `now` this node ran.
    pub(crate) fn elapsed(&self, since: Instant, now: Instant) -> Duration {
        let paused =
            |(begin, end): &(Instant, Instant)| (*end).min(now).saturating_duration_since(since.max(*begin));
        let whole = now.saturating_duration_since(since);
        whole.saturating_sub(self.pauses.iter().map(paused).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count_and_are_counted_once() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut awake = Awake::default();
        awake.woke(at(100), at(104));
        assert_eq!(awake.elapsed(at(0), at(200)), Duration::from_millis(200), "too short for a pause");

        awake.woke(at(300), at(1300));
        awake.woke(at(400), at(1320));
        assert_eq!(awake.elapsed(at(0), at(1500)), Duration::from_millis(480));
        assert_eq!(awake.elapsed(at(800), at(1500)), Duration::from_millis(180), "it began in the pause");
        assert_eq!(awake.elapsed(at(0), at(800)), Duration::from_millis(300), "it ends in the pause");
        assert_eq!(awake.elapsed(at(1400), at(1500)), Duration::from_millis(100));
        assert_eq!(awake.elapsed(at(1500), at(1400)), Duration::ZERO);

        awake.woke(at(2000), at(2100));
        assert_eq!(awake.elapsed(at(0), at(2200)), Duration::from_millis(1080));
    }

    #[test]
    fn the_latest_pauses_are_remembered() {
        let begin = Instant::now();
        let mut awake = Awake::default();
        for number in 0..100 {
            let due = begin + Duration::from_secs(number);
            awake.woke(due, due + Duration::from_millis(500));
        }
        assert_eq!(awake.pauses.len(), GAPS_MAX);
        let last = begin + Duration::from_secs(99);
        assert_eq!(awake.elapsed(last, last + Duration::from_secs(1)), Duration::from_millis(500));
    }
}
