//! Whom this node believes to lead. Pure: what happened comes in with its time.
//!
//! A belief belongs to one term and dies with it. In a term there is one leader: whoever claims it first is believed, as
//! openraft does, and nobody who claims it later moves anything, but a voter whose place a stranger has taken. A stranger may be
//! believed, since a member that is behind does not know all who vote.

use tokio::time::Instant;

use crate::peers::Sender;
use crate::types::fault::{self, Fault};
use crate::types::{NodeId, Term};

/// Why nobody is known to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// This node has just started.
    Started,
    /// A later term was taken up: another node was given a vote, or is in it.
    TookUp,
    /// This node stood and was not elected.
    NotElected,
    /// This node led until then.
    Led,
}

/// What is believed of the leader of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// Nobody was heard.
    Unknown {
        /// Since when it is so.
        since: Instant,
        /// Why.
        why: Why,
    },
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
    /// Whom openraft takes for the leader of this term: the first one that was believed.
    label: Option<NodeId>,
    /// Whether the leader votes, as far as this node knew when it was heard first.
    votes: bool,
}

impl View {
    /// After a start in this term.
    pub(crate) fn new(term: Term, now: Instant) -> View {
        View::unknown(term, now, Why::Started)
    }

    fn unknown(term: Term, since: Instant, why: Why) -> View {
        View { term, belief: Belief::Unknown { since, why }, label: None, votes: false }
    }

    /// A later term was taken up: by a vote, or because somebody is in it.
    pub(crate) fn took_up(&mut self, term: Term, now: Instant) {
        if term > self.term {
            let why = if self.belief == Belief::Leads { Why::Led } else { Why::TookUp };
            *self = View::unknown(term, now, why);
        }
    }

    /// A leader's message came, in a term that is believed; `votes` says whether the sender is known to vote. Whether it is from the
    /// leader of the term.
    pub(crate) fn heard(&mut self, from: &Sender, term: Term, votes: bool, now: Instant) -> bool {
        self.took_up(term, now);
        if term < self.term {
            return false;
        }
        let leader = match &self.belief {
            Belief::Unknown { .. } | Belief::Stands => from,
            // Its address is the one that it gave first.
            Belief::Follows { leader, .. } | Belief::Gone { leader } if leader.id == from.id => leader,
            Belief::Follows { .. } if fault::is_planted(Fault::SecondClaimantHeard) => from,
            Belief::Follows { .. } | Belief::Gone { .. } if votes && !self.votes => from,
            Belief::Follows { .. } | Belief::Gone { .. } | Belief::Leads => return false,
        };
        let leader = leader.clone();
        if self.leader().is_none_or(|known| known.id != leader.id) {
            self.label.get_or_insert(leader.id);
            self.votes = votes;
        }
        self.belief = Belief::Follows { leader, heard: now };
        true
    }

    /// As whom openraft is told of what somebody says as leader of a term: 0, nobody, if another one has its place.
    pub(crate) fn label_of(&self, id: NodeId, term: Term) -> NodeId {
        let Some(label) = self.label.filter(|_| term == self.term) else { return id };
        match self.leader() {
            Some(leader) if leader.id == id => label,
            _ if label == id => NodeId(0),
            _ => id,
        }
    }

    /// openraft asks for votes in this term.
    pub(crate) fn stands(&mut self, term: Term, now: Instant) {
        self.took_up(term, now);
        // What was heard in the term came later, and who has given up does not begin again in it.
        let may_stand = !matches!(self.belief, Belief::Unknown { why: Why::NotElected, .. });
        if term == self.term && matches!(self.belief, Belief::Unknown { .. }) && may_stand {
            self.belief = Belief::Stands;
        }
    }

    /// This node was elected in this term.
    pub(crate) fn leads(&mut self, term: Term, now: Instant) {
        self.took_up(term, now);
        if term == self.term {
            self.belief = Belief::Leads;
        }
    }

    /// openraft is in this term, and neither stands nor leads.
    pub(crate) fn rests(&mut self, term: Term, now: Instant) {
        self.took_up(term, now);
        match self.belief {
            Belief::Stands => self.not_elected(term, now),
            Belief::Leads if term == self.term => {
                self.belief = Belief::Unknown { since: now, why: Why::Led };
            }
            _ => {}
        }
    }

    /// The election in this term has led to nothing.
    pub(crate) fn not_elected(&mut self, term: Term, now: Instant) {
        if term == self.term && self.belief == Belief::Stands {
            self.belief = Belief::Unknown { since: now, why: Why::NotElected };
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

    /// What is believed.
    pub(crate) fn belief(&self) -> &Belief {
        &self.belief
    }

    /// Another node that leads, or did until it was gone.
    pub(crate) fn leader(&self) -> Option<&Sender> {
        match &self.belief {
            Belief::Follows { leader, .. } | Belief::Gone { leader } => Some(leader),
            Belief::Unknown { .. } | Belief::Stands | Belief::Leads => None,
        }
    }

    /// Whether somebody is known to lead, this node included.
    pub(crate) fn has_leader(&self) -> bool {
        matches!(self.belief, Belief::Follows { .. } | Belief::Leads)
    }

    /// Another node that leads, as one may tell others, and when it was heard last.
    pub(crate) fn followed(&self) -> Option<(&Sender, Instant)> {
        match &self.belief {
            Belief::Follows { leader, heard } => Some((leader, *heard)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::data_driven;

    /// One event in each line; `at 300 ms` stands for the time, `term 2` for the term, `node 3` for who it is about. The time is 0 where a line has none.
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
                view.heard(&from, term, !words.contains(&"stranger"), now)
                    .then_some("")
                    .or(Some(", which does not count"))
            }
            "voted" => {
                view.took_up(term, now);
                None
            }
            "stands" => {
                view.stands(term, now);
                None
            }
            "leads" => {
                view.leads(term, now);
                None
            }
            "rests" => {
                view.rests(term, now);
                None
            }
            "gives" => {
                view.not_elected(term, now);
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
            Belief::Unknown { since, why } => {
                format!("unknown since {} ms: {why:?}", (*since - begin).as_millis())
            }
            other => format!("{other:?}").to_lowercase(),
        };
        format!("term {}: {belief}{}\n", view.term, counts.unwrap_or_default())
    }

    #[test]
    fn a_belief_belongs_to_its_term_and_to_the_first_who_claims_it() {
        data_driven::run("raft/view.txt", |asked| {
            let begin = Instant::now();
            let mut view = View::new(Term(1), begin);
            asked.lines().map(|line| happens(&mut view, line, begin)).collect()
        });
    }
}
