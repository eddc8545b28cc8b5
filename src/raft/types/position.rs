//! Where entries stand. openraft's log index is ours - 1 (its first entry is 0): `raft_index` and `log_index` are the only
//! places that convert.

use std::sync::Arc;

use openraft::LogId;

use crate::types::{Configuration, LogIndex, Term};

/// openraft's log id with our committed leader, the term.
pub type RaftLogId = LogId<u64>;

/// Our index as openraft counts; none for 0.
#[must_use]
pub const fn raft_index(index: LogIndex) -> Option<u64> {
    index.0.checked_sub(1)
}

/// openraft's index as we count.
#[must_use]
pub const fn log_index(raft_index: u64) -> LogIndex {
    LogIndex(raft_index.saturating_add(1))
}

/// openraft's log id of an entry of ours; none for index 0.
#[must_use]
pub fn log_id(term: Term, index: LogIndex) -> Option<RaftLogId> {
    raft_index(index).map(|index| LogId::new(term.0, index))
}

/// Our index and term of an openraft log id; 0 and 0 for none.
#[must_use]
pub fn position(log_id: Option<&RaftLogId>) -> (Term, LogIndex) {
    log_id.map_or((Term(0), LogIndex::NONE), |id| (Term(*id.committed_leader_id()), log_index(id.index)))
}

/// Where the state of a snapshot ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPosition {
    /// Term of the last entry in it.
    pub term: Term,
    /// Index of the last entry in it.
    pub index: LogIndex,
    /// Last configuration applied, spares included.
    pub configuration: Arc<Configuration>,
    /// Index of the entry of that configuration.
    pub configuration_index: LogIndex,
}
