//! Which roles change: a function of configuration, who is online, and targets. Pure.
//! No plan, carried out in part or whole, leaves a majority of the voters offline. spec: state-machine 6.1.

use std::collections::BTreeMap;

use crate::client::Description;
use crate::types::{Configuration, NodeId, Role};

/// Members and what was heard of them.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// The members, in order of joining.
    pub configuration: &'a Configuration,
    /// This node; it counts as online whatever was heard of it.
    pub own: NodeId,
    /// Those that answered.
    pub online: &'a BTreeMap<NodeId, Description>,
}

/// How many nodes shall have a role. spec: c-api 3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Voters, this node included.
    pub voters: usize,
    /// Stand-bys.
    pub standbys: usize,
}

impl Targets {
    /// The targets of the C setters, which take any number; below 0 is 0.
    #[must_use]
    pub fn from_settings(voters: i32, standbys: i32) -> Targets {
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        Targets { voters: count(voters), standbys: count(standbys) }
    }
}

/// A node gets a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node.
    pub id: NodeId,
    /// Its role afterwards.
    pub role: Role,
}

/// The changes, to be carried out in this order by the leader, which is `own`. At most one for each node.
#[must_use]
pub fn plan(cluster: Cluster<'_>, targets: Targets) -> Vec<Change> {
    let mut seats = Seats::new(cluster);
    // Nothing can be committed, or what was heard is not what raft sees: no time to demote anyone.
    if !seats.own_votes() || seats.lack_majority() {
        return Vec::new();
    }
    // Voters first: each of them counts against the majority.
    for role in [Role::Voter, Role::StandBy] {
        for id in seats.offline(role) {
            seats.assign(id, Role::Spare);
        }
    }
    while seats.online(Role::Voter) < targets.voters
        && let Some(id) = seats.best_for(Role::Voter, |role| role != Role::Voter)
    {
        seats.assign(id, Role::Voter);
    }
    while seats.online(Role::Voter) > targets.voters
        && let Some(id) = seats.most_dispensable(Role::Voter)
    {
        seats.assign(id, Role::Spare);
    }
    while seats.online(Role::StandBy) < targets.standbys
        && let Some(id) = seats.best_for(Role::StandBy, |role| role == Role::Spare)
    {
        seats.assign(id, Role::StandBy);
    }
    while seats.online(Role::StandBy) > targets.standbys
        && let Some(id) = seats.most_dispensable(Role::StandBy)
    {
        seats.assign(id, Role::Spare);
    }
    seats.changes()
}

/// Who takes over the role of `own`, which leaves: for a voter an online non-voter, for a stand-by an online spare.
#[must_use]
pub fn successor(cluster: Cluster<'_>) -> Option<Change> {
    let role = cluster.configuration.get(cluster.own)?.role;
    let mut seats = Seats::new(cluster);
    seats.0.retain(|seat| !seat.is_own);
    let id = match role {
        Role::Voter => seats.best_for(role, |role| role != Role::Voter),
        Role::StandBy => seats.best_for(role, |role| role == Role::Spare),
        Role::Spare => None,
    }?;
    Some(Change { id, role })
}

/// A member while the plan is made.
#[derive(Clone, Copy)]
struct Seat {
    id: NodeId,
    is_own: bool,
    before: Role,
    role: Role,
    /// Number of the last change that concerned it.
    changed: usize,
    online: Option<Description>,
}

struct Seats(Vec<Seat>);

impl Seats {
    fn new(cluster: Cluster<'_>) -> Seats {
        let seat = |server: &crate::types::Server| {
            let is_own = server.id == cluster.own;
            let online = cluster.online.get(&server.id).copied().or(is_own.then(Description::default));
            Seat { id: server.id, is_own, before: server.role, role: server.role, changed: 0, online }
        };
        Seats(cluster.configuration.servers().iter().map(seat).collect())
    }

    fn own_votes(&self) -> bool {
        self.0.iter().any(|seat| seat.is_own && seat.role == Role::Voter)
    }

    /// Whether one voter fewer would still leave no majority online. Each single change of a plan that starts above
    /// this keeps it so: offline voters go first, and an online voter comes or goes only when they have gone.
    fn lack_majority(&self) -> bool {
        let voters = self.0.iter().filter(|seat| seat.role == Role::Voter).count();
        2 * self.online(Role::Voter) < voters
    }

    fn online(&self, role: Role) -> usize {
        self.0.iter().filter(|seat| seat.role == role && seat.online.is_some()).count()
    }

    fn offline(&self, role: Role) -> Vec<NodeId> {
        let offline = self.0.iter().filter(|seat| seat.online.is_none() && seat.role == role);
        offline.map(|seat| seat.id).collect()
    }

    /// A node goes where its domain is rarest; then the lower weight, then stand-by before spare, then the older member.
    /// Unlike upstream this is looked at again after each pick, so that two picks do not go to one domain.
    fn best_for(&self, role: Role, may: impl Fn(Role) -> bool) -> Option<NodeId> {
        let candidates = self.0.iter().filter(|seat| may(seat.role));
        let ranked = candidates.filter_map(|seat| {
            let description = seat.online?;
            let rank = (self.with_domain(description, role), description.weight, seat.role != Role::StandBy);
            Some((rank, seat.id))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// The reverse, among the online nodes of a role; never this node.
    fn most_dispensable(&self, role: Role) -> Option<NodeId> {
        let candidates = self.0.iter().filter(|seat| seat.role == role && !seat.is_own);
        let ranked = candidates.filter_map(|seat| {
            let description = seat.online?;
            Some(((self.with_domain(description, role), description.weight), seat.id))
        });
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// Online nodes of the role in the same failure domain.
    fn with_domain(&self, description: Description, role: Role) -> usize {
        let same = |seat: &&Seat| {
            seat.role == role
                && seat.online.is_some_and(|other| other.failure_domain == description.failure_domain)
        };
        self.0.iter().filter(same).count()
    }

    fn assign(&mut self, id: NodeId, role: Role) {
        let last = self.0.iter().map(|seat| seat.changed).max().unwrap_or(0);
        if let Some(seat) = self.0.iter_mut().find(|seat| seat.id == id) {
            seat.role = role;
            seat.changed = last + 1;
        }
    }

    /// Several changes of one node are one, at the place of the last.
    fn changes(mut self) -> Vec<Change> {
        self.0.retain(|seat| seat.role != seat.before);
        self.0.sort_by_key(|seat| seat.changed);
        self.0.into_iter().map(|seat| Change { id: seat.id, role: seat.role }).collect()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
