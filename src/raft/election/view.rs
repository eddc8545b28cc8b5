//! Whom this node believes to lead. Pure: what happened comes in with its time.
//!
//! A belief belongs to one term and dies with it. In a term there is one leader: whoever claims it first is believed, as
//! openraft does, and nobody who claims it later moves anything.

use std::time::Duration;

use tokio::time::Instant;

use crate::peers::Sender;
use crate::types::{NodeId, Term};

/// What is believed of the leader of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// Nobody was heard.
    Unknown,
    /// Its messages come.
    Follows {
        /// Who, and where it said that it is.
        leader: Sender,
        /// When it was heard last.
        heard: Instant,
    },
    /// It led and does not answer any more.
    Gone {
        /// Who.
        leader: Sender,
    },
    /// This node asks for votes.
    Stands,
    /// This node leads.
    Leads,
}

/// Whom this node believes to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    term: Term,
    belief: Belief,
}

impl View {
    /// After a start in this term.
    pub(crate) fn new(term: Term) -> View {
        View { term, belief: Belief::Unknown }
    }

    /// A later term was taken up: by a vote, or because somebody is in it.
    pub(crate) fn took_up(&mut self, term: Term) {
        if term > self.term {
            *self = View::new(term);
        }
    }

    /// A leader's message came, in a term that is believed. Whether it is from the leader of the term.
    pub(crate) fn heard(&mut self, from: &Sender, term: Term, now: Instant) -> bool {
        self.took_up(term);
        if term < self.term {
            return false;
        }
        let leader = match &self.belief {
            Belief::Unknown | Belief::Stands => from,
            // Its address is the one that it gave first.
            Belief::Follows { leader, .. } | Belief::Gone { leader } if leader.id == from.id => leader,
            Belief::Follows { .. } | Belief::Gone { .. } | Belief::Leads => return false,
        };
        self.belief = Belief::Follows { leader: leader.clone(), heard: now };
        true
    }

    /// openraft asks for votes in this term.
    pub(crate) fn stands(&mut self, term: Term) {
        self.took_up(term);
        // What was heard in the term came later.
        if term == self.term && self.belief == Belief::Unknown {
            self.belief = Belief::Stands;
        }
    }

    /// This node was elected in this term.
    pub(crate) fn leads(&mut self, term: Term) {
        self.took_up(term);
        if term == self.term {
            self.belief = Belief::Leads;
        }
    }

    /// openraft is in this term, and neither stands nor leads.
    pub(crate) fn rests(&mut self, term: Term) {
        self.took_up(term);
        if term == self.term && matches!(self.belief, Belief::Stands | Belief::Leads) {
            self.belief = Belief::Unknown;
        }
    }

    /// The leader of this term does not answer. Whether that is the one that is followed, or was gone already.
    pub(crate) fn lost(&mut self, id: NodeId, term: Term) -> bool {
        match self.leader() {
            Some(leader) if leader.id == id && term == self.term => {
                self.belief = Belief::Gone { leader: leader.clone() };
                true
            }
            _ => false,
        }
    }

    /// The term that the belief is of.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// Another node that leads, or did until it was gone.
    pub(crate) fn leader(&self) -> Option<&Sender> {
        match &self.belief {
            Belief::Follows { leader, .. } | Belief::Gone { leader } => Some(leader),
            Belief::Unknown | Belief::Stands | Belief::Leads => None,
        }
    }

    /// Another node that leads, as one may tell others, and when it was heard last.
    pub(crate) fn followed(&self) -> Option<(&Sender, Instant)> {
        match &self.belief {
            Belief::Follows { leader, heard } => Some((leader, *heard)),
            _ => None,
        }
    }

    /// Whether the leader of the term is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.belief, Belief::Gone { .. })
    }

    /// Whether nobody is known to lead, this node included.
    pub(crate) fn is_leaderless(&self) -> bool {
        !matches!(self.belief, Belief::Follows { .. } | Belief::Leads)
    }

    /// How long the leader has been silent.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.followed().map_or(Duration::MAX, |(_, heard)| now.saturating_duration_since(heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// One event in each line; `at 300 ms` stands for the time, `term 2` for the term, `node 3` for who it is about.
    fn happens(view: &mut View, line: &str, begin: Instant) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |name: &str| {
            let place = words.iter().position(|word| *word == name);
            place.map(|place| words[place + 1].parse::<u64>().expect("a number"))
        };
        let now = begin + Duration::from_millis(number("at").unwrap_or(0));
        let term = Term(number("term").unwrap_or(0));
        let id = NodeId(number("node").unwrap_or(0));
        let counts = match words[0] {
            "heard" => {
                let from = Sender { id, address: format!("address-{id}").into() };
                view.heard(&from, term, now).then_some("").or(Some(", which does not count"))
            }
            "voted" => {
                view.took_up(term);
                None
            }
            "stands" => {
                view.stands(term);
                None
            }
            "leads" => {
                view.leads(term);
                None
            }
            "rests" => {
                view.rests(term);
                None
            }
            "lost" => view.lost(id, term).then_some("").or(Some(", which does not count")),
            _ => panic!("{line}"),
        };
        let belief = match &view.belief {
            Belief::Follows { leader, heard } => {
                format!("follows {}, heard at {} ms", leader.id, (*heard - begin).as_millis())
            }
            Belief::Gone { leader } => format!("{} is gone", leader.id),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("term {}: {belief}{}\n", view.term, counts.unwrap_or_default())
    }

    #[test]
    fn a_belief_belongs_to_its_term_and_to_the_first_who_claims_it() {
        data_driven::run("raft/view.txt", |asked| {
            let (mut view, begin) = (View::new(Term(1)), Instant::now());
            asked.lines().map(|line| happens(&mut view, line, begin)).collect()
        });
    }
}
