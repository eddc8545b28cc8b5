//! Every rule of state-machine 6.1, and that plans settle.

use proptest::prelude::*;

use super::*;

const OWN: NodeId = NodeId(1);

fn online(id: u64, role: Role, failure_domain: u64, weight: u64) -> Polled {
    Polled { id: NodeId(id), role, online: Some(Description { failure_domain, weight }) }
}

fn offline(id: u64, role: Role) -> Polled {
    Polled { id: NodeId(id), role, online: None }
}

fn planned(members: &[Polled], voters: usize, standbys: usize) -> Vec<(u64, Role)> {
    plan(members, OWN, Targets { voters, standbys }).into_iter().map(|(id, role)| (id.0, role)).collect()
}

use Role::{Spare, StandBy, Voter};

// checklist c-api 70, state-machine 6.1: five nodes, targets 3 and 3
#[test]
fn spares_become_voters_then_standbys() {
    let members = [
        online(1, Voter, 0, 0),
        online(2, Spare, 0, 0),
        online(3, Spare, 0, 0),
        online(4, Spare, 0, 0),
        online(5, Spare, 0, 0),
    ];
    assert_eq!(planned(&members, 3, 3), [(2, Voter), (3, Voter), (4, StandBy), (5, StandBy)]);
}

#[test]
fn who_is_not_there_becomes_a_spare_after_somebody_votes_in_its_place() {
    let members = [
        online(1, Voter, 0, 0),
        online(2, Voter, 0, 0),
        offline(3, Voter),
        online(4, Spare, 0, 0),
        offline(5, StandBy),
        offline(6, Spare),
    ];
    assert_eq!(planned(&members, 3, 0), [(4, Voter), (3, Spare), (5, Spare)]);
}

#[test]
fn promotion_prefers_rare_domains_then_little_weight_then_standbys() {
    let voter = online(1, Voter, 7, 0);
    assert_eq!(planned(&[voter, online(2, Spare, 7, 0), online(3, Spare, 8, 9)], 2, 0), [(3, Voter)]);
    assert_eq!(planned(&[voter, online(2, Spare, 8, 9), online(3, Spare, 8, 1)], 2, 0), [(3, Voter)]);
    assert_eq!(planned(&[voter, online(2, Spare, 8, 1), online(3, StandBy, 8, 1)], 2, 0), [(3, Voter)]);
    assert_eq!(planned(&[voter, online(2, Spare, 8, 1), online(3, Spare, 8, 1)], 2, 0), [(2, Voter)]);
}

#[test]
fn surplus_voters_and_standbys_become_spares_but_never_the_leader() {
    let members = [online(1, Voter, 0, 9), online(2, Voter, 0, 0), online(3, Voter, 0, 5)];
    assert_eq!(planned(&members, 1, 0), [(3, Spare), (2, Spare)]);
    let members = [online(1, Voter, 0, 0), online(2, StandBy, 1, 0), online(3, StandBy, 1, 1)];
    assert_eq!(planned(&members, 1, 1), [(3, Spare)]);
}

#[test]
fn fewer_nodes_than_targets_all_vote() {
    assert_eq!(planned(&[online(1, Voter, 0, 0), online(2, Spare, 0, 0)], 3, 2), [(2, Voter)]);
    assert_eq!(planned(&[online(1, Voter, 0, 0)], 3, 2), []);
}

#[test]
fn the_best_candidate_of_a_handover_is_online_and_does_not_vote() {
    let members =
        [online(1, Voter, 0, 0), online(2, Voter, 3, 0), online(3, Spare, 3, 0), online(4, Spare, 4, 5)];
    assert_eq!(best_candidate(&members, OWN), Some(NodeId(4)));
    assert_eq!(best_candidate(&members[..2], OWN), None);
    assert_eq!(best_candidate(&[online(1, Voter, 0, 0), offline(2, Spare)], OWN), None);
}

fn member() -> impl Strategy<Value = (u8, bool, u64, u64)> {
    (0..3u8, any::<bool>(), 0..3u64, 0..3u64)
}

proptest! {
    #[test]
    fn plans_settle_and_change_each_member_once(
        others in proptest::collection::vec(member(), 0..7), voters in 1usize..6, standbys in 0usize..4
    ) {
        let mut members = vec![online(1, Voter, 0, 0)];
        for (place, (role, there, domain, weight)) in others.into_iter().enumerate() {
            let role = [Voter, StandBy, Spare][usize::from(role)];
            let id = place as u64 + 2;
            members.push(if there { online(id, role, domain, weight) } else { offline(id, role) });
        }
        let changes = plan(&members, OWN, Targets { voters, standbys });
        let mut ids: Vec<NodeId> = changes.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), changes.len());
        for (id, role) in changes {
            prop_assert!(id != OWN);
            members.iter_mut().filter(|member| member.id == id).for_each(|member| member.role = role);
        }
        prop_assert_eq!(plan(&members, OWN, Targets { voters, standbys }), vec![]);
        let there = members.iter().filter(|member| member.online.is_some()).count();
        let voting = members.iter().filter(|member| member.role == Voter).count();
        prop_assert_eq!(voting, there.min(voters).max(1));
    }
}
