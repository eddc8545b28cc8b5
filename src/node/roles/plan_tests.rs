//! Rules of spec: state-machine 6.1, one table row each, and what holds for any cluster.

use proptest::prelude::*;

use super::super::testing::{address, cluster, letter};
use super::*;
use crate::types::Server;

fn shown(changes: &[Change]) -> String {
    let words: Vec<_> =
        changes.iter().map(|change| format!("{}{}", change.id, letter(change.role))).collect();
    words.join(" ")
}

fn planned(text: &str, voters: i32, standbys: i32) -> String {
    let (configuration, online) = cluster(text);
    let cluster = Cluster { configuration: &configuration, own: NodeId(1), online: &online };
    shown(&plan(cluster, Targets::from_settings(voters, standbys)))
}

// conformance: state-machine 25
#[test]
fn each_rule_plans_what_the_specification_says() {
    for (rule, text, voters, standbys, changes) in [
        ("nobody else", "V", 3, 3, ""),
        ("targets met", "V V V B B", 3, 2, ""),
        ("fewer nodes than targets", "V S", 3, 3, "2V"),
        ("fewer nodes than targets", "V S S", 5, 3, "2V 3V"),
        // c-api 70
        ("targets 3 and 3, five nodes", "V S S S S", 3, 3, "2V 3V 4B 5B"),
        ("targets 3 and 0", "V S S S S", 3, 0, "2V 3V"),
        ("offline voter is replaced", "V V v S", 3, 0, "3S 4V"),
        ("offline voter, stand-by before spare", "V V v S B", 3, 1, "3S 5V 4B"),
        ("offline voter without replacement", "V V v", 3, 0, "3S"),
        ("offline voter of two", "V v", 3, 0, "2S"),
        ("offline stand-by", "V V V b S", 3, 1, "4S 5B"),
        ("offline spare stays", "V V V s", 3, 1, ""),
        ("offline spare is not promoted", "V s S", 3, 0, "3V"),
        ("too many voters, youngest first", "V V V V V", 3, 0, "5S 4S"),
        ("too many voters become stand-bys", "V V V V V", 3, 1, "5S 4B"),
        ("too many voters by weight", "V V@0/2 V@0/3 V@0/1", 3, 0, "3S"),
        ("too many voters by domain", "V@1 V@2 V@3 V@1", 3, 0, "4S"),
        ("the leader is never demoted", "V@1/9 V@1 V@2 V@3", 3, 0, "2S"),
        ("the leader is never demoted", "V V", 0, 0, "2S"),
        ("negative targets are none", "V V B", -1, -7, "2S 3S"),
        ("too many stand-bys", "V V V B B B", 3, 1, "6S 5S"),
        ("too many stand-bys by domain", "V V V B@2 B@2 B@3", 3, 2, "5S"),
        ("rarer domain first", "V@1 V@2 S@1 S@2 S@3", 3, 0, "5V"),
        ("rarer domain before weight", "V@1 S@1/0 S@2/9", 2, 0, "3V"),
        ("rarer domain before stand-by", "V@1 B@1 S@2", 2, 0, "3V 2S"),
        ("weight before stand-by", "V B@0/2 S@0/1", 2, 0, "3V 2S"),
        ("lower weight first", "V S@0/3 S@0/1 S@0/2", 2, 0, "3V"),
        ("stand-by before spare", "V S B", 2, 0, "3V"),
        ("ties by order of joining", "V S S S", 2, 0, "2V"),
        ("two picks go to two domains", "V@1 S@2 S@2 S@3/9", 3, 0, "2V 4V"),
        ("offline voters do not count for domains", "V@1 v@2 S@1 S@2", 2, 0, "2S 4V"),
        ("stand-bys count for their domains only", "V@2 V@2 V@2 B@1 S@1 S@2", 3, 2, "6B"),
        ("no majority online: nothing", "V v v", 3, 0, ""),
        ("no majority online: nothing", "V v v S S b", 3, 0, ""),
        ("half online is enough", "V V v v S", 3, 0, "3S 4S 5V"),
        ("offline voters before offline stand-bys", "V b v v V", 3, 0, "3S 4S 2S"),
        ("a leader without vote plans nothing", "B V v S", 3, 0, ""),
        ("many domains count", "V@1 V@2 V@3 V@4 V@5 V@6 S@6 S@7", 7, 0, "8V"),
    ] {
        assert_eq!(planned(text, voters, standbys), changes, "{rule}: {text}, targets {voters} {standbys}");
    }
}

#[test]
fn this_node_is_online_whatever_was_heard() {
    assert_eq!(planned("v V V S", 3, 0), "");
    assert_eq!(planned("v S S", 3, 0), "2V 3V");
}

#[test]
fn the_successor_is_the_best_online_node_without_the_role() {
    for (rule, text, change) in [
        ("spare for a voter", "V V S", "3V"),
        ("nobody left", "V V V", ""),
        ("offline", "V V s b", ""),
        ("own domain is free", "V@1 V@2 S@2 S@1", "4V"),
        ("stand-by before spare", "V S B", "3V"),
        ("lower weight", "V B@0/1 S", "3V"),
        ("spare for a stand-by", "B V B S", "4B"),
        ("domains of stand-bys for a stand-by", "B@1 V@3 B@2 S@2 S@3", "5B"),
        ("only voters beside a stand-by", "B V V", ""),
        ("a spare has nothing to give", "S V B S", ""),
    ] {
        let (configuration, online) = cluster(text);
        let cluster = Cluster { configuration: &configuration, own: NodeId(1), online: &online };
        assert_eq!(shown(successor(cluster).as_slice()), change, "{rule}: {text}");
    }
    let (configuration, online) = cluster("V V S");
    let stranger = Cluster { configuration: &configuration, own: NodeId(9), online: &online };
    assert_eq!(successor(stranger), None);
}

fn any_cluster() -> impl Strategy<Value = (Configuration, BTreeMap<NodeId, Description>)> {
    let roles = prop_oneof![Just(Role::Voter), Just(Role::StandBy), Just(Role::Spare)];
    let member = (roles, prop::bool::weighted(0.7), 0..4u64, 0..3u64);
    prop::collection::vec(member, 1..9).prop_map(|members| {
        let (mut servers, mut online) = (Vec::new(), BTreeMap::new());
        for (position, (role, is_online, failure_domain, weight)) in members.into_iter().enumerate() {
            let id = NodeId(position as u64 + 1);
            let role = if position == 0 { Role::Voter } else { role };
            servers.push(Server { id, address: address(id), role });
            if is_online {
                online.insert(id, Description { failure_domain, weight });
            }
        }
        (Configuration::new(servers).unwrap(), online)
    })
}

fn apply(configuration: &Configuration, change: Change) -> Configuration {
    let mut servers = configuration.servers().to_vec();
    servers.iter_mut().find(|server| server.id == change.id).unwrap().role = change.role;
    Configuration::new(servers).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_plan_is_safe_at_every_step_and_final(
        (before, online) in any_cluster(),
        voters in 0..6usize,
        standbys in 0..4usize,
    ) {
        let own = NodeId(1);
        let targets = Targets { voters, standbys };
        let is_online = |id: NodeId| id == own || online.contains_key(&id);
        let changes = plan(Cluster { configuration: &before, own, online: &online }, targets);

        let mut configuration = before.clone();
        for (position, change) in changes.iter().enumerate() {
            prop_assert!(change.id != own);
            prop_assert!(changes[..position].iter().all(|earlier| earlier.id != change.id));
            prop_assert!(configuration.get(change.id).unwrap().role != change.role);
            prop_assert!(change.role == Role::Spare || is_online(change.id));
            configuration = apply(&configuration, *change);
            let up = configuration.voters().filter(|server| is_online(server.id)).count();
            prop_assert!(2 * up > configuration.voters().count(), "{up} online after {change:?}");
        }

        let again = plan(Cluster { configuration: &configuration, own, online: &online }, targets);
        prop_assert_eq!(again, vec![]);
        let acted = !changes.is_empty() || 2 * before.voters().filter(|server| is_online(server.id)).count() >= before.voters().count();
        if acted {
            let up = before.servers().iter().filter(|server| is_online(server.id)).count();
            let expected = voters.clamp(1, up);
            prop_assert_eq!(configuration.voters().count(), expected);
            let standing_by = configuration.servers().iter().filter(|server| server.role == Role::StandBy).count();
            prop_assert_eq!(standing_by, standbys.min(up - expected));
        }
    }

    #[test]
    fn a_plan_cut_short_is_taken_up_again((before, online) in any_cluster(), cut in 0..4usize) {
        let own = NodeId(1);
        let targets = Targets { voters: 3, standbys: 2 };
        let at = |configuration: &Configuration| plan(Cluster { configuration, own, online: &online }, targets);
        let mut configuration = before;
        let mut rounds = 0;
        loop {
            let changes = at(&configuration);
            if changes.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 20, "{changes:?}");
            for change in changes.into_iter().take(cut + 1) {
                configuration = apply(&configuration, change);
            }
        }
    }
}
