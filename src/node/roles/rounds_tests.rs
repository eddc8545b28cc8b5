//! Role management against scripted nodes, on a paused clock.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::super::testing::{OWN, TestCluster, Works};
use super::*;
use crate::types::Role;

struct Managed {
    cluster: Arc<TestCluster>,
    live: Arc<LiveSettings>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Role management of node 1 in this cluster, enabled.
fn manage(text: &str, voters: i32, standbys: i32) -> Managed {
    let (cluster, live) = (TestCluster::new(text), Arc::new(LiveSettings::default()));
    live.role_management.store(true, Ordering::Relaxed);
    live.target_voters.store(voters, Ordering::Relaxed);
    live.target_standbys.store(standbys, Ordering::Relaxed);
    let stop = CancellationToken::new();
    let dial = Arc::clone(&cluster.nodes) as Arc<dyn Dial>;
    let management = RoleManagement::new(OWN, cluster.clone(), dial, Arc::clone(&live));
    let task = tokio::spawn(management.run(stop.clone()));
    Managed { cluster, live, stop, task }
}

async fn after(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}

// conformance: c-api 70
// conformance: state-machine 25
#[tokio::test(start_paused = true)]
async fn five_nodes_have_their_roles_after_the_first_second() {
    let managed = manage("V S S S S", 3, 3);

    after(999).await;
    assert_eq!(managed.cluster.roles(), "VSSSS");
    assert!(managed.cluster.nodes.dialled().is_empty());
    after(2).await;
    assert_eq!(managed.cluster.roles(), "VVVBB");
    assert_eq!(managed.cluster.calls(), "2V, 3V, 4B, 5B");
    assert_eq!(managed.cluster.nodes.dialled(), ["a:1", "a:2", "a:3", "a:4", "a:5"]);

    after(10_000).await;
    assert_eq!(managed.cluster.calls(), "");
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_goes_is_replaced_and_returns_as_spare() {
    let managed = manage("V V V S", 3, 0);
    after(1_500).await;
    assert_eq!(managed.cluster.calls(), "");

    managed.cluster.take_down(2);
    after(1_000).await;
    assert_eq!(managed.cluster.calls(), "2S, 4V");
    managed.cluster.bring_up(NodeId(2), Description::default());
    after(3_000).await;
    assert_eq!(managed.cluster.calls(), "");
    assert_eq!(managed.cluster.roles(), "VSVV");
}

#[tokio::test(start_paused = true)]
async fn settings_are_read_each_time() {
    let managed = manage("V S S", 1, 0);
    after(1_500).await;
    managed.live.target_voters.store(3, Ordering::Relaxed);
    after(1_000).await;
    assert_eq!(managed.cluster.calls(), "2V, 3V");

    managed.live.role_management.store(false, Ordering::Relaxed);
    managed.live.target_voters.store(1, Ordering::Relaxed);
    after(5_000).await;
    assert_eq!(managed.cluster.calls(), "");
    managed.live.role_management.store(true, Ordering::Relaxed);
    after(1_000).await;
    assert_eq!(managed.cluster.calls(), "3S, 2S");
}

#[tokio::test(start_paused = true)]
async fn only_a_serving_leader_looks() {
    let managed = manage("V V S", 3, 0);
    managed.cluster.lead(Some(2));

    after(5_000).await;
    assert!(managed.cluster.nodes.dialled().is_empty());
    managed.cluster.lead(Some(1));
    after(1_000).await;
    assert_eq!(managed.cluster.calls(), "3V");
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_asks_nobody() {
    let managed = manage("V", 3, 3);

    after(60_000).await;

    assert!(managed.cluster.nodes.dialled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_ends_the_round_and_is_tried_again() {
    let managed = manage("V S S", 3, 0);
    managed.cluster.set_assigning(Works::No);

    after(2_500).await;
    assert_eq!(managed.cluster.calls(), "2V refused, 2V refused");
    managed.cluster.set_assigning(Works::Yes);
    after(1_000).await;
    assert_eq!(managed.cluster.calls(), "2V, 3V");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_never_ends_is_given_up() {
    let managed = manage("V S S", 3, 0);
    managed.cluster.set_assigning(Works::Never);

    after(1_500).await;
    assert_eq!(managed.cluster.calls(), "2V hangs");
    advance(config::ROLES_CHANGE_TIMEOUT).await;
    after(2_000).await;
    assert!(managed.cluster.calls().starts_with("2V hangs"));
}

#[tokio::test(start_paused = true)]
async fn a_round_that_takes_long_neither_overlaps_nor_is_made_up_for() {
    let managed = manage("V V V S", 3, 0);
    managed.cluster.nodes.answer("a:4", |_| crate::client::testing::Reply::Silence);

    after(1_000).await;
    after(5_500).await;

    // One round from second 1 to 6, the next a second later at the earliest.
    assert_eq!(managed.cluster.nodes.dialled().len(), 4);
    after(1_000).await;
    assert_eq!(managed.cluster.nodes.dialled().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn leadership_lost_during_the_poll_means_no_change() {
    let managed = manage("V S S", 3, 0);
    managed.cluster.nodes.answer("a:3", |_| crate::client::testing::Reply::Silence);

    after(2_000).await;
    managed.cluster.lead(Some(2));
    after(10_000).await;

    assert_eq!(managed.cluster.calls(), "");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_somebody_else_has_changed_meanwhile_is_left_alone() {
    let managed = manage("V V S S", 3, 0);
    managed.cluster.nodes.answer("a:4", |_| crate::client::testing::Reply::Silence);
    after(2_000).await;
    managed.cluster.change(3, Role::StandBy);
    assert_eq!(managed.cluster.calls(), "3B");

    after(4_500).await;
    assert_eq!(managed.cluster.calls(), "");
    after(7_000).await;
    assert_eq!(managed.cluster.calls(), "3V");
}

#[tokio::test(start_paused = true)]
async fn a_closed_way_to_itself_does_not_matter() {
    let managed = manage("v@1 S@1 S@2", 2, 0);
    managed.live.failure_domain.store(1, Ordering::Relaxed);

    after(1_500).await;

    assert_eq!(managed.cluster.calls(), "3V");
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_when_told_even_amid_a_change() {
    let managed = manage("V S S", 3, 0);
    managed.cluster.set_assigning(Works::Never);
    after(1_500).await;
    let start = Instant::now();

    managed.stop.cancel();
    managed.task.await.unwrap();

    assert_eq!(start.elapsed(), Duration::ZERO);
}
