//! What the node knows of its own leadership, for its other layers.

use tokio::sync::watch;

use crate::types::{NodeId, Term};

/// A leader that takes proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its term.
    pub term: Term,
    /// Epoch of its proposals.
    pub epoch: u64,
}

/// State of this node in the raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Current term.
    pub term: Term,
    /// Who leads, if known, and what to dial.
    pub leader: Option<(NodeId, Vec<u8>)>,
    /// Set only while this node leads, has applied its whole log and takes proposals.
    pub serving: Option<Serving>,
    /// Why raft has stopped for good, if it has.
    pub failed: Option<String>,
}

/// Leadership as the proposer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Another node leads or none.
    Other,
    /// This node leads in this term.
    Leading(Term),
    /// openraft has ended.
    Stopped,
}

/// Where the status is written.
#[derive(Clone, Debug)]
pub(crate) struct StatusBoard {
    sender: watch::Sender<Status>,
}

impl StatusBoard {
    pub(crate) fn new() -> StatusBoard {
        StatusBoard { sender: watch::channel(Status::default()).0 }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.sender.subscribe()
    }

    pub(crate) fn term(&self) -> Term {
        self.sender.borrow().term
    }

    pub(crate) fn serving(&self) -> Option<Serving> {
        self.sender.borrow().serving
    }

    pub(crate) fn serving_term(&self) -> Option<Term> {
        self.serving().map(|serving| serving.term)
    }

    pub(crate) fn set_serving(&self, serving: Option<Serving>) {
        self.sender.send_if_modified(|status| {
            let next = if status.failed.is_some() { None } else { serving };
            std::mem::replace(&mut status.serving, next) != next
        });
    }

    pub(crate) fn set_leader(&self, term: Term, leader: Option<(NodeId, Vec<u8>)>) {
        self.sender.send_if_modified(|status| {
            let changed = status.term != term || status.leader != leader;
            status.term = term;
            status.leader = leader;
            changed
        });
    }

    /// The first reason stays.
    pub(crate) fn fail(&self, reason: String) {
        self.sender.send_if_modified(|status| {
            status.serving = None;
            status.leader = None;
            if status.failed.is_some() {
                return false;
            }
            status.failed = Some(reason);
            true
        });
    }
}
