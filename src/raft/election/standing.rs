//! The facts that the table judges, from wherever they are known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;
use tracing::error;

use super::board::LeaderBoard;
use super::table::{self, Ballot, Because, Facts, Stand, Verdict};
use super::terms::Terms;
use crate::peers::message::RequestVote;
use crate::raft::apply::Applied;
use crate::raft::log::LogView;
use crate::raft::rounds::Contacts;
use crate::types::fault::{Fault, is_planted};
use crate::types::{NodeId, Term};

/// What decides whether this node may vote and stand. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Standing {
    id: NodeId,
    log: LogView,
    applied: watch::Receiver<Applied>,
    board: LeaderBoard,
    contacts: Contacts,
    installs: Arc<AtomicUsize>,
    /// That terms have come to their end is told once.
    told: Arc<AtomicBool>,
}

impl Standing {
    pub(crate) fn new(
        id: NodeId,
        log: LogView,
        applied: watch::Receiver<Applied>,
        board: LeaderBoard,
        contacts: Contacts,
    ) -> Standing {
        let (installs, told) = (Arc::default(), Arc::default());
        Standing { id, log, applied, board, contacts, installs, told }
    }

    fn facts(&self) -> Facts {
        let last = self.log.configuration();
        let (configuration, committed) = (&last.0, self.applied.borrow().index);
        Facts {
            leader: self.board.leader(self.contacts.held(&last, self.id)),
            is_voter: self.log.may_vote(self.id, committed),
            is_only_voter: configuration.is_only_voter(self.id),
            has_configuration: !configuration.servers().is_empty(),
            log_fails: self.log.fails(),
            is_durable: self.log.is_durable() || is_planted(Fault::StandsUndurable),
            installs: self.installs.load(Ordering::Relaxed) > 0,
            has_next_term: Terms::of(&self.log).next().is_some(),
            yields: self.board.yields_for(),
        }
    }

    /// Whether this node stands now.
    pub(super) fn stand(&self) -> Stand {
        table::stand(&self.facts())
    }

    /// Whether a candidate gets this node's vote.
    pub(super) fn vote(&self, ballot: &Ballot) -> Verdict {
        table::vote(&self.facts(), ballot)
    }

    /// Why this node may not stand, whoever asks it to.
    pub(crate) fn hindrance(&self) -> Option<Because> {
        table::hindrance(&self.facts())
    }

    /// The term that this node would stand in; none if it may not.
    pub(super) fn term(&self) -> Option<Term> {
        Terms::of(&self.log).next().filter(|_| self.hindrance().is_none())
    }

    /// A pre-vote of this node with its whole log: what it asks others, and a leader whether it is there.
    pub(super) fn pre_vote(&self, term: Term) -> RequestVote {
        let (last_index, last_term, _) = self.log.last();
        RequestVote {
            term,
            candidate: self.id,
            last_index,
            last_term,
            disrupts_leader: false,
            is_pre_vote: true,
        }
    }

    /// Tells once that no term is left. To be called when a term was taken up.
    pub(super) fn look(&self) {
        if let Some(own) = self.ended_in()
            && !self.told.swap(true, Ordering::Relaxed)
        {
            error!(term = own.0, "no term is left for elections: this node stands for none");
        }
    }

    /// A snapshot takes the place of the log until this is dropped: no vote is compared with either meanwhile.
    pub(crate) fn install(&self) -> Installing {
        self.installs.fetch_add(1, Ordering::Relaxed);
        Installing(self.installs.clone())
    }

    /// The term that this node is in, if no other is left.
    pub(crate) fn ended_in(&self) -> Option<Term> {
        let terms = Terms::of(&self.log);
        terms.next().is_none().then(|| terms.own())
    }
}

/// While it lives, a snapshot is being taken over.
pub(crate) struct Installing(Arc<AtomicUsize>);

impl Drop for Installing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
