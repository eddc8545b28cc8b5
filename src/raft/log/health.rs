//! What is wrong with the disk under the log, from what is seen of the log now and then. Pure.
//!
//! A disk that fails says so; one that hangs says nothing, and one that is slow is known by what others had stored long before.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::LogIndex;
use crate::types::config::{DISK_GRACE, DISK_SLOW_AFTER, DISK_SLOW_BY, DISK_STALL};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// What is to be written fails again and again.
    Fails,
    /// It does not return from a call.
    Hangs,
    /// A majority does without it, and is faster.
    IsSlow,
    /// Nothing more may be written but what is reserved.
    IsFull,
}

impl Trouble {
    /// In the words of a log line.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Trouble::Fails => "its disk fails",
            Trouble::Hangs => "its disk does not answer",
            Trouble::IsSlow => "its disk is slow",
            Trouble::IsFull => "its disk is full",
        }
    }
}

/// The log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The last try to write failed.
    pub(crate) fails: bool,
    /// There is no space for writes of clients.
    pub(crate) is_full: bool,
    /// The last entry in memory.
    pub(crate) last: LogIndex,
    /// The last entry that is on the disk.
    pub(crate) durable: LogIndex,
    /// The last entry that a majority has.
    pub(crate) committed: LogIndex,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    fails: Option<Instant>,
    is_full: Option<Instant>,
    /// Since when entries wait for the disk and this one stays the last that is there.
    hangs: Option<(Instant, LogIndex)>,
    /// What was committed at a moment, to be compared with what is on the disk `DISK_SLOW_BY` later.
    mark: Option<(Instant, LogIndex)>,
    is_slow: Option<Instant>,
}

impl Health {
    /// Takes in what is seen. Looks follow each other within fractions of `DISK_GRACE`.
    pub(crate) fn look(&mut self, now: Instant, look: &Look) {
        since(&mut self.fails, look.fails, now);
        since(&mut self.is_full, look.is_full, now);
        let waits = look.durable < look.last;
        self.hangs = match self.hangs {
            Some((began, durable)) if waits && durable == look.durable => Some((began, durable)),
            _ => waits.then_some((now, look.durable)),
        };
        match self.mark {
            Some((at, _)) if now - at < DISK_SLOW_BY => {}
            mark => {
                let is_behind = mark.is_some_and(|(_, committed)| look.durable < committed);
                since(&mut self.is_slow, is_behind, now);
                self.mark = Some((now, look.committed));
            }
        }
    }

    /// What is wrong for so long that leadership is better off elsewhere; the worst, if it is more than one thing.
    pub(crate) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let lasts = |began: Option<Instant>, least: Duration| began.is_some_and(|began| now - began >= least);
        let hangs = self.hangs.map(|(began, _)| began);
        [
            (lasts(hangs, DISK_STALL), Trouble::Hangs),
            (lasts(self.fails, DISK_GRACE), Trouble::Fails),
            (lasts(self.is_full, DISK_GRACE), Trouble::IsFull),
            (lasts(self.is_slow, DISK_SLOW_AFTER), Trouble::IsSlow),
        ]
        .into_iter()
        .find_map(|(holds, trouble)| holds.then_some(trouble))
    }

    /// How long nothing has become durable that waits for it.
    pub(crate) fn stands_for(&self, now: Instant) -> Duration {
        self.hangs.map_or(Duration::ZERO, |(began, _)| now - began)
    }
}

/// Begins a time, goes on with it, or ends it.
fn since(began: &mut Option<Instant>, holds: bool, now: Instant) {
    *began = holds.then(|| began.unwrap_or(now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// Each line is a look at some millisecond, or a question.
    fn told(asked: &str) -> String {
        let (began, mut health) = (Instant::now(), Health::default());
        let mut look = Look {
            fails: false,
            is_full: false,
            last: LogIndex(1),
            durable: LogIndex(1),
            committed: LogIndex(1),
        };
        let (mut answer, mut syncs) = (String::new(), None);
        for line in asked.lines() {
            let (at, facts) = line.split_once(':').expect("a time and a colon");
            let (first, last) = at.split_once(" to ").unwrap_or((at, at));
            let [first, last] = [first, last].map(|at| at.parse::<u64>().expect("milliseconds"));
            for fact in facts.split(',').map(str::trim).filter(|fact| !fact.is_empty()) {
                let number = |word: &str| LogIndex(word.parse().expect("an index"));
                match fact.split(' ').collect::<Vec<_>>()[..] {
                    ["fails"] => look.fails = true,
                    ["writes"] => look.fails = false,
                    ["full"] => look.is_full = true,
                    ["room"] => look.is_full = false,
                    ["last", index] => look.last = number(index),
                    ["durable", index] => look.durable = number(index),
                    ["committed", index] => look.committed = number(index),
                    ["syncs", "of", milliseconds] => syncs = Some(number(milliseconds).0),
                    _ => panic!("{line}"),
                }
            }
            // As often as a leader looks.
            for at in (first..=last).step_by(20) {
                if let Some(syncs) = syncs {
                    look.last = LogIndex(10_000 + at / 20);
                    (look.committed, look.durable) =
                        (look.last, LogIndex(10_000 + (at / syncs).saturating_sub(1) * syncs / 20));
                }
                health.look(began + Duration::from_millis(at), &look);
            }
            let now = began + Duration::from_millis(last);
            let trouble = health.trouble(now).map_or("fine", Trouble::text);
            answer += &format!("{trouble}, stands for {} ms\n", health.stands_for(now).as_millis());
        }
        answer
    }

    #[test]
    fn what_is_wrong_with_a_disk_is_seen_by_what_becomes_of_the_log() {
        data_driven::run("raft/health.txt", told);
    }
}
