//! More of one node driven by hand: addresses, restarts, snapshots that meet each other, strangers. spec: raft-wire 1, 5, 8.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::peers::message::{Message, TimeoutNow};
use crate::raft::testing::bench::{Bench, append, change, follower, node, number, send, servers, snapshot};
use crate::types::{LogIndex, Role, Term};

// conformance: raft-wire 5, 7
#[tokio::test(start_paused = true)]
async fn answers_follow_a_peer_to_another_address() {
    let mut node = follower().await;
    for address in ["one", "two", "one"] {
        let mut leader = node.connect_from(2, address);
        append(&mut leader, 2, (1, 1), 0, &[]).await;

        assert_eq!(node.answer().await.0, address);
    }
}

// conformance: raft-wire 17
#[tokio::test(start_paused = true)]
async fn a_configuration_that_was_not_committed_before_a_restart_is_rolled_back_after_it() {
    let (three, five) = (servers(&[Role::Voter; 3]), servers(&[Role::Voter; 5]));
    let mut node = node(vec![change(1, &three), number(1, 1), change(2, &five), number(2, 2)], 2).await;
    assert_eq!(*node.engine.configuration().configuration, five);

    append(&mut node.connect(3), 3, (2, 1), 2, &[number(3, 3)]).await;

    assert_eq!(node.append_answer().await, (3, 0, 3));
    assert_eq!(node.terms(), [1, 1, 3]);
    assert_eq!(*node.engine.configuration().configuration, three);
    assert_eq!(node.engine.configuration().index, LogIndex(1));
}

/// Content of three numbers.
fn content() -> Vec<u8> {
    [7u64, 8, 9].iter().flat_map(|value| value.to_le_bytes()).collect()
}

async fn installed(node: &mut Bench, id: u64) {
    let mut leader = node.connect(id);
    send(&mut leader, &snapshot(2, 50, 2, &content()), &content()).await;
    assert_eq!(node.append_answer().await, (2, 0, 50));
    assert_eq!(node.numbers(), [7, 8, 9]);
}

// conformance: raft-wire 18 (better: upstream does not answer)
#[tokio::test(start_paused = true)]
async fn a_snapshot_beside_another_is_refused_by_its_index_and_taken_later() {
    let mut node = follower().await;
    let mut slow = node.connect(2);
    send(&mut slow, &snapshot(2, 40, 2, &content()), &content()[..8]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut second = node.connect(2);

    send(&mut second, &snapshot(2, 50, 2, &content()), &content()).await;
    assert_eq!(node.append_answer().await, (2, 50, 1));
    slow.write_all(&content()[8..]).await.unwrap();
    assert_eq!(node.append_answer().await, (2, 0, 40));
    installed(&mut node, 2).await;
}

// conformance: raft-wire 23
#[tokio::test(start_paused = true)]
async fn a_stranger_may_send_a_snapshot_but_not_hand_over_leadership() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 0, 1));
    let now = TimeoutNow { term: Term(2), last_index: LogIndex(1), last_term: Term(1) };
    send(&mut node.connect(77), &Message::TimeoutNow(now), &[]).await;
    assert!(node.silent().await, "only the leader hands leadership over");

    let mut other = follower().await;
    installed(&mut other, 77).await;
}
