//! What the log says of itself to the rest of consensus.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::durable::Durable;
use super::health::Look;
use super::sender::{LogPhase, LogSignals};
use super::state::SharedState;
use crate::raft::types::{Entry, LeaderId, RaftLogId, SnapshotPosition, position};
use crate::state_machine::frames;
use crate::types::fault::{Fault, is_planted};
use crate::types::{Configuration, LogIndex, NodeId, ProposalToken, Term};

/// What the log says of itself to the engine.
#[derive(Clone, Debug)]
pub(crate) struct LogView {
    pub(super) state: SharedState,
    pub(super) appended: watch::Receiver<Option<ProposalToken>>,
    pub(super) durable: Arc<watch::Sender<Durable>>,
    /// The last term that `durable` has taken up since the start: who leads is told of it, not of every flush.
    pub(super) taken_up: watch::Sender<Term>,
    pub(super) unflushed: Arc<AtomicUsize>,
    pub(super) signals: LogSignals,
}

impl LogView {
    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> LogIndex {
        position(self.state.lock().last_log_id().as_ref()).1
    }

    /// Rank of an entry that is still there or was purged last.
    pub(crate) fn rank_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::NONE {
            return None;
        }
        self.terms_at(index).map(|(_, rank)| rank)
    }

    /// Stored term and rank of an entry that is still there or was purged last; of index 0, zero.
    pub(crate) fn terms_at(&self, index: LogIndex) -> Option<(Term, Term)> {
        if index == LogIndex::NONE {
            return Some((Term(0), Term(0)));
        }
        let state = self.state.lock();
        let (rank, purged_index) = position(state.purged.as_ref());
        if index == purged_index {
            return Some((state.purged_term, rank));
        }
        state.entry(index).map(|entry| (entry.stored().term, entry.rank()))
    }

    /// Index, stored term and rank of the last entry.
    pub(crate) fn last(&self) -> (LogIndex, Term, Term) {
        let state = self.state.lock();
        match state.entries.back() {
            Some(entry) => (entry.log_index(), entry.stored().term, entry.rank()),
            None => {
                let (rank, index) = position(state.purged.as_ref());
                (index, state.purged_term, rank)
            }
        }
    }

    /// Index and stored term of the last entry that counts when this node votes. Of a follower it is the last durable one: what it
    /// never acknowledged must not refuse the only node that can lead. Who voted for itself may lead, and then openraft counts its
    /// entries as they become durable until it hears of the later vote: there it is the last one.
    pub(crate) fn last_for_vote(&self, own: NodeId) -> (LogIndex, Term) {
        let state = self.state.lock();
        let durable = self.durable.borrow().index();
        let may_lead = state.vote.is_some_and(|vote| vote.leader_id.voted_for == own.0);
        match state.entries.back() {
            Some(last) if may_lead => (last.log_index(), last.stored().term),
            _ => match state.entry(durable) {
                Some(entry) => (durable, entry.stored().term),
                None => (position(state.purged.as_ref()).1, state.purged_term),
            },
        }
    }

    /// Whether all of the log is durable.
    pub(crate) fn is_durable(&self) -> bool {
        let last = self.last_index();
        self.durable.borrow().covers(last)
    }

    /// Waits until it is.
    pub(crate) async fn all_durable(&self) {
        let mut durable = self.durable.subscribe();
        while !self.is_durable() {
            // This view holds the sender.
            let _ = durable.changed().await;
        }
    }

    /// This node decides to be in a term: no leader of an earlier one is told of a success any more. In the same step in which it
    /// compares logs.
    pub(crate) fn take_up(&self, term: Term) {
        let is_new = self.durable.send_if_modified(|durable| {
            let was_past = durable.is_past(Term(term.0.saturating_sub(1)));
            durable.take_up(term);
            !was_past
        });
        if is_new {
            self.taken_up.send_replace(self.durable.borrow().taken_up());
        }
    }

    /// Whether a later term was taken up: who leads in this one leads no more, whatever openraft waits for.
    pub(crate) fn has_left(&self, term: Term) -> bool {
        *self.taken_up.borrow() > term
    }

    /// Changes when a later term is taken up.
    pub(crate) fn taken_up(&self) -> watch::Receiver<Term> {
        self.taken_up.subscribe()
    }

    /// What is to be seen of the log and its disk.
    pub(crate) fn look(&self, committed: LogIndex) -> Look {
        Look {
            fails: self.fails(),
            is_full: self.signals.space.is_full(),
            last: self.last_index(),
            durable: self.durable.borrow().index(),
            committed,
        }
    }

    /// Whether the last try to write the log failed.
    pub(crate) fn fails(&self) -> bool {
        *self.signals.fails.borrow()
    }

    /// Bytes of entries that are on their way to the disk.
    pub(crate) fn unflushed_bytes(&self) -> usize {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// Waits until the log is durable up to an entry; whether a leader of `term` may be told so. It may not when a later term was
    /// taken up. Until then only this leader changes the log, and it takes back nothing of its own.
    pub(crate) async fn may_acknowledge(&self, term: Term, index: LogIndex) -> bool {
        let mut durable = self.durable.subscribe();
        let is_past = |durable: &Durable| durable.is_past(term) && !is_planted(Fault::AckAfterLaterTerm);
        let covers = |durable: &Durable| durable.covers(index) || is_planted(Fault::AckOnVoteFlush);
        let decided = durable.wait_for(|durable| is_past(durable) || covers(durable)).await;
        // This view holds the sender.
        decided.is_ok_and(|durable| !is_past(&durable))
    }

    /// The entry at an index, if it is in memory.
    pub(crate) fn entry_at(&self, index: LogIndex) -> Option<Entry> {
        self.state.lock().entry(index).cloned()
    }

    /// The last entry in memory that deletes a database.
    pub(crate) fn last_deletion(&self) -> Option<LogIndex> {
        let state = self.state.lock();
        let is_deletion = |entry: &&Entry| frames::deleted_database(entry.stored()).is_some();
        state.entries.iter().rev().find(is_deletion).map(Entry::log_index)
    }

    /// A snapshot has taken the place of the log, on the disk already. The entries that were there: their memory is large.
    pub(crate) fn replace(&self, id: Option<RaftLogId>, position: &SnapshotPosition) -> Vec<Entry> {
        let mut state = self.state.lock();
        let entries = state.replace(id, position);
        self.durable.send_modify(|durable| durable.replace(position.index));
        entries
    }

    /// Term of this node's vote, once that is durable; and whether it is the vote for a leader that was elected.
    pub(crate) fn vote(&self) -> Option<(LeaderId, bool)> {
        self.state.lock().vote.map(|vote| (vote.leader_id, vote.committed))
    }

    /// Bytes logged since the start, and those of the loaded entries that no snapshot covers.
    pub(crate) fn logged_bytes(&self) -> u64 {
        self.state.lock().logged_bytes
    }

    /// The last entry before the newest ones that fit into `max_bytes`; 0 if all do.
    pub(crate) fn last_beyond(&self, max_bytes: usize) -> LogIndex {
        let state = self.state.lock();
        let mut bytes = 0;
        let mut newest_first = state.entries.iter().rev();
        let beyond = newest_first.find(|entry| {
            bytes += entry.stored().data.len();
            bytes > max_bytes
        });
        beyond.map_or(LogIndex::NONE, Entry::log_index)
    }

    /// The last configuration in the log, committed or not, with the index of its entry.
    pub(crate) fn configuration(&self) -> (Arc<Configuration>, LogIndex) {
        let state = self.state.lock();
        state
            .configurations
            .last()
            .map(|(index, configuration)| (configuration.clone(), *index))
            .unwrap_or_default()
    }

    /// Whether a server votes by the last configuration, or by the one before while the last one is not known to be committed:
    /// then whoever has it in its log alone may be the only one who can be elected.
    pub(crate) fn may_vote(&self, id: NodeId, committed: LogIndex) -> bool {
        let state = self.state.lock();
        let mut newest_first = state.configurations.iter().rev();
        let votes = |(_, configuration): &(LogIndex, Arc<Configuration>)| configuration.is_voter(id);
        let Some(last) = newest_first.next() else { return false };
        votes(last) || (last.0 > committed && newest_first.next().is_some_and(votes))
    }

    /// Token of the last proposal that reached the log.
    pub(crate) fn appended(&self) -> watch::Receiver<Option<ProposalToken>> {
        self.appended.clone()
    }

    /// What the log does with proposals.
    pub(crate) fn phase(&self) -> watch::Receiver<LogPhase> {
        self.signals.phase.clone()
    }
}
