//! Whether this node may stand for an election at all, whoever asks it to: openraft's timer, the loss of a leader, a leader
//! that hands over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::error;

use super::terms::Terms;
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::types::Term;

/// Whether this node may stand. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Standing {
    raft: Consensus,
    log: LogView,
    log_fails: Arc<AtomicBool>,
    /// That terms have come to their end is told once.
    told: Arc<AtomicBool>,
}

impl Standing {
    pub(crate) fn new(raft: Consensus, log: LogView) -> Standing {
        let standing = Standing { raft, log, log_fails: Arc::default(), told: Arc::default() };
        standing.look();
        standing
    }

    /// The term that this node would stand in; none if it may not.
    pub(crate) fn term(&self) -> Option<Term> {
        Terms::of(&self.log).next().filter(|_| !self.log_fails.load(Ordering::Relaxed))
    }

    /// What openraft may do of itself follows from what is known now. To be called when a term was taken up.
    pub(crate) fn look(&self) {
        self.raft.runtime_config().elect(self.term().is_some());
        if let Some(own) = self.ended_in()
            && !self.told.swap(true, Ordering::Relaxed)
        {
            error!(term = own.0, "no term is left for elections: this node stands for none");
        }
    }

    /// Who cannot write its log cannot lead.
    pub(crate) fn set_log_fails(&self, fails: bool) {
        self.log_fails.store(fails, Ordering::Relaxed);
        self.look();
    }

    /// The term that this node is in, if no other is left.
    pub(crate) fn ended_in(&self) -> Option<Term> {
        let terms = Terms::of(&self.log);
        terms.next().is_none().then(|| terms.own())
    }
}
