//! Bad disks: what is wrong with them, whose they are, and one run of three nodes under writers with some; and good ones of every
//! file system. The processes are in namespaces of their own, so that nothing of it stays: mounts, nodes and tracers end with the
//! program.

pub mod file_system;
pub mod run;
pub mod space;
pub mod tracer;
pub mod volume;

use std::time::Duration;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No space is left, and what becomes free is taken again.
    Full,
    /// The file system was made read-only by the kernel, as after an error. It stays so until it is mounted anew.
    ReadOnly,
    /// What was written does not come to the disk.
    Eio,
    /// Every write is refused, as by a quota, while the file system says that there is space.
    Enospc,
    /// A sync takes half a second longer.
    Slow,
    /// A sync does not return.
    Hang,
}

/// Whose disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The leader's.
    Leader,
    /// That of one of the others.
    Follower,
    /// Those of both others.
    TwoFollowers,
    /// All, for a while.
    All,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [Kind::Full, Kind::ReadOnly, Kind::Eio, Kind::Enospc, Kind::Slow, Kind::Hang];

    /// How long it lasts, if others last for `others`: a disk is full only when its log has used up what it had allocated.
    #[must_use]
    pub fn lasts(self, others: Duration) -> Duration {
        if self == Kind::Full { others + others / 2 } else { others }
    }

    /// As options and tables name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::ReadOnly => "read-only",
            Kind::Eio => "eio",
            Kind::Enospc => "enospc",
            Kind::Slow => "slow",
            Kind::Hang => "hang",
        }
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Leader, Role::Follower, Role::TwoFollowers, Role::All];

    /// As options and tables name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::TwoFollowers => "two-followers",
            Role::All => "all",
        }
    }

    /// The nodes whose disks are bad. `followers` are the ids of those that do not lead.
    #[must_use]
    pub fn bad(self, leader: u64, followers: &[u64]) -> Vec<u64> {
        match self {
            Role::Leader => vec![leader],
            Role::Follower => followers.iter().copied().take(1).collect(),
            Role::TwoFollowers => followers.to_vec(),
            Role::All => followers.iter().copied().chain([leader]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_names_the_nodes_whose_disks_are_bad() {
        let bad = |role: Role| role.bad(2, &[1, 3]);

        assert_eq!(Role::ALL.map(bad), [vec![2], vec![1], vec![1, 3], vec![1, 3, 2]]);
    }
}
