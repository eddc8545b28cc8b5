//! A server that looks for its cluster, against scripted nodes, on a paused clock.

use super::super::testing::{OWN, OWN_ADDRESS, TestNodes, member};
use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn known(addresses: &[&str]) -> Vec<Vec<u8>> {
    addresses.iter().map(|address| address.as_bytes().to_vec()).collect()
}

async fn attach(nodes: &TestNodes, asked: &[&str]) -> Result<Vec<Server>, String> {
    nodes.cluster(&[]).attach(&known(asked), Some(LIMIT)).await.map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_server_joins_over_any_member_and_votes_while_fewer_than_three_do() {
    for (addresses, role, changes) in [
        (&["a"][..], Role::Voter, "a:ADD a:Voter"),
        (&["a", "b"], Role::Voter, "a:ADD a:Voter"),
        (&["a", "b", "c"], Role::Spare, "a:ADD"),
    ] {
        let nodes = TestNodes::new(addresses);

        let members = attach(&nodes, &["nobody", addresses.last().unwrap()]).await.unwrap();

        assert_eq!(members.last(), Some(&member(OWN_ADDRESS, OWN.0, role)));
        assert_eq!(members, nodes.members());
        assert_eq!(nodes.changes(), changes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_is_not_added_again_and_a_voter_changes_nothing() {
    for (role, changes) in [(Role::Voter, ""), (Role::Spare, "a:Voter"), (Role::StandBy, "a:Voter")] {
        let nodes = TestNodes::new(&["a"]);
        nodes.set_members(vec![member("a", 1, Role::Voter), member(OWN_ADDRESS, OWN.0, role)]);

        attach(&nodes, &["a"]).await.unwrap();

        assert_eq!(nodes.changes(), changes);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_waited_for() {
    let nodes = TestNodes::new(&["a", "b"]);
    nodes.lead(None);
    nodes.nodes.refuse("b");
    let start = Instant::now();
    let waits = async {
        sleep_until(start + Duration::from_secs(7)).await;
        nodes.lead(Some("b"));
        sleep_until(start + Duration::from_secs(11)).await;
        nodes.refuse(&[5, 10250, 10506]);
        nodes.online("b");
    };

    let (members, ()) = tokio::join!(attach(&nodes, &["a"]), waits);

    assert_eq!(members.unwrap(), nodes.members());
    assert_eq!(nodes.changes(), "b:ADD=5 b:ADD=10250 b:ADD=10506 b:ADD b:Voter");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_carried_out_without_an_answer_is_not_made_twice() {
    let nodes = TestNodes::new(&["a"]);
    nodes.refuse(&[0]);

    attach(&nodes, &["a"]).await.unwrap();

    assert_eq!(nodes.changes(), "a:ADD a:Voter");
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_is_refused_does_not_keep_a_server_out() {
    let nodes = TestNodes::new(&["a"]);
    let cluster = nodes.cluster(&[]);
    let members = vec![member("a", 1, Role::Voter), member(OWN_ADDRESS, OWN.0, Role::Spare)];
    nodes.set_members(members.clone());
    nodes.refuse(&[1]);

    assert_eq!(cluster.attach(&known(&["a"]), Some(LIMIT)).await.unwrap(), members);
    assert_eq!(nodes.changes(), "a:Voter=1");
}

#[tokio::test(start_paused = true)]
async fn the_wait_has_an_end_and_says_what_was_wrong() {
    let nodes = TestNodes::new(&["a", "b", "c"]);
    nodes.nodes.refuse("b");
    nodes.nodes.hang("c");
    nodes.lead(None);
    let start = Instant::now();

    let text = attach(&nodes, &["a", "b", "c", "d"]).await.unwrap_err();

    assert_eq!(
        text,
        "the cluster did not take the server in within 30s: no leader among 4 asked: a knows no leader; \
         connect to b: no connection: connection refused; connect to d: no connection: connection refused"
    );
    assert!(start.elapsed() <= LIMIT);
    assert!(start.elapsed() + config::SERVER_RETRY_MAX >= LIMIT, "{:?}", start.elapsed());
    // A connect function that blocks is asked once.
    assert_eq!(nodes.nodes.dialled().iter().filter(|address| *address == "c").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hangs_does_not_delay_one_that_answers() {
    let nodes = TestNodes::new(&["a", "b"]);
    nodes.nodes.hang("b");
    let start = Instant::now();

    attach(&nodes, &["b", "a"]).await.unwrap();

    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_address_of_another_member_ends_the_wait_at_once() {
    let nodes = TestNodes::new(&["a", OWN_ADDRESS]);
    let start = Instant::now();

    let text = attach(&nodes, &["a"]).await.unwrap_err();

    assert_eq!(text, "address own belongs to member 2: remove that one before server 9 joins");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(nodes.changes(), "");
}

#[tokio::test(start_paused = true)]
async fn the_members_that_the_own_log_names_are_asked_too() {
    let nodes = TestNodes::new(&["a", "b"]);
    let log = [member("a", 1, Role::Voter), member(OWN_ADDRESS, OWN.0, Role::Voter)];
    nodes.set_members(log.to_vec());
    let cluster = nodes.cluster(&log);

    assert!(cluster.is_member());
    assert!(!nodes.cluster(&log[..1]).is_member());
    assert_eq!(cluster.attach(&[], Some(LIMIT)).await.unwrap(), log);
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_takes_too_long_does_not_keep_a_server_out() {
    let nodes = TestNodes::new(&["a"]);
    nodes.set_members(vec![member("a", 1, Role::Voter), member(OWN_ADDRESS, OWN.0, Role::Spare)]);
    nodes.refuse(&[0]);
    let start = Instant::now();

    let members = nodes.cluster(&[]).attach(&known(&["a"]), Some(Duration::from_secs(1))).await.unwrap();

    assert_eq!(members.last().unwrap().role, Role::Spare);
    assert_eq!(start.elapsed(), config::SERVER_PROMOTE_TIMEOUT);
}
