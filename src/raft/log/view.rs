//! What the log says of itself to the rest of consensus.

use std::sync::Arc;

use tokio::sync::watch;

use super::sender::LogPhase;
use super::state::SharedState;
use crate::raft::types::{Entry, LeaderId, SnapshotPosition, position};
use crate::state_machine::frames;
use crate::types::{Configuration, LogIndex, ProposalToken, Term};

/// What the log says of itself to the engine.
#[derive(Clone, Debug)]
pub(crate) struct LogView {
    pub(super) state: SharedState,
    pub(super) appended: watch::Receiver<Option<ProposalToken>>,
    pub(super) phase: watch::Receiver<LogPhase>,
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

    /// A received snapshot that ends here is about to replace the log: what a truncation would remove from the disk
    /// before it goes with all the rest, so that no step in between can be loaded as something else.
    pub(crate) fn expect_snapshot(&self, position: SnapshotPosition) {
        self.state.lock().incoming = Some(position);
    }

    /// That snapshot was not installed.
    pub(crate) fn expect_no_snapshot(&self) {
        self.state.lock().incoming = None;
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

    /// Token of the last proposal that reached the log.
    pub(crate) fn appended(&self) -> watch::Receiver<Option<ProposalToken>> {
        self.appended.clone()
    }

    /// What the log does with proposals.
    pub(crate) fn phase(&self) -> watch::Receiver<LogPhase> {
        self.phase.clone()
    }
}
