//! What the time that a statement took tells of its next run.

use std::time::Duration;

use crate::types::config::{SQL_LONG, SQL_SHORT};
use crate::types::tasks::Expected;

/// What is known of a statement's runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    expected: Expected,
    /// The last run was not short.
    was_slow: bool,
}

impl Speed {
    /// It never ran.
    pub(super) const UNKNOWN: Speed = Speed { expected: Expected::Unknown, was_slow: false };

    /// How long the next run, or the next part of it, is expected to take.
    pub(super) fn expected(self) -> Expected {
        self.expected
    }

    /// A run, or a part of it, took so long. One that was slow may have waited for a processor; two were slow themselves.
    pub(super) fn took(&mut self, time: Duration) {
        let slow = time > SQL_SHORT;
        if !slow {
            self.expected = Expected::Short;
        } else if self.was_slow || time > SQL_LONG {
            self.expected = Expected::Unknown;
        }
        self.was_slow = slow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_may_be_the_scheduler_s_two_or_a_long_one_are_not() {
        let after = |times: &[Duration]| {
            let mut speed = Speed::UNKNOWN;
            times.iter().for_each(|time| speed.took(*time));
            speed.expected()
        };
        let (short, slow, long) = (SQL_SHORT, SQL_SHORT * 2, SQL_LONG * 2);

        assert_eq!(after(&[]), Expected::Unknown);
        assert_eq!(after(&[slow]), Expected::Unknown);
        assert_eq!(after(&[short]), Expected::Short);
        assert_eq!(after(&[short, slow]), Expected::Short);
        assert_eq!(after(&[short, slow, short, slow]), Expected::Short);
        assert_eq!(after(&[short, slow, slow]), Expected::Unknown);
        assert_eq!(after(&[short, long]), Expected::Unknown);
        assert_eq!(after(&[short, long, short]), Expected::Short);
    }
}
