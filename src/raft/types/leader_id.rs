//! Who leads or is voted for in a term. A vote for nobody (id 0: a term learned without voting) is below every real vote
//! of its term, so that it can still be given. spec: disk-format 3 (`voted_for` 0).

use std::cmp::Ordering;
use std::fmt;

use openraft::vote::RaftLeaderId;

/// Leader or candidate of a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderId {
    /// Term.
    pub term: u64,
    /// Node; 0 is nobody.
    pub voted_for: u64,
}

impl PartialOrd for LeaderId {
    fn partial_cmp(&self, other: &LeaderId) -> Option<Ordering> {
        match self.term.cmp(&other.term) {
            Ordering::Equal if self.voted_for == other.voted_for => Some(Ordering::Equal),
            Ordering::Equal if self.voted_for == 0 => Some(Ordering::Less),
            Ordering::Equal if other.voted_for == 0 => Some(Ordering::Greater),
            Ordering::Equal => None,
            unequal => Some(unequal),
        }
    }
}

// The committed leader of a term is the term alone; an uncommitted one of the same term is below it.
impl PartialEq<u64> for LeaderId {
    fn eq(&self, _committed: &u64) -> bool {
        false
    }
}

impl PartialOrd<u64> for LeaderId {
    fn partial_cmp(&self, committed: &u64) -> Option<Ordering> {
        Some(if self.term <= *committed { Ordering::Less } else { Ordering::Greater })
    }
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.voted_for)
    }
}

impl RaftLeaderId for LeaderId {
    type Term = u64;
    type NodeId = u64;
    type Committed = u64;

    fn new(term: u64, voted_for: u64) -> LeaderId {
        LeaderId { term, voted_for }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn node_id(&self) -> &u64 {
        &self.voted_for
    }

    fn to_committed(&self) -> u64 {
        self.term
    }
}

#[cfg(test)]
mod tests {
    use super::LeaderId;

    #[test]
    fn nobody_is_below_every_vote_of_its_term_and_two_votes_of_a_term_are_not_comparable() {
        let id = |term, voted_for| LeaderId { term, voted_for };

        assert!(id(2, 0) < id(2, 7));
        assert!(id(2, 7) > id(2, 0));
        assert!(id(2, 7) == id(2, 7));
        assert_eq!(id(2, 7).partial_cmp(&id(2, 8)), None);
        assert!(id(3, 0) > id(2, 7));
        assert!(id(1, 9) < id(2, 0));
    }

    #[test]
    fn an_uncommitted_leader_is_below_the_committed_one_of_its_term() {
        let id = |term, voted_for| LeaderId { term, voted_for };

        assert!(id(2, 7) < 2);
        assert!(id(2, 0) < 2);
        assert!(id(1, 7) < 2);
        assert!(id(3, 0) > 2);
        assert!(id(2, 7) != 2);
    }
}
