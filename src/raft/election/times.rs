//! The intervals of elections and leadership: all of them follow from two settings. Pure.

use std::time::Duration;

use crate::types::config::{FAILOVER_RETRY_MAX, PEER_PATIENCE_MIN, TIMER_CHECKS};

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Interval of heartbeats.
    pub(crate) heartbeat: Duration,
    /// Longest election timeout; also the leader's lease.
    pub(crate) election: Duration,
}

impl Times {
    /// How often a leader sends heartbeats, and how long openraft gives one to be answered: a leader whose heartbeats go
    /// unanswered takes no writes. What upstream derives from a network latency is shorter than a round trip: four latencies
    /// instead. openraft-mapping L12.
    pub(crate) fn beat(self) -> Duration {
        let is_derived = self.heartbeat * 10 <= self.election;
        let interval = if is_derived { self.election * 4 / 15 } else { self.heartbeat };
        interval.max(Duration::from_millis(1))
    }

    /// openraft hears of a leader that sends heartbeats at least so often.
    pub(crate) fn tell_every(self) -> Duration {
        self.beat() / 2
    }

    /// How long an answer of a peer may take.
    pub(crate) fn patience(self) -> Duration {
        self.election.max(PEER_PATIENCE_MIN)
    }

    /// After so long without a message a leader whose connections have ended is gone.
    pub(crate) fn silence(self) -> Duration {
        self.heartbeat * 2
    }

    /// How long a leader that is gone is stood against: upstream's nodes refuse until their own timers end, up to twice the
    /// timeout after the last heartbeat.
    pub(crate) fn campaign(self) -> Duration {
        self.election * 2 + FAILOVER_RETRY_MAX
    }

    /// How often openraft's timers are looked at while nobody leads.
    pub(crate) fn check(self) -> Duration {
        self.election / TIMER_CHECKS
    }

    /// How long they need not be looked at once openraft has heard of its leader.
    pub(crate) fn rest(self) -> Duration {
        self.election - self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// `heartbeat 500 ms, election 3000 ms`, or `latency 10 ms` as upstream derives both from it.
    fn intervals(asked: &str) -> String {
        let milliseconds = |text: &str| {
            let number = text.strip_suffix(" ms").expect("milliseconds");
            Duration::from_micros((number.parse::<f64>().unwrap() * 1000.0) as u64)
        };
        let times = match asked.strip_prefix("latency ") {
            Some(latency) => {
                let latency = milliseconds(latency);
                Times { heartbeat: latency * 3 / 2, election: latency * 15 }
            }
            None => {
                let (heartbeat, election) = asked.split_once(", ").expect("two settings");
                Times {
                    heartbeat: milliseconds(heartbeat.strip_prefix("heartbeat ").unwrap()),
                    election: milliseconds(election.strip_prefix("election ").unwrap()),
                }
            }
        };
        [
            ("heartbeats", times.beat()),
            ("openraft hears of a leader", times.tell_every()),
            ("patience with peers", times.patience()),
            ("silence of a leader without connections", times.silence()),
            ("campaign", times.campaign()),
            ("timers are looked at", times.check()),
            ("timers rest", times.rest()),
        ]
        .map(|(what, interval)| format!("{what}: {interval:?}\n"))
        .concat()
    }

    #[test]
    fn all_intervals_follow_from_two_settings() {
        data_driven::run("raft/times.txt", intervals);
    }
}
