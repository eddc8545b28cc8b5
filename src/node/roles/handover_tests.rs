//! Handover against scripted nodes, on a paused clock.

use std::time::Duration;

use tokio::time::Instant;

use super::super::testing::{OWN, TestCluster, Works};
use super::*;

/// The longest that a handover takes: its waits one after the other.
const LONGEST: Duration = Duration::from_secs(10 + 5 + 5 + 5 + 20 + 20);

async fn hand_over(cluster: &Arc<TestCluster>) -> (Result<(), HandoverError>, Duration) {
    let roles = CancellationToken::new();
    let dial = Arc::clone(&cluster.nodes) as Arc<dyn Dial>;
    let handover = Handover { own: OWN, membership: cluster.clone(), dial, roles: roles.clone() };
    let start = Instant::now();
    let result = handover.run().await;
    assert!(roles.is_cancelled());
    assert!(start.elapsed() <= LONGEST);
    (result, start.elapsed())
}

// conformance: c-api 69
#[tokio::test(start_paused = true)]
async fn a_single_node_is_refused_at_once() {
    let cluster = TestCluster::new("V");

    assert_eq!(hand_over(&cluster).await, (Err(HandoverError::NoOtherVoter), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_only_voter_beside_a_stand_by_is_refused_at_once() {
    let cluster = TestCluster::new("V B");

    assert_eq!(hand_over(&cluster).await, (Err(HandoverError::NoOtherVoter), Duration::ZERO));
    assert_eq!(cluster.calls(), "");
}

// conformance: c-api 69
#[tokio::test(start_paused = true)]
async fn the_leader_of_three_voters_moves_leadership_and_keeps_its_vote() {
    let cluster = TestCluster::new("V V V");
    cluster.inherit(3);

    assert_eq!(hand_over(&cluster).await, (Err(HandoverError::NoSuccessor), Duration::ZERO));
    assert_eq!((cluster.leader_id(), cluster.roles().as_str()), (Some(3), "VVV"));
}

// conformance: c-api 69
#[tokio::test(start_paused = true)]
async fn the_leader_of_two_voters_and_a_spare_swaps_roles_with_the_spare() {
    let cluster = TestCluster::new("V V S");
    cluster.inherit(2);

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!((cluster.leader_id(), cluster.roles().as_str()), (Some(2), "SVV"));
    assert_eq!(cluster.calls(), "transfer None, 3V, 1S");
}

#[tokio::test(start_paused = true)]
async fn a_follower_hands_over_its_vote_without_a_transfer() {
    let cluster = TestCluster::new("V@1 V@2 S@2 S@1");
    cluster.lead(Some(2));

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.calls(), "4V, 1S");
}

#[tokio::test(start_paused = true)]
async fn a_stand_by_hands_over_its_place() {
    let cluster = TestCluster::new("B V S");
    cluster.lead(Some(2));

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.calls(), "3B, 1S");
}

#[tokio::test(start_paused = true)]
async fn a_spare_has_nothing_to_hand_over() {
    let cluster = TestCluster::new("S V S");
    cluster.lead(Some(2));

    assert_eq!(hand_over(&cluster).await, (Ok(()), Duration::ZERO));
    assert_eq!(cluster.calls(), "");
}

// conformance: c-api 68 (better: upstream never answers)
#[tokio::test(start_paused = true)]
async fn a_node_without_configuration_is_refused_at_once() {
    let cluster = TestCluster::new("");
    cluster.lead(None);

    assert_eq!(hand_over(&cluster).await, (Err(HandoverError::NoMember(OWN)), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn offline_nodes_get_no_vote_and_cost_seconds() {
    let cluster = TestCluster::new("V V s b");
    cluster.inherit(2);
    cluster.nodes.hang("a:3");

    let (result, took) = hand_over(&cluster).await;

    assert_eq!((result, took), (Err(HandoverError::NoSuccessor), config::HANDOVER_DIAL_TIMEOUT));
    assert_eq!(cluster.roles(), "VVSB");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_fails_or_hangs_ends_the_handover() {
    for (works, longest) in [(Works::No, Duration::ZERO), (Works::Never, config::HANDOVER_TRANSFER_TIMEOUT)] {
        let cluster = TestCluster::new("V V S");
        cluster.set_transferring(works);

        let (result, took) = hand_over(&cluster).await;

        assert!(matches!(result, Err(HandoverError::Transfer(_))), "{result:?}");
        assert_eq!((took, cluster.roles().as_str()), (longest, "VVS"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_reports_failure_while_leadership_moves_is_one() {
    let cluster = TestCluster::new("V V S");
    cluster.set_transferring(Works::Never);
    let moving = Arc::clone(&cluster);
    tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        moving.lead(Some(2));
    });

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.roles(), "SVV");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_it_gives_up() {
    let cluster = TestCluster::new("V V S");
    cluster.inherit(9);
    cluster.lead(None);

    let (result, took) = hand_over(&cluster).await;

    assert_eq!((result, took), (Err(HandoverError::NoLeader), config::HANDOVER_LEADER_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_appears_late_is_waited_for() {
    let cluster = TestCluster::new("V V S");
    cluster.lead(None);
    let electing = Arc::clone(&cluster);
    tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        electing.lead(Some(2));
    });

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.roles(), "SVV");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_that_is_not_ready_is_asked_again() {
    let cluster = TestCluster::new("V V S");
    cluster.inherit(2);
    cluster.set_failures(&[10506, 5, 10250]);

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.calls(), "transfer None, refused 10250, refused 5, refused 10506, 3V, 1S");
}

// spec: c-api 3.9 step 5: failures of the two requests are not reported
#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_reported_and_the_own_vote_goes_all_the_same() {
    let cluster = TestCluster::new("V V S");
    cluster.inherit(2);
    cluster.set_failures(&[1]);

    assert_eq!(hand_over(&cluster).await.0, Ok(()));
    assert_eq!(cluster.calls(), "transfer None, refused 1, 1S");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_refuses_connections_or_is_silent_is_given_up() {
    for silent in [false, true] {
        let cluster = TestCluster::new("V V S");
        cluster.inherit(2);
        cluster.take_down(2);
        if silent {
            cluster.nodes.answer("a:2", |_| crate::client::testing::Reply::Silence);
        }

        let (result, took) = hand_over(&cluster).await;

        assert_eq!(result, Ok(()));
        assert!(took >= 2 * config::HANDOVER_CHANGE_TIMEOUT);
        assert_eq!(cluster.roles(), "VVS");
    }
}
