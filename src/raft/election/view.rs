//! Who leads as far as messages tell, and whether that node seems to be gone: a leader whose process died is replaced
//! without waiting for the election timeout. A leader is taken for gone only here, by its own connections; others who
//! still hear it refuse their votes, so a live leader is never unseated.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::peers::Sender;
use crate::types::{NodeId, Term};

/// The leader of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leader {
    from: Sender,
    term: Term,
}

#[derive(Debug, Default)]
struct State {
    leader: Option<Leader>,
    heard: Option<Instant>,
    /// Of which leader openraft was last told.
    told: Option<(NodeId, Term, Instant)>,
    /// Connections of each peer that are open.
    open: BTreeSet<(NodeId, u64)>,
    /// Nothing is left of the leader's connections, and it does not answer.
    gone: bool,
}

/// What a connection of the leader that ended means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// Leader.
    pub(super) leader: NodeId,
    /// What it is dialled at.
    pub(super) address: Bytes,
    /// Its term.
    pub(super) term: Term,
}

/// Shared by the connections and the failover task.
#[derive(Clone, Debug)]
pub(crate) struct LeaderBoard {
    state: Arc<Mutex<State>>,
    suspicion: watch::Sender<Option<Suspicion>>,
}

impl LeaderBoard {
    pub(crate) fn new() -> LeaderBoard {
        LeaderBoard { state: Arc::default(), suspicion: watch::channel(None).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leader's message came.
    pub(crate) fn heard(&self, from: &Sender, term: Term) {
        let mut state = self.lock();
        if state.leader.as_ref().is_none_or(|leader| leader.term < term || leader.from != *from) {
            state.leader = Some(Leader { from: from.clone(), term });
        }
        state.heard = Some(Instant::now());
        state.gone = false;
        drop(state);
        self.suspicion.send_if_modified(|suspicion| suspicion.take().is_some());
    }

    /// openraft gets a message of this leader.
    pub(crate) fn tell(&self, leader: NodeId, term: Term) {
        self.lock().told = Some((leader, term, Instant::now()));
    }

    /// When openraft was last told of this leader, if of no other since.
    pub(crate) fn told(&self, leader: NodeId, term: Term) -> Option<Instant> {
        self.lock().told.filter(|told| (told.0, told.1) == (leader, term)).map(|told| told.2)
    }

    /// This node voted for another leader, in this term.
    pub(crate) fn voted(&self, term: Term) {
        let mut state = self.lock();
        if state.leader.as_ref().is_some_and(|leader| leader.term < term) {
            state.leader = None;
        }
    }

    /// Who leads, and where it is.
    pub(crate) fn leader(&self) -> Option<(NodeId, Bytes)> {
        self.lock().leader.as_ref().map(|leader| (leader.from.id, leader.from.address.clone()))
    }

    /// Address that a peer gave when it led.
    pub(crate) fn address_of(&self, id: NodeId) -> Option<Bytes> {
        self.leader().filter(|(leader, _)| *leader == id).map(|(_, address)| address)
    }

    /// Whether the leader counts as gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// The leader of this suspicion does not answer and was not heard since.
    pub(super) fn mark_gone(&self, suspicion: &Suspicion) -> bool {
        let mut state = self.lock();
        let same = state
            .leader
            .as_ref()
            .is_some_and(|leader| leader.from.id == suspicion.leader && leader.term == suspicion.term);
        let has_connection = state.open.iter().any(|(id, _)| *id == suspicion.leader);
        state.gone = same && !has_connection;
        state.gone
    }

    /// How long the leader has been silent.
    pub(super) fn silence(&self) -> Duration {
        self.lock().heard.map(|heard| heard.elapsed()).unwrap_or(Duration::MAX)
    }

    /// A connection was made.
    pub(crate) fn connected(&self, from: &Sender, number: u64) {
        self.lock().open.insert((from.id, number));
    }

    /// A connection ended: the last one of the leader is a reason to look whether it is still there.
    pub(crate) fn disconnected(&self, from: &Sender, number: u64) {
        let mut state = self.lock();
        state.open.remove(&(from.id, number));
        let last = !state.open.iter().any(|(id, _)| *id == from.id);
        let suspicion =
            state.leader.as_ref().filter(|leader| last && leader.from.id == from.id).map(|leader| {
                Suspicion { leader: leader.from.id, address: leader.from.address.clone(), term: leader.term }
            });
        drop(state);
        if suspicion.is_some() {
            self.suspicion.send_replace(suspicion);
        }
    }

    /// The current suspicion, as it changes.
    pub(super) fn suspicion(&self) -> watch::Receiver<Option<Suspicion>> {
        self.suspicion.subscribe()
    }
}
