//! Clusters of this library's nodes and models of upstream's.

use std::fmt;
use std::ops::Add;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::Cluster;

/// What a history of a mixed cluster showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mixed {
    /// Modelled nodes.
    pub nodes: usize,
    /// Terms in which one of them led.
    pub elections_of_c: usize,
    /// Terms in which a node of this library led.
    pub elections_of_ours: usize,
    /// Of those, terms right after one in which a C node led.
    pub returns: usize,
    /// C leaders that handed over.
    pub transfers_by_c: usize,
    /// Changes of roles by C leaders.
    pub changes_by_c: usize,
    /// Snapshots that C nodes installed from this library's.
    pub snapshots_to_c: usize,
    /// Snapshots that this library's nodes installed from C nodes.
    pub snapshots_to_ours: usize,
    /// Entries that C nodes acknowledged.
    pub entries_to_c: usize,
    /// Entries that this library's nodes acknowledged to C leaders.
    pub entries_to_ours: usize,
}

impl Add for Mixed {
    type Output = Mixed;

    fn add(self, other: Mixed) -> Mixed {
        Mixed {
            nodes: self.nodes + other.nodes,
            elections_of_c: self.elections_of_c + other.elections_of_c,
            elections_of_ours: self.elections_of_ours + other.elections_of_ours,
            returns: self.returns + other.returns,
            transfers_by_c: self.transfers_by_c + other.transfers_by_c,
            changes_by_c: self.changes_by_c + other.changes_by_c,
            snapshots_to_c: self.snapshots_to_c + other.snapshots_to_c,
            snapshots_to_ours: self.snapshots_to_ours + other.snapshots_to_ours,
            entries_to_c: self.entries_to_c + other.entries_to_c,
            entries_to_ours: self.entries_to_ours + other.entries_to_ours,
        }
    }
}

impl fmt::Display for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} C nodes; {} elections won by C nodes, {} by ours, {} of them right after a C node; {} transfers and {} changes of roles \
             by C leaders; snapshots installed: {} ours on C, {} of C on ours; entries acknowledged: {} by C nodes, {} by ours to C leaders",
            self.nodes,
            self.elections_of_c,
            self.elections_of_ours,
            self.returns,
            self.transfers_by_c,
            self.changes_by_c,
            self.snapshots_to_c,
            self.snapshots_to_ours,
            self.entries_to_c,
            self.entries_to_ours,
        )
    }
}

/// Which of the nodes are models: one to all but one, never node 1, which bootstraps.
pub(crate) fn places(seed: u64, nodes: u64) -> Vec<u64> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6d69_7865_6400);
    let mut places: Vec<u64> = (2..=nodes).collect();
    let kept = random.random_range(1..=places.len());
    while places.len() > kept {
        places.remove(random.random_range(0..places.len()));
    }
    places
}

/// What the models of a cluster have seen.
pub(crate) fn seen(cluster: &Cluster) -> Mixed {
    let is_c = |id: u64| cluster.is_modelled(id);
    let observed = cluster.observed();
    Mixed {
        nodes: cluster.ids().into_iter().filter(|id| is_c(*id)).count(),
        elections_of_c: observed.elections(is_c),
        elections_of_ours: observed.elections(|id| !is_c(id)),
        returns: observed.returns(is_c),
        transfers_by_c: observed.transfers_by_c,
        changes_by_c: observed.changes_by_c,
        snapshots_to_c: observed.snapshots_to_c,
        snapshots_to_ours: observed.snapshots_to_ours,
        entries_to_c: observed.entries_to_c,
        entries_to_ours: observed.entries_to_ours,
    }
}
