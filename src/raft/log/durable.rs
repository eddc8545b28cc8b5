//! What this node may acknowledge: the last entry that is durable, and the last term that it has taken up. Pure.
//!
//! openraft takes a stored vote for the flush of all appends before it. So whether entries are on the disk is asked here, and
//! nowhere else: before a leader is told of a success, before logs of candidates are compared, before this node stands.

use crate::types::{LogIndex, Term};

/// The durable part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// The last entry of the log in memory that is on the disk, with all before it.
    index: LogIndex,
    /// Counts truncations and replacements.
    generation: u64,
    /// Truncations that are not on the disk yet.
    truncations: u64,
    /// The last term in which this node decided to vote, to follow or to learn it; the vote may not be stored yet.
    taken_up: Term,
}

/// The log as it was when a request was sent to the log thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Durable {
    /// Of a log that was loaded.
    pub(super) fn new(index: LogIndex, taken_up: Term) -> Durable {
        Durable { index, generation: 0, truncations: 0, taken_up }
    }

    /// The last durable entry.
    pub(crate) fn index(&self) -> LogIndex {
        self.index
    }

    /// Whether all up to an entry is durable, and the truncations before it.
    pub(crate) fn covers(&self, index: LogIndex) -> bool {
        self.index >= index && self.truncations == 0
    }

    /// Whether a leader of `term` may not be told of a success any more: what became durable after a vote in a later term must
    /// not count for it.
    pub(crate) fn is_past(&self, term: Term) -> bool {
        self.taken_up > term
    }

    /// The last term that this node decided to be in.
    pub(super) fn taken_up(&self) -> Term {
        self.taken_up
    }

    /// This node decides to be in a term.
    pub(super) fn take_up(&mut self, term: Term) {
        self.taken_up = self.taken_up.max(term);
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Appended entries are on the disk. Of those that were appended before a truncation nothing is known until that is done.
    pub(super) fn written(&mut self, of: Generation, last: LogIndex) {
        if of == self.generation() {
            self.index = self.index.max(last);
        }
    }

    /// The entries from an index on are no entries of this log any more.
    pub(super) fn truncate_from(&mut self, index: LogIndex) -> Generation {
        self.index = self.index.min(LogIndex(index.0.saturating_sub(1)));
        self.generation += 1;
        self.truncations += 1;
        self.generation()
    }

    /// A truncation is on the disk, and with it all that came before.
    pub(super) fn truncated_from(&mut self, of: Generation, index: LogIndex) {
        self.truncations = self.truncations.saturating_sub(1);
        self.written(of, LogIndex(index.0.saturating_sub(1)));
    }

    /// A snapshot up to an entry has taken the place of the log, on the disk already.
    pub(super) fn replace(&mut self, index: LogIndex) {
        self.index = index;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// Each line is an event; after it stand the last durable entry and what waits.
    fn after_each(asked: &str) -> String {
        let mut durable = Durable::new(LogIndex::NONE, Term(1));
        let mut generations = vec![durable.generation()];
        let mut answer = String::new();
        for line in asked.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            match words[..] {
                ["loaded", _] => durable = Durable::new(LogIndex(number(1)), Term(1)),
                ["written", _, "of", _] => {
                    durable.written(generations[usize::try_from(number(3)).unwrap()], LogIndex(number(1)));
                }
                ["truncate", "from", _] => generations.push(durable.truncate_from(LogIndex(number(2)))),
                ["truncated", "from", _, "of", _] => {
                    let generation = generations[usize::try_from(number(4)).unwrap()];
                    durable.truncated_from(generation, LogIndex(number(2)));
                }
                ["replace", _] => {
                    durable.replace(LogIndex(number(1)));
                    generations.push(durable.generation());
                }
                ["take", "up", _] => durable.take_up(Term(number(2))),
                ["may", "acknowledge", _, "in", _] => {
                    let (index, term) = (LogIndex(number(2)), Term(number(4)));
                    let word = match (durable.is_past(term), durable.covers(index)) {
                        (true, _) => "never",
                        (false, true) => "yes",
                        (false, false) => "not yet",
                    };
                    answer += &format!("{word}\n");
                    continue;
                }
                _ => panic!("{line}"),
            }
            answer += &format!("{}\n", durable.index().0);
        }
        answer
    }

    #[test]
    fn what_may_be_acknowledged_follows_from_what_is_on_the_disk() {
        data_driven::run("raft/durable.txt", after_each);
    }
}
