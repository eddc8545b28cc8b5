//! The intervals of elections and leadership: all of them follow from two settings. Pure.

use std::time::Duration;

use crate::types::config::{
    CONFIRM_MAX, FAILOVER_RETRY_MAX, FAILOVER_RETRY_MIN, PEER_PATIENCE_MIN, SILENCE_MIN, VOTE_PATIENCE_MIN,
};

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Interval of heartbeats.
    pub(crate) heartbeat: Duration,
    /// Longest election timeout: a leader without a majority for so long leads no more.
    pub(crate) election: Duration,
}

impl Times {
    /// How often a leader sends heartbeats.
    pub(crate) fn beat(self) -> Duration {
        self.heartbeat.min(self.election / 10).max(Duration::from_millis(1))
    }

    /// A leader that was heard within this is there.
    pub(crate) fn fresh(self) -> Duration {
        (self.beat() * 3).min(self.election)
    }

    /// After so long without a message a leader is asked whether it is there, unless longer gaps were seen.
    pub(crate) fn silence(self) -> Duration {
        self.fresh().max(SILENCE_MIN).min(self.election)
    }

    /// How long a leader that is asked whether it is there has for its answer. What upstream derives from a network latency
    /// tells that latency: a fifteenth of the election timeout, and a question takes two.
    pub(crate) fn confirm(self) -> Duration {
        let is_derived = self.heartbeat * 10 <= self.election;
        let round_trip = if is_derived { self.election * 2 / 15 } else { Duration::ZERO };
        CONFIRM_MAX.min(self.election / 3).max(round_trip)
    }

    /// How long a pre-vote may take: whoever is asked may ask the leader first.
    pub(crate) fn vote(self) -> Duration {
        (self.confirm() * 2).max(VOTE_PATIENCE_MIN)
    }

    /// How long an election may take.
    pub(crate) fn round(self) -> Duration {
        (self.election / 3).max(VOTE_PATIENCE_MIN)
    }

    /// How long a peer may take to answer what makes it write.
    pub(crate) fn patience(self) -> Duration {
        self.round().max(PEER_PATIENCE_MIN)
    }

    /// How long whoever led leaves it to others to lead.
    pub(crate) fn after_leading(self) -> Duration {
        self.silence() * 2
    }

    /// The pause before the next attempt to be elected; `random` of a whole thousand.
    pub(crate) fn retry(self, random: u64) -> Duration {
        let span = FAILOVER_RETRY_MAX - FAILOVER_RETRY_MIN;
        FAILOVER_RETRY_MIN + span * u32::try_from(random % 1000).unwrap_or(0) / 1000
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
            ("heard within this, a leader is there", times.fresh()),
            ("silence after which it is asked", times.silence()),
            ("its answer may take", times.confirm()),
            ("a pre-vote may take", times.vote()),
            ("an election may take", times.round()),
            ("patience with peers", times.patience()),
            ("who led waits", times.after_leading()),
        ]
        .map(|(what, interval)| format!("{what}: {interval:?}\n"))
        .concat()
    }

    #[test]
    fn all_intervals_follow_from_two_settings() {
        data_driven::run("raft/times.txt", intervals);
    }
}
