//! Whom this node believes to lead, and what it knows of silences, shared by the connections and the tasks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::Instant;

use super::awake::Awake;
use super::gaps::Gaps;
use super::table::Leader;
use super::times::Times;
use super::view::{Belief, View, Why};
use crate::peers::Sender;
use crate::types::config::CANDIDACY_YIELDS;
use crate::types::random::RandomSource;
use crate::types::{LogIndex, NodeId, Term};

struct State {
    view: View,
    awake: Awake,
    gaps: Gaps,
    /// A part of a thousand, drawn anew with each belief: nodes that wait for the same do not end at once.
    draw: u64,
    /// When the leader that is followed last answered that it is there.
    answered: Option<Instant>,
    /// The last leader that was taken for gone, and when it was heard last.
    replaced: Option<(NodeId, Instant)>,
    /// Term and index of the last entry with which this node asks for pre-votes.
    candidacy: Option<(Term, LogIndex)>,
    yields_until: Option<Instant>,
    /// Connections of each peer that are open.
    open: BTreeSet<(NodeId, u64)>,
}

impl State {
    /// When the leader that was heard to lead then last showed that it is there.
    fn sign_of(&self, heard: Instant) -> Instant {
        self.answered.map_or(heard, |answered| answered.max(heard))
    }
}

/// The last connection of the leader has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HungUp {
    /// Leader.
    pub(super) leader: NodeId,
    /// What it is dialled at.
    pub(super) address: Bytes,
    /// Its term.
    pub(super) term: Term,
}

/// The view, shared. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderBoard {
    state: Arc<Mutex<State>>,
    random: Arc<RandomSource>,
    hung_up: watch::Sender<Option<HungUp>>,
    /// Counts changes of what is believed.
    changes: watch::Sender<u64>,
    times: Times,
}

impl LeaderBoard {
    /// Of a node that starts in this term; it names no leader that it has not heard for an election timeout.
    pub(crate) fn new(term: Term, times: Times, random: Arc<RandomSource>) -> LeaderBoard {
        let state = State {
            view: View::new(term, Instant::now()),
            awake: Awake::default(),
            gaps: Gaps::new(times),
            draw: random.next_u64(),
            answered: None,
            replaced: None,
            candidacy: None,
            yields_until: None,
            open: BTreeSet::new(),
        };
        LeaderBoard {
            state: Arc::new(Mutex::new(state)),
            random,
            hung_up: watch::channel(None).0,
            changes: watch::channel(0).0,
            times,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to the view; who waits for another leader is told.
    fn change<T>(&self, event: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let (before, now) = (state.view.clone(), Instant::now());
        let result = event(&mut state, now);
        let has_changed =
            differs(&before, &state.view) || self.is_named(&before, now) != self.is_named(&state.view, now);
        if has_changed {
            state.draw = self.random.next_u64();
        }
        if state.view.followed().map(|(leader, _)| leader.id)
            != before.followed().map(|(leader, _)| leader.id)
        {
            state.answered = None;
        }
        drop(state);
        if has_changed {
            self.changes.send_modify(|count| *count += 1);
        }
        result
    }

    /// Whether a leader is followed that was heard within an election timeout.
    fn is_named(&self, view: &View, now: Instant) -> bool {
        view.followed().is_some_and(|(_, heard)| now.saturating_duration_since(heard) < self.times.election)
    }

    /// A leader's message came, from somebody who is known to vote or not. Whether it is from the leader of its term.
    pub(crate) fn heard(&self, from: &Sender, term: Term, votes: bool) -> bool {
        let counts = self.change(|state, now| {
            let heard = state.view.followed().map(|(leader, heard)| (leader.id, heard));
            let counts = state.view.heard(from, term, votes, now);
            let replaced = state.replaced.take_if(|(id, _)| *id == from.id);
            if let Some((_, heard)) = replaced {
                let gap = state.awake.elapsed(heard, now);
                state.gaps.was_replaced_after(gap, now);
            }
            if let Some((_, heard)) = heard.filter(|(id, _)| counts && *id == from.id) {
                let gap = state.awake.elapsed(heard, now);
                state.gaps.passed(gap, now);
            }
            counts
        });
        if counts {
            self.hung_up.send_if_modified(|hung_up| hung_up.take().is_some());
        }
        counts
    }

    /// This node voted for another leader, in this term: the one before is not waited for.
    pub(crate) fn voted(&self, term: Term) {
        self.change(|state, now| state.view.took_up(term, now));
    }

    /// What openraft says of itself.
    pub(super) fn is_in(&self, term: Term, openraft: ServerState) {
        self.change(|state, now| match openraft {
            ServerState::Leader => state.view.leads(term, now),
            ServerState::Candidate => state.view.stands(term, now),
            ServerState::Follower | ServerState::Learner | ServerState::Shutdown => {
                state.view.rests(term, now);
            }
        });
    }

    /// The election in this term has led to nothing.
    pub(super) fn not_elected(&self, term: Term) {
        self.change(|state, now| state.view.not_elected(term, now));
    }

    /// A timer that was due ended now.
    pub(super) fn woke(&self, due: Instant) {
        self.lock().awake.woke(due, Instant::now());
    }

    /// Whether a leader that surely had a majority until then may still have it.
    pub(super) fn is_in_contact(&self, held: Instant) -> bool {
        self.lock().awake.elapsed(held, Instant::now()) < self.times.election
    }

    /// Who leads in this term, where it is, and until when that may be said.
    pub(super) fn followed(&self, term: Term) -> Option<(Sender, Instant)> {
        let state = self.lock();
        let followed = state.view.followed().filter(|_| state.view.term() == term);
        followed.map(|(leader, heard)| (leader.clone(), heard + self.times.election))
    }

    /// As whom openraft is told of what `id` says as leader of `term`.
    pub(crate) fn label_of(&self, id: NodeId, term: Term) -> NodeId {
        self.lock().view.label_of(id, term)
    }

    /// Whether this node is followed, in this term.
    pub(crate) fn follows(&self, id: NodeId, term: Term) -> bool {
        let state = self.lock();
        state.view.term() == term && state.view.followed().is_some_and(|(leader, _)| leader.id == id)
    }

    /// Changes when something else is believed, or a leader is heard that was silent for long.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the leader of the term is this node.
    pub(super) fn is_leader(&self, id: NodeId) -> bool {
        self.lock().view.leader().is_some_and(|leader| leader.id == id)
    }

    /// Whether nobody is known to lead.
    pub(super) fn is_leaderless(&self) -> bool {
        !self.lock().view.has_leader()
    }

    /// The term that the belief is of.
    pub(super) fn term(&self) -> Term {
        self.lock().view.term()
    }

    /// Whether somebody leads in this term or a later one.
    pub(super) fn has_leader(&self, term: Term) -> bool {
        let state = self.lock();
        state.view.term() > term || (state.view.term() == term && state.view.has_leader())
    }

    /// What is known of the leader of the term; if this node leads, it surely had a majority until `held`.
    pub(super) fn leader(&self, held: Instant) -> Leader {
        let state = self.lock();
        let now = Instant::now();
        let silence = state.gaps.silence(now);
        match *state.view.belief() {
            Belief::Unknown { since, why } => {
                let spread = u32::try_from(state.draw % 1000).unwrap_or(0);
                let wait = match why {
                    Why::Started | Why::TookUp => silence + silence * spread / 1000,
                    Why::NotElected => self.times.retry(state.draw),
                    Why::Led => self.times.after_leading(),
                };
                Leader::Unknown { past: state.awake.elapsed(since, now), wait }
            }
            Belief::Follows { heard, .. } => {
                let silent = state.awake.elapsed(state.sign_of(heard), now);
                Leader::Follows { silent, fresh: self.times.fresh(), silence }
            }
            Belief::Gone { .. } => Leader::Gone,
            Belief::Stands => Leader::Stands,
            Belief::Leads => {
                Leader::Leads { in_contact: state.awake.elapsed(held, now) < self.times.election }
            }
        }
    }

    /// The leader that is followed, if it was not heard of late, and its term.
    pub(super) fn doubted(&self) -> Option<(Sender, Term)> {
        let state = self.lock();
        let (leader, heard) = state.view.followed()?;
        let is_silent = state.awake.elapsed(state.sign_of(heard), Instant::now()) >= self.times.fresh();
        is_silent.then(|| (leader.clone(), state.view.term()))
    }

    /// A leader that was asked whether it is there has said so: the next question comes later. Whether it is believed: whoever
    /// was not heard to lead for two election timeouts only answers as leaders do.
    pub(super) fn is_there(&self, leader: &Sender, term: Term) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let followed = state.view.followed().filter(|(followed, _)| *followed == leader);
        let Some((_, heard)) = followed.filter(|_| state.view.term() == term) else { return true };
        let is_believed = state.awake.elapsed(heard, now) < self.times.election * 2;
        if is_believed {
            let silence = state.gaps.silence(now);
            state.gaps.passed(silence, now);
            state.answered = Some(now);
        }
        is_believed
    }

    /// The leader of this term does not answer. Whether that is the one that is followed, or was gone already.
    pub(super) fn lost(&self, leader: NodeId, term: Term) -> bool {
        self.change(|state, _| {
            let heard = state.view.followed().map(|(_, heard)| heard);
            let is_lost = state.view.lost(leader, term);
            if let Some(heard) = heard.filter(|_| is_lost) {
                state.replaced = Some((leader, heard));
            }
            is_lost
        })
    }

    /// Somebody asks for votes in a later term. Whether that is the leader that is followed, which leads no more.
    pub(super) fn resigns(&self, candidate: NodeId) -> bool {
        self.change(|state, _| {
            let term = state.view.term();
            state.view.followed().is_some_and(|(leader, _)| leader.id == candidate)
                && state.view.lost(candidate, term)
        })
    }

    /// The same as `lost`, of one whose connections have ended; not if it has made another.
    pub(super) fn lost_with_its_connections(&self, hung_up: &HungUp) -> bool {
        let has_connection = self.lock().open.iter().any(|(id, _)| *id == hung_up.leader);
        !has_connection && self.lost(hung_up.leader, hung_up.term)
    }

    /// This node asks for pre-votes with this last entry, or does not any more.
    pub(super) fn set_candidacy(&self, candidacy: Option<(Term, LogIndex)>) {
        self.lock().candidacy = candidacy;
    }

    /// With which last entry this node asks for pre-votes.
    pub(super) fn candidacy(&self) -> Option<(Term, LogIndex)> {
        self.lock().candidacy
    }

    /// Another node was promised a vote: it comes first.
    pub(super) fn yields(&self) {
        self.lock().yields_until = Some(Instant::now() + CANDIDACY_YIELDS);
    }

    /// How long it still comes first.
    pub(super) fn yields_for(&self) -> Duration {
        let until = self.lock().yields_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
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
        let hung_up = leader.map(|leader| HungUp {
            leader: leader.id,
            address: leader.address.clone(),
            term: state.view.term(),
        });
        drop(state);
        if hung_up.is_some() {
            self.hung_up.send_replace(hung_up);
        }
    }

    /// The leader that has hung up, as it changes.
    pub(super) fn hung_up(&self) -> watch::Receiver<Option<HungUp>> {
        self.hung_up.subscribe()
    }
}

/// Whether something else is believed; that the same leader was heard again is nothing else.
fn differs(before: &View, after: &View) -> bool {
    let is_same_leader =
        before.followed().map(|(leader, _)| leader) == after.followed().map(|(leader, _)| leader);
    before.term() != after.term()
        || !is_same_leader
        || (after.followed().is_none() && before.belief() != after.belief())
}
