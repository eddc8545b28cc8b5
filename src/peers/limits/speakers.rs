//! Which connection speaks for a peer. Pure.
//!
//! Whoever reaches the port can connect with a member's id and answer in its name. What a stranger cannot do is answer a
//! *fence*: the index of each holds 32 random bits and is sent to the member alone. So the connection that echoed the newest
//! fence in exactly its term speaks for the peer, and answers that come on others count for nothing.

use std::collections::VecDeque;

use crate::types::config::FENCES_KEPT;
use crate::types::{LogIndex, Term};

/// Smallest index of a fence: no log gets there. openraft-mapping L6.
pub const FENCE_BASE: u64 = 1 << 63;

/// Bits of an index that count fences; those above them are random.
const NUMBER_BITS: u32 = 24;

/// A fence that was sent.
#[derive(Clone, Copy, Debug)]
struct Fence {
    /// Counts the fences to this peer.
    number: u64,
    index: LogIndex,
    term: Term,
}

/// What an answer to a fence shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Nothing: no such fence waits for an answer, or the answer is of a term before the fence's.
    Nothing,
    /// The peer got the fence and is in a later term.
    LaterTerm,
    /// The peer got the fence and is in its term.
    Counts,
}

/// Which of a peer's connections is believed.
#[derive(Debug, Default)]
pub struct Speaker {
    /// Fences without an answer, the oldest first.
    fences: VecDeque<Fence>,
    /// Fences so far.
    count: u64,
    /// The newest fence that was echoed.
    newest: Option<(Term, u64)>,
    /// Where, while that connection is open.
    connection: Option<u64>,
    /// Of which a planted fault makes use.
    newest_connection: u64,
}

impl Speaker {
    /// Index of the next fence, which is sent in this term.
    pub fn fence(&mut self, term: Term, random: u32) -> LogIndex {
        self.count += 1;
        let number = self.count % (1 << NUMBER_BITS);
        // At most 2^63 + 2^56: nothing that counts on from it overflows.
        let index = LogIndex(FENCE_BASE + (u64::from(random) << NUMBER_BITS) + number);
        if self.fences.len() >= FENCES_KEPT {
            self.fences.pop_front();
        }
        self.fences.push_back(Fence { number: self.count, index, term });
        index
    }

    /// An answer to the fence of this index came on a connection.
    pub fn echoed(&mut self, index: LogIndex, term: Term, connection: u64) -> Echo {
        let place = self.fences.iter().position(|fence| fence.index == index);
        let Some(fence) = place.and_then(|place| self.fences.get(place)).copied() else {
            return Echo::Nothing;
        };
        if term < fence.term {
            return Echo::Nothing;
        }
        if let Some(place) = place {
            self.fences.remove(place);
        }
        if term > fence.term {
            return Echo::LaterTerm;
        }
        // One that is overtaken by a newer one says nothing of where the peer speaks.
        if self.newest.is_none_or(|newest| (fence.term, fence.number) > newest) {
            self.newest = Some((fence.term, fence.number));
            self.connection = Some(connection);
        }
        Echo::Counts
    }

    /// The term in which answers on this connection are the peer's, if they are.
    #[must_use]
    pub fn hears(&self, connection: u64) -> Option<Term> {
        self.newest.filter(|_| self.connection == Some(connection)).map(|(term, _)| term)
    }

    /// The connection that speaks in this term.
    #[must_use]
    pub fn speaks_in(&self, term: Term) -> Option<u64> {
        self.connection.filter(|_| self.newest.is_some_and(|(newest, _)| newest == term))
    }

    /// The connection that speaks.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// A planted fault: whoever has made the newest connection speaks, also when it has ended.
    pub fn newest_speaks(&mut self, connection: u64) -> bool {
        self.newest_connection = self.newest_connection.max(connection);
        self.connection = Some(self.newest_connection);
        connection == self.newest_connection
    }

    /// A connection has ended.
    pub fn ended(&mut self, connection: u64) {
        if self.connection == Some(connection) {
            self.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::types::data_driven;

    fn shown(echo: Echo) -> String {
        let shown = match echo {
            Echo::Nothing => "nothing",
            Echo::LaterTerm => "a later term",
            Echo::Counts => "counts",
        };
        shown.to_owned()
    }

    struct Played {
        speaker: Speaker,
        fences: BTreeMap<String, LogIndex>,
    }

    impl Played {
        /// `fence A in term 3`, `echo of A in term 3 on 7`, `guess of A in term 3 on 9`, `answer on 7`, `7 ends`.
        fn happens(&mut self, line: &str) -> String {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |name: &str| {
                let place = words.iter().position(|word| *word == name).expect(name);
                words[place + 1].parse::<u64>().expect("a number")
            };
            let seen = match words[..] {
                ["fence", name, ..] => {
                    let random = 0x9e37_79b9_u32.wrapping_mul(self.fences.len() as u32 + 1);
                    let index = self.speaker.fence(Term(after("term")), random);
                    assert!(index.0 > FENCE_BASE && index.0 < FENCE_BASE + (1 << 57));
                    self.fences.insert(name.to_owned(), index);
                    return "sent\n".to_owned();
                }
                ["echo", "of", name, ..] => {
                    let index = self.fences[name];
                    shown(self.speaker.echoed(index, Term(after("term")), after("on")))
                }
                // All but the random bits.
                ["guess", "of", name, ..] => {
                    let index = LogIndex(self.fences[name].0 ^ (1 << NUMBER_BITS));
                    shown(self.speaker.echoed(index, Term(after("term")), after("on")))
                }
                ["answer", "on", connection] => {
                    match self.speaker.hears(connection.parse().expect("a number")) {
                        Some(term) => format!("heard in term {term}"),
                        None => "dropped".to_owned(),
                    }
                }
                [connection, "ends"] => {
                    self.speaker.ended(connection.parse().expect("a number"));
                    "ended".to_owned()
                }
                _ => panic!("{line}"),
            };
            let speaks = self.speaker.connection().map_or("nobody".to_owned(), |number| number.to_string());
            format!("{seen}; {speaks} speaks\n")
        }
    }

    #[test]
    fn the_connection_that_echoed_the_newest_fence_speaks() {
        data_driven::run("raft/speakers.txt", |asked| {
            let mut played = Played { speaker: Speaker::default(), fences: BTreeMap::new() };
            asked.lines().map(|line| played.happens(line)).collect()
        });
    }

    #[test]
    fn fences_that_nobody_answers_are_forgotten_and_no_index_comes_near_the_end() {
        let mut speaker = Speaker::default();
        let first = speaker.fence(Term(1), u32::MAX);
        for _ in 0..FENCES_KEPT {
            assert!(speaker.fence(Term(1), u32::MAX).0 < FENCE_BASE + (1 << 57));
        }

        assert_eq!(speaker.fences.len(), FENCES_KEPT);
        assert_eq!(speaker.echoed(first, Term(1), 1), Echo::Nothing);
    }
}
