//! What all modelled C nodes of a cluster have seen, over all their lives.

use std::collections::BTreeMap;

use dqlite::types::{NodeId, Term};

/// Counts, and who led when.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Leader of each term that a C node heard from or was.
    leaders: BTreeMap<Term, NodeId>,
    /// Two leaders in one term.
    violation: Option<String>,
    /// Snapshots of this library's nodes that C nodes installed.
    pub snapshots_to_c: usize,
    /// Snapshots of C nodes that this library's nodes installed.
    pub snapshots_to_ours: usize,
    /// Entries that C nodes stored and acknowledged to a leader.
    pub entries_to_c: usize,
    /// Entries that this library's nodes acknowledged to a C leader.
    pub entries_to_ours: usize,
    /// Changes of the configuration that C leaders made.
    pub changes_by_c: usize,
    /// C leaders that asked a node of this library to take over.
    pub transfers_by_c: usize,
    /// No leader writes entries of its own any more.
    pub quiet: bool,
}

impl Observed {
    /// A node leads in a term. Two in one term are a violation.
    pub(super) fn leads(&mut self, term: Term, leader: NodeId) {
        let known = *self.leaders.entry(term).or_insert(leader);
        if known != leader {
            self.violation = Some(format!("nodes {known} and {leader} both lead in term {term}"));
        }
    }

    /// What must not be.
    #[must_use]
    pub fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    /// Terms whose leader `is`.
    #[must_use]
    pub fn elections(&self, is: impl Fn(u64) -> bool) -> usize {
        self.leaders.values().filter(|leader| is(leader.0)).count()
    }

    /// Terms whose leader is no C node, after a C node led.
    #[must_use]
    pub fn returns(&self, is_c: impl Fn(u64) -> bool) -> usize {
        let leaders: Vec<bool> = self.leaders.values().map(|leader| is_c(leader.0)).collect();
        leaders.windows(2).filter(|pair| pair[0] && !pair[1]).count()
    }
}
