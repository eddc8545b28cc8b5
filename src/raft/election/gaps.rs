//! How long a leader may be silent before it is asked whether it is there: longer than it ever was of late. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::times::Times;
use crate::types::config::{GAP_KEPT, GAP_OF_REPLACED_KEPT, GAPS_MAX};

/// Gaps between messages of leaders, whoever they were: they tell of this network and these machines.
#[derive(Clone, Debug)]
pub(crate) struct Gaps {
    times: Times,
    /// Length of a gap, and until when it counts.
    gaps: Vec<(Duration, Instant)>,
}

impl Gaps {
    pub(crate) fn new(times: Times) -> Gaps {
        Gaps { times, gaps: Vec::new() }
    }

    /// A leader was silent for so long, and is there.
    pub(crate) fn passed(&mut self, gap: Duration, now: Instant) {
        self.keep(gap, now + GAP_KEPT, now);
    }

    /// A leader was silent for so long, was replaced, and is there all the same.
    pub(crate) fn was_replaced_after(&mut self, gap: Duration, now: Instant) {
        if gap <= self.times.election {
            self.keep(gap, now + GAP_OF_REPLACED_KEPT, now);
        }
    }

    fn keep(&mut self, gap: Duration, until: Instant, now: Instant) {
        // Shorter ones change nothing.
        if gap * 2 <= self.times.silence() {
            return;
        }
        self.gaps.retain(|(length, end)| *end > now && (*length > gap || *end > until));
        self.gaps.push((gap, until));
        if self.gaps.len() > GAPS_MAX {
            let shortest = (0..self.gaps.len()).min_by_key(|place| self.gaps[*place].0);
            shortest.map(|place| self.gaps.swap_remove(place));
        }
    }

    /// After so long without a message a leader is asked whether it is there.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let longest = self.gaps.iter().filter(|(_, until)| *until > now).map(|(gap, _)| *gap).max();
        (longest.unwrap_or_default() * 2).max(self.times.silence()).min(self.times.election)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_longer_than_the_gaps_that_were_seen() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let milliseconds = Duration::from_millis;
        let times = Times { heartbeat: milliseconds(500), election: milliseconds(3000) };
        let mut gaps = Gaps::new(times);
        assert_eq!(gaps.silence(at(0)), milliseconds(900));

        gaps.passed(milliseconds(310), at(0));
        assert_eq!(gaps.silence(at(0)), milliseconds(900));
        gaps.passed(milliseconds(600), at(0));
        gaps.passed(milliseconds(500), at(30));
        assert_eq!(gaps.silence(at(30)), milliseconds(1200));
        assert_eq!(gaps.silence(at(61)), milliseconds(1000));
        assert_eq!(gaps.silence(at(91)), milliseconds(900));

        gaps.passed(milliseconds(2000), at(100));
        assert_eq!(gaps.silence(at(100)), milliseconds(3000), "never more than the election timeout");

        gaps.was_replaced_after(milliseconds(3001), at(200));
        assert_eq!(gaps.silence(at(200)), milliseconds(900), "it was lost for good reason");
        gaps.was_replaced_after(milliseconds(1100), at(200));
        assert_eq!(gaps.silence(at(799)), milliseconds(2200));
        assert_eq!(gaps.silence(at(801)), milliseconds(900));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_longest_stay() {
        let begin = Instant::now();
        let mut gaps =
            Gaps::new(Times { heartbeat: Duration::from_secs(1), election: Duration::from_secs(10) });
        for number in 0..200 {
            let now = begin + Duration::from_millis(number);
            gaps.passed(Duration::from_millis(4000 - number), now);
        }
        assert!(gaps.gaps.len() <= GAPS_MAX);
        assert_eq!(gaps.silence(begin + Duration::from_secs(1)), Duration::from_secs(8));
    }
}
