//! Whom this node believes to lead, shared by the connections and the tasks; and whether that node seems to be gone: a leader whose
//! process died is replaced without waiting for the election timeout. A leader is taken for gone only here, by its own
//! connections; others who still hear it refuse their votes, so a live leader is never unseated.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::Instant;

use super::view::View;
use crate::peers::Sender;
use crate::types::{NodeId, Term};

#[derive(Debug)]
struct State {
    view: View,
    /// Of which leader openraft was last told.
    told: Option<(NodeId, Term, Instant)>,
    /// Connections of each peer that are open.
    open: BTreeSet<(NodeId, u64)>,
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

/// The view, shared. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LeaderBoard {
    state: Arc<Mutex<State>>,
    suspicion: watch::Sender<Option<Suspicion>>,
    /// Counts changes of who is followed.
    changes: watch::Sender<u64>,
    /// A leader that was not heard for so long is not named any more.
    silence_max: Duration,
}

impl LeaderBoard {
    /// Of a node that starts in this term; it names no leader that it has not heard for `silence_max`.
    pub(crate) fn new(term: Term, silence_max: Duration) -> LeaderBoard {
        let state = State { view: View::new(term), told: None, open: BTreeSet::new() };
        LeaderBoard {
            state: Arc::new(Mutex::new(state)),
            suspicion: watch::channel(None).0,
            changes: watch::channel(0).0,
            silence_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to the view; who waits for another leader is told.
    fn change<T>(&self, event: impl FnOnce(&mut View) -> T) -> T {
        let mut state = self.lock();
        let followed = |view: &View| (view.term(), view.followed().map(|(leader, _)| leader.clone()));
        let before = followed(&state.view);
        let result = event(&mut state.view);
        let has_changed = followed(&state.view) != before;
        drop(state);
        if has_changed {
            self.changes.send_modify(|count| *count += 1);
        }
        result
    }

    /// A leader's message came. Whether it is from the leader of its term.
    pub(crate) fn heard(&self, from: &Sender, term: Term) -> bool {
        let now = Instant::now();
        let (silence, counts) = self.change(|view| (view.silence(now), view.heard(from, term, now)));
        if counts {
            if silence >= self.silence_max {
                self.changes.send_modify(|count| *count += 1);
            }
            self.suspicion.send_if_modified(|suspicion| suspicion.take().is_some());
        }
        counts
    }

    /// openraft gets a message of this leader.
    pub(crate) fn tell(&self, leader: NodeId, term: Term) {
        self.lock().told = Some((leader, term, Instant::now()));
    }

    /// When openraft was last told of this leader, if of no other since.
    pub(crate) fn told(&self, leader: NodeId, term: Term) -> Option<Instant> {
        self.lock().told.filter(|told| (told.0, told.1) == (leader, term)).map(|told| told.2)
    }

    /// This node voted for another leader, in this term: the one before is not waited for.
    pub(crate) fn voted(&self, term: Term) {
        self.change(|view| view.took_up(term));
    }

    /// What openraft says of itself.
    pub(super) fn is_in(&self, term: Term, state: ServerState) {
        self.change(|view| match state {
            ServerState::Leader => view.leads(term),
            ServerState::Candidate => view.stands(term),
            ServerState::Follower | ServerState::Learner | ServerState::Shutdown => view.rests(term),
        });
    }

    /// Who leads in this term, where it is, and until when that may be said.
    pub(super) fn followed(&self, term: Term) -> Option<(Sender, Instant)> {
        let state = self.lock();
        let followed = state.view.followed().filter(|_| state.view.term() == term);
        followed.map(|(leader, heard)| (leader.clone(), heard + self.silence_max))
    }

    /// Changes when somebody else is followed, nobody any more, or one that was silent.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the leader of the term is this node.
    pub(super) fn is_leader(&self, id: NodeId) -> bool {
        self.lock().view.leader().is_some_and(|leader| leader.id == id)
    }

    /// Whether the leader counts as gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().view.is_gone()
    }

    /// Whether nobody is known to lead.
    pub(super) fn is_leaderless(&self) -> bool {
        self.lock().view.is_leaderless()
    }

    /// The leader of this suspicion does not answer and was not heard since.
    pub(super) fn mark_gone(&self, suspicion: &Suspicion) -> bool {
        let has_connection = self.lock().open.iter().any(|(id, _)| *id == suspicion.leader);
        !has_connection && self.change(|view| view.lost(suspicion.leader, suspicion.term))
    }

    /// How long the leader has been silent.
    pub(super) fn silence(&self) -> Duration {
        self.lock().view.silence(Instant::now())
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
        let leader = state.view.leader().filter(|leader| last && leader.id == from.id);
        let suspicion = leader.map(|leader| Suspicion {
            leader: leader.id,
            address: leader.address.clone(),
            term: state.view.term(),
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
