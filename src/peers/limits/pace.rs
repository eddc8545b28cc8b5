//! Whether a message that has begun comes fast enough. Pure. What drips keeps a place, memory and, of a snapshot, the belief in a
//! leader, for as long as its sender likes.

use tokio::time::Instant;

use crate::types::config::{DRIP_MIN_BYTES, DRIP_WINDOW};

/// Measures one message after the other.
#[derive(Debug, Default)]
pub struct Pace {
    window: Option<Window>,
    paused: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    /// Which message.
    message: u64,
    begin: Instant,
    /// Bytes that the connection had brought then.
    bytes: u64,
    /// The first is free.
    is_first: bool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Between two messages.
    Between,
    /// In the message of this number; so many bytes came in all.
    Inside(u64, u64),
    /// The same, and this node does not read.
    NotRead,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at this time, if any.
    Fine(Option<Instant>),
    /// It drips.
    Drips,
}

impl Pace {
    /// Judges.
    pub fn look(&mut self, moment: Moment, now: Instant) -> Verdict {
        let (message, bytes) = match moment {
            Moment::Between => {
                *self = Pace::default();
                return Verdict::Fine(None);
            }
            Moment::NotRead => {
                self.paused.get_or_insert(now);
                return Verdict::Fine(None);
            }
            Moment::Inside(message, bytes) => (message, bytes),
        };
        let paused = self.paused.take().map_or_else(Default::default, |since| now - since);
        let fresh = Window { message, begin: now, bytes, is_first: true };
        let mut window = self.window.filter(|window| window.message == message).unwrap_or(fresh);
        if window.begin < now {
            window.begin += paused;
        }
        if now >= window.begin + DRIP_WINDOW {
            if !window.is_first && bytes - window.bytes < DRIP_MIN_BYTES {
                return Verdict::Drips;
            }
            window = Window { is_first: false, ..fresh };
        }
        self.window = Some(window);
        Verdict::Fine(Some(window.begin + DRIP_WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether it drips when so many bytes come each second.
    fn drips(bytes_per_second: u64, seconds: u64, moment: impl Fn(u64, u64) -> Moment) -> Option<u64> {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        (0..seconds).find(|second| {
            let moment = moment(*second, second * bytes_per_second);
            pace.look(moment, begin + Duration::from_secs(*second)) == Verdict::Drips
        })
    }

    #[test]
    fn what_drips_is_given_twenty_seconds_and_what_comes_slowly_is_waited_for() {
        let one = |_, bytes| Moment::Inside(1, bytes);
        assert_eq!(drips(2, 1000, one), Some(20));
        assert_eq!(drips(0, 1000, one), Some(20));
        assert_eq!(drips(6553, 1000, one), Some(20));
        assert_eq!(drips(6554, 1000, one), None);
        assert_eq!(
            drips(2, 1000, |second, bytes| Moment::Inside(second / 15, bytes)),
            None,
            "small messages"
        );
    }

    #[test]
    fn the_time_in_which_this_node_does_not_read_does_not_count() {
        let moment = |second, bytes| {
            if second % 2 == 1 { Moment::NotRead } else { Moment::Inside(1, bytes) }
        };
        assert_eq!(drips(3000, 1000, moment), Some(40));
        assert_eq!(drips(3300, 1000, moment), None);
        assert_eq!(drips(2, 1000, |_, _| Moment::NotRead), None);
    }

    #[test]
    fn nothing_is_measured_between_messages() {
        assert_eq!(
            drips(0, 1000, |second, _| {
                if second % 20 == 19 { Moment::Between } else { Moment::Inside(1, 0) }
            }),
            None
        );
    }
}
