//! Which terms of others are believed, and how long this node's own may grow. Pure.
//!
//! Elections count terms one by one. A term far above the own one comes from no election: taken up, it would leave fewer
//! terms, or none, for the elections to come, and it is on the disk for good.

use std::cmp::Ordering;

use crate::raft::log::LogView;
use crate::types::Term;
use crate::types::config::{TERM_END, TERM_STEP_MAX};
use crate::types::fault::{self, Fault};

/// A term that is believed, seen from the term of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Over: whoever says it has to learn the own one.
    Past,
    /// The own one.
    Own,
    /// Of an election that this node has not seen.
    Later,
}

/// A term that no node of this cluster can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImpossibleTerm {
    /// Whoever leads or asks for votes has a term.
    #[error("a question of term 0")]
    Zero,
    /// No elections lead from one to the other.
    #[error("term {claimed} is too far above the term {own} of this node")]
    TooFar {
        /// The term of the message.
        claimed: Term,
        /// The term of this node.
        own: Term,
    },
}

/// What this node knows of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The term that this node is in, which is on its disk.
    own: Term,
    /// Who has a configuration was once in the term of its cluster.
    has_configuration: bool,
}

impl Terms {
    /// Of a node with this log.
    pub(crate) fn of(log: &LogView) -> Terms {
        let own = log.vote().map_or(Term(0), |(vote, _)| Term(vote.term));
        Terms { own, has_configuration: !log.configuration().0.servers().is_empty() }
    }

    /// The term that this node is in.
    pub(crate) fn own(self) -> Term {
        self.own
    }

    /// Judges the term of a message. Only an answer can be of term 0: who has never voted may refuse.
    pub(crate) fn admit(self, claimed: Term, is_answer: bool) -> Result<Claim, ImpossibleTerm> {
        if claimed == Term(0) && !is_answer {
            return Err(ImpossibleTerm::Zero);
        }
        let claim = self.compare(claimed);
        if claim != Claim::Later {
            return Ok(claim);
        }
        let is_near = claimed.0 - self.own.0 <= TERM_STEP_MAX || !self.has_configuration;
        if is_near && claimed.0 < TERM_END || fault::is_planted(Fault::TermUnbounded) {
            Ok(claim)
        } else {
            Err(ImpossibleTerm::TooFar { claimed, own: self.own })
        }
    }

    /// How the term of an admitted message compares now.
    pub(crate) fn compare(self, claimed: Term) -> Claim {
        match claimed.cmp(&self.own) {
            Ordering::Less => Claim::Past,
            Ordering::Equal => Claim::Own,
            Ordering::Greater => Claim::Later,
        }
    }

    /// The term that this node would stand in; none if terms have come to their end.
    pub(crate) fn next(self) -> Option<Term> {
        (self.own.0 < TERM_END - 1).then(|| Term(self.own.0 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::data_driven;

    /// `5`, `2^32`, or a sum or difference of two such.
    fn number(text: &str) -> u64 {
        let one = |text: &str| match text.split_once('^') {
            Some((base, exponent)) => base.parse::<u128>().unwrap().pow(exponent.parse().unwrap()),
            None => text.parse().expect("a number"),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = match words[..] {
            [one_number] => one(one_number),
            [first, "+", second] => one(first) + one(second),
            [first, "-", second] => one(first) - one(second),
            _ => panic!("{text}"),
        };
        u64::try_from(number).unwrap()
    }

    /// `in term 5: question of term 6`, `in term 5 without a configuration: answer of term 6`, `in term 5: stand`.
    fn judged(line: &str) -> String {
        let (own, asked) = line.split_once(": ").expect("who: what");
        let own = own.strip_prefix("in term ").expect("the own term");
        let (own, has_configuration) = match own.strip_suffix(" without a configuration") {
            Some(own) => (own, false),
            None => (own, true),
        };
        let terms = Terms { own: Term(number(own)), has_configuration };
        if asked == "stand" {
            return terms.next().map_or("never again".to_owned(), |term| format!("in term {term}"));
        }
        let (kind, claimed) = asked.split_once(" of term ").expect("a message");
        assert!(["question", "answer"].contains(&kind), "{kind}");
        match terms.admit(Term(number(claimed)), kind == "answer") {
            Ok(claim) => format!("{claim:?}").to_lowercase(),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn a_term_is_believed_that_elections_can_have_led_to() {
        data_driven::run("raft/terms.txt", |asked| asked.lines().map(|line| judged(line) + "\n").collect());
    }
}
