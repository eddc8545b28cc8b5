//! Who may vote, stand and lead: the one place where it is decided, from what is known. Pure.
//!
//! A leader that is there keeps its place. So whoever doubts it asks the leader itself first: a silence alone, or a broken
//! connection, may be this node's own.

use std::fmt;
use std::time::Duration;

/// What this node knows of the leader of its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// Nobody is known to lead, for so long; whoever stands waits for `wait` first.
    Unknown {
        /// For how long, as far as this node was awake.
        past: Duration,
        /// How long it is left to others.
        wait: Duration,
    },
    /// Another node leads.
    Follows {
        /// How long it has been silent, as far as this node was awake.
        silent: Duration,
        /// Whoever is silent for less is there.
        fresh: Duration,
        /// After such a silence it is asked.
        silence: Duration,
    },
    /// It led, and does not answer.
    Gone,
    /// This node asks for votes.
    Stands,
    /// This node leads.
    Leads {
        /// Whether a majority has answered it of late.
        in_contact: bool,
    },
}

/// Why a node does not stand, or refuses its vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// It has no vote.
    NoVoter,
    /// It knows no configuration: its log may have been lost with what it promised.
    NoConfiguration,
    /// Its log cannot be written.
    LogFails,
    /// Its log has entries that are not on the disk yet.
    NotDurable,
    /// It is taking over a snapshot.
    Installs,
    /// No term is left.
    NoTermLeft,
    /// It leads itself.
    Leads,
    /// It stands itself.
    Stands,
    /// A leader is there.
    LeaderHeard,
    /// The term is over.
    TermOver,
    /// The candidate's log is behind its own.
    LogBehind,
    /// It asks for votes itself, and comes first.
    ComesFirst,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Because::NoVoter => "it has no vote",
            Because::NoConfiguration => "it knows no configuration",
            Because::LogFails => "its log cannot be written",
            Because::NotDurable => "its log is being written",
            Because::Installs => "it takes over a snapshot",
            Because::NoTermLeft => "no term is left",
            Because::Leads => "it leads",
            Because::Stands => "it stands",
            Because::LeaderHeard => "a leader is there",
            Because::TermOver => "the term is over",
            Because::LogBehind => "the log is behind",
            Because::ComesFirst => "its own candidacy comes first",
        })
    }
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The leader of the term.
    pub(crate) leader: Leader,
    /// By the last configuration in the log, or by the one before if that one may not be committed.
    pub(crate) is_voter: bool,
    /// Nobody else has a vote by it.
    pub(crate) is_only_voter: bool,
    /// Whether there is one.
    pub(crate) has_configuration: bool,
    /// The log cannot be written.
    pub(crate) log_fails: bool,
    /// All of the log is on the disk.
    pub(crate) is_durable: bool,
    /// A snapshot is being taken over.
    pub(crate) installs: bool,
    /// A term is left to stand in.
    pub(crate) has_next_term: bool,
    /// Another was promised a vote a moment ago: so long its candidacy comes first.
    pub(crate) yields: Duration,
}

#[cfg(test)]
impl Facts {
    /// A voter of several, nothing wrong with it.
    pub(super) fn of_voter(leader: Leader) -> Facts {
        Facts {
            leader,
            is_voter: true,
            is_only_voter: false,
            has_configuration: true,
            log_fails: false,
            is_durable: true,
            installs: false,
            has_next_term: true,
            yields: Duration::ZERO,
        }
    }
}

/// What a node does that might stand for an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Nothing, until something else is known.
    No(Because),
    /// It looks again after this.
    Later(Duration),
    /// It asks the leader whether it is there.
    AskLeader,
    /// It asks for pre-votes.
    Now,
}

/// What somebody else asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ballot {
    /// A pre-vote, which promises nothing.
    pub(crate) is_pre_vote: bool,
    /// The leader itself hands over to the candidate.
    pub(crate) disrupts_leader: bool,
    /// Its term is below the own one.
    pub(crate) is_past: bool,
    /// Its log is behind the own one.
    pub(crate) log_is_behind: bool,
    /// An own pre-vote is under way, with a better log or, with the same, a lower id.
    pub(crate) own_comes_first: bool,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As far as this table knows; of a vote openraft refuses the second one in a term.
    Grant,
    /// With the reason.
    Refuse(Because),
    /// The leader is asked whether it is there; then this table.
    AskLeader,
}

/// Whether this node stands.
pub(crate) fn stand(facts: &Facts) -> Stand {
    if let Some(because) = hindrance(facts) {
        return Stand::No(because);
    }
    let due = match facts.leader {
        Leader::Leads { .. } => return Stand::No(Because::Leads),
        Leader::Stands => return Stand::No(Because::Stands),
        Leader::Follows { silent, silence, .. } if silent >= silence => return Stand::AskLeader,
        Leader::Follows { silent, silence, .. } => return Stand::Later(silence - silent),
        Leader::Unknown { past, wait } if !facts.is_only_voter => wait.saturating_sub(past),
        Leader::Unknown { .. } | Leader::Gone => Duration::ZERO,
    };
    let due = due.max(facts.yields);
    if due.is_zero() { Stand::Now } else { Stand::Later(due) }
}

/// Why this node may not stand, whoever asks it to.
pub(crate) fn hindrance(facts: &Facts) -> Option<Because> {
    let hindrances = [
        (!facts.is_voter, Because::NoVoter),
        (facts.log_fails, Because::LogFails),
        (!facts.is_durable, Because::NotDurable),
        (facts.installs, Because::Installs),
        (!facts.has_next_term, Because::NoTermLeft),
    ];
    hindrances.into_iter().find_map(|(holds, because)| holds.then_some(because))
}

/// Whether a candidate gets this node's vote. A node that does not vote by its own log may do so by that of the candidate, whose
/// entry it has not got yet: refusing, as upstream does, could leave nobody to elect a leader. One vote in a term is safe
/// whoever gives it.
pub(crate) fn vote(facts: &Facts, ballot: &Ballot) -> Verdict {
    let refusals = [
        (ballot.is_past, Because::TermOver),
        (ballot.log_is_behind, Because::LogBehind),
        (!facts.has_configuration, Because::NoConfiguration),
        (facts.installs, Because::Installs),
        (ballot.is_pre_vote && ballot.own_comes_first, Because::ComesFirst),
    ];
    if let Some(because) = refusals.into_iter().find_map(|(holds, because)| holds.then_some(because)) {
        return Verdict::Refuse(because);
    }
    match facts.leader {
        _ if ballot.disrupts_leader && !ballot.is_pre_vote => Verdict::Grant,
        Leader::Leads { in_contact: true } => Verdict::Refuse(Because::Leads),
        Leader::Follows { silent, fresh, .. } if silent < fresh => Verdict::Refuse(Because::LeaderHeard),
        Leader::Follows { .. } => Verdict::AskLeader,
        Leader::Leads { in_contact: false } | Leader::Stands | Leader::Unknown { .. } | Leader::Gone => {
            Verdict::Grant
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    fn milliseconds(word: &str) -> Duration {
        Duration::from_millis(word.parse().unwrap_or_else(|_| panic!("{word}")))
    }

    /// A voter, and what the words before the colon say.
    fn facts(words: &str) -> Facts {
        let mut facts = Facts::of_voter(Leader::Gone);
        for fact in words.split(", ") {
            match fact.split(' ').collect::<Vec<_>>()[..] {
                ["unknown", past, "of", wait] => {
                    facts.leader = Leader::Unknown { past: milliseconds(past), wait: milliseconds(wait) };
                }
                ["silent", silent, "of", silence] => {
                    let (silent, silence) = (milliseconds(silent), milliseconds(silence));
                    facts.leader = Leader::Follows { silent, fresh: Duration::from_millis(900), silence };
                }
                ["gone"] => facts.leader = Leader::Gone,
                ["stands"] => facts.leader = Leader::Stands,
                ["leads"] => facts.leader = Leader::Leads { in_contact: true },
                ["leads", "alone"] => facts.leader = Leader::Leads { in_contact: false },
                ["no", "voter"] => facts.is_voter = false,
                ["only", "voter"] => facts.is_only_voter = true,
                ["no", "configuration"] => (facts.has_configuration, facts.is_voter) = (false, false),
                ["log", "fails"] => facts.log_fails = true,
                ["not", "durable"] => facts.is_durable = false,
                ["installs"] => facts.installs = true,
                ["no", "term"] => facts.has_next_term = false,
                ["yields", left] => facts.yields = milliseconds(left),
                _ => panic!("{fact}"),
            }
        }
        facts
    }

    fn ballot(words: &str) -> Ballot {
        let mut words = words.split(", ");
        let (is_pre_vote, disrupts_leader) = match words.next() {
            Some("pre-vote") => (true, false),
            Some("vote") => (false, false),
            Some("vote handed over") => (false, true),
            other => panic!("{other:?}"),
        };
        let words: Vec<&str> = words.collect();
        assert!(
            words.iter().all(|word| ["past term", "log behind", "own first"].contains(word)),
            "{words:?}"
        );
        Ballot {
            is_pre_vote,
            disrupts_leader,
            is_past: words.contains(&"past term"),
            log_is_behind: words.contains(&"log behind"),
            own_comes_first: words.contains(&"own first"),
        }
    }

    fn answer(line: &str) -> String {
        let (known, asked) = line.split_once(": ").expect("known: asked");
        let facts = facts(known);
        let answer = if asked == "stand" {
            match stand(&facts) {
                Stand::No(because) => format!("no: {because}"),
                Stand::Later(after) => format!("after {} ms", after.as_millis()),
                Stand::AskLeader => "asks the leader".to_owned(),
                Stand::Now => "now".to_owned(),
            }
        } else {
            match vote(&facts, &ballot(asked)) {
                Verdict::Grant => "granted".to_owned(),
                Verdict::Refuse(because) => format!("refused: {because}"),
                Verdict::AskLeader => "asks the leader".to_owned(),
            }
        };
        answer + "\n"
    }

    #[test]
    fn who_stands_and_votes_follows_from_one_table() {
        data_driven::run("raft/election.txt", |asked| asked.lines().map(answer).collect());
    }
}
