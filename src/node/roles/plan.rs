//! Which roles should change. Pure. spec: state-machine 6.1.

use std::collections::BTreeMap;

use crate::client::Description;
use crate::types::{NodeId, Role};

/// A member as a round of polls found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Member.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// What it told of itself; None if it is not there.
    pub online: Option<Description>,
}

/// How many members should have which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Voters.
    pub voters: usize,
    /// Stand-bys.
    pub standbys: usize,
}

/// Members in each failure domain.
type Domains = BTreeMap<u64, usize>;

fn domains<'a>(members: impl Iterator<Item = &'a Polled>) -> Domains {
    let mut domains = Domains::new();
    for description in members.filter_map(|member| member.online) {
        *domains.entry(description.failure_domain).or_default() += 1;
    }
    domains
}

/// Order of promotion: few in its failure domain, then little weight, then a stand-by before a spare, then the lower id.
fn preference(member: &Polled, taken: &Domains) -> (usize, u64, bool, NodeId) {
    let description = member.online.unwrap_or(Description { failure_domain: 0, weight: u64::MAX });
    let others = taken.get(&description.failure_domain).copied().unwrap_or(0);
    (others, description.weight, member.role != Role::StandBy, member.id)
}

/// The member that is to be promoted first among those not in `taken`.
#[must_use]
pub fn best_candidate(members: &[Polled], own: NodeId) -> Option<NodeId> {
    let voters = |member: &&Polled| member.role == Role::Voter && member.id != own;
    let taken = domains(members.iter().filter(voters));
    let candidates = members
        .iter()
        .filter(|member| member.online.is_some() && member.role != Role::Voter && member.id != own);
    candidates.min_by_key(|member| preference(member, &taken)).map(|member| member.id)
}

/// The roles that should change, in the order in which to change them; at most one change for each member.
#[must_use]
pub fn plan(polled: &[Polled], own: NodeId, targets: Targets) -> Vec<(NodeId, Role)> {
    let mut members = polled.to_vec();
    let mut changes: Vec<(NodeId, Role)> = Vec::new();
    let mut set = |members: &mut Vec<Polled>, id: NodeId, role: Role| {
        changes.retain(|(changed, _)| *changed != id);
        changes.push((id, role));
        if let Some(member) = members.iter_mut().find(|member| member.id == id) {
            member.role = role;
        }
    };
    let absent: Vec<NodeId> = members
        .iter()
        .filter(|member| member.online.is_none() && member.role != Role::Spare && member.id != own)
        .map(|member| member.id)
        .collect();
    // Voters that are there first, so that a demotion never leaves fewer than it must.
    for (role, goal) in [(Role::Voter, targets.voters), (Role::StandBy, targets.standbys)] {
        loop {
            let has = members.iter().filter(|member| member.role == role && member.online.is_some());
            let taken = domains(has.clone());
            let count = has.count();
            if count < goal {
                let free = members.iter().filter(|member| {
                    member.online.is_some() && member.role != Role::Voter && member.role != role
                });
                let Some(best) = free.min_by_key(|member| preference(member, &taken)).map(|member| member.id)
                else {
                    break;
                };
                set(&mut members, best, role);
            } else if count > goal {
                let surplus = members
                    .iter()
                    .filter(|member| member.role == role && member.online.is_some() && member.id != own);
                let worst = surplus.max_by_key(|member| {
                    let others = taken.get(&member.online.map_or(0, |online| online.failure_domain));
                    (others.copied().unwrap_or(0), member.online.map_or(0, |online| online.weight), member.id)
                });
                let Some(worst) = worst.map(|member| member.id) else { break };
                set(&mut members, worst, Role::Spare);
            } else {
                break;
            }
        }
        if role == Role::Voter {
            for id in &absent {
                set(&mut members, *id, Role::Spare);
            }
        }
    }
    changes
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
