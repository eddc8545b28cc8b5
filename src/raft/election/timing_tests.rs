//! When a node stands and when it does not, on a clock that moves by itself.

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};

use crate::peers::message::{Message, RequestVote, RequestVoteResult};
use crate::raft::testing::bench::{Bench, append, change, elected, follower, node, send, servers, vote};
use crate::types::{NodeId, Role, Term};

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The next pre-vote that the node asks for, who is asked, and when that is.
async fn pre_vote(node: &mut Bench) -> (String, RequestVote, Instant) {
    loop {
        if let (to, Message::RequestVote(request)) = node.answer().await {
            assert!(request.is_pre_vote, "{request:?}");
            return (to, request, Instant::now());
        }
    }
}

async fn refuse(peer: &mut DuplexStream, request: RequestVote) {
    let answer = RequestVoteResult { term: request.term, granted: false, is_pre_vote: Some(true) };
    send(peer, &Message::RequestVoteResult(answer), &[]).await;
}

/// A follower that has just heard of its leader, node 2.
async fn follower_of_2() -> (Bench, DuplexStream) {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    node.append_answer().await;
    (node, leader)
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_asked_first_and_replaced_if_it_does_not_answer() {
    let (mut node, _leader) = follower_of_2().await;
    let began = Instant::now();

    let (asked, _, at) = pre_vote(&mut node).await;
    assert_eq!((asked.as_str(), (at - began).as_millis()), ("2", 900), "three beats of 300 ms");
    let (asked, _, at) = pre_vote(&mut node).await;
    let after = (at - began).as_millis();
    assert!((1000..=1010).contains(&after), "{asked} {after}");
    assert_eq!(node.engine.status().borrow().leader, None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_answers_keeps_its_place_and_is_asked_later_the_next_time() {
    let (mut node, mut leader) = follower_of_2().await;
    for silence in [900, 1800] {
        let began = Instant::now();
        let (asked, request, at) = pre_vote(&mut node).await;
        // The silence that has passed was longer by the answer's time.
        let after = (at - began).as_millis();
        assert!(asked == "2" && (silence..=silence + 20).contains(&after), "{asked} {after}");
        refuse(&mut leader, request).await;
        sleep(milliseconds(10)).await;
        assert_eq!(node.engine.status().borrow().leader.as_ref().unwrap().0, NodeId(2));
        append(&mut leader, 2, (1, 1), 0, &[]).await;
        node.append_answer().await;
    }
    assert_eq!(node.engine.current_term(), Term(2));
}

// One of upstream's that led until it started anew refuses as leaders do: its log is the longest.
#[tokio::test(start_paused = true)]
async fn who_only_answers_as_a_leader_is_replaced_all_the_same() {
    let (mut node, mut leader) = follower_of_2().await;
    let began = Instant::now();
    let mut questions = 0;
    loop {
        let (asked, request, _) = pre_vote(&mut node).await;
        if request.term > Term(2) {
            break;
        }
        assert_eq!(asked, "2");
        questions += 1;
        refuse(&mut leader, request).await;
    }
    let after = began.elapsed().as_millis();
    assert!((6000..=9100).contains(&after) && questions <= 4, "{after} ms, {questions} questions");
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_a_vote_asks_the_leader_first() {
    let (mut node, mut leader) = follower_of_2().await;
    let mut candidate = node.connect(3);
    sleep(milliseconds(890)).await;
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, false, true), "it was heard less than three beats ago");

    sleep(milliseconds(15)).await;
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    let (asked, request, _) = pre_vote(&mut node).await;
    assert_eq!(asked, "2");
    refuse(&mut leader, request).await;
    assert_eq!(node.vote_answer().await, (3, false, true), "it answers");

    let (asked, _, _) = pre_vote(&mut node).await;
    assert_eq!(asked, "2");
    send(&mut candidate, &vote(3, 3, (2, 1), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, true, true), "it does not");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_no_evidence() {
    let (mut node, leader) = follower_of_2().await;
    let began = Instant::now();
    sleep(milliseconds(300)).await;
    drop(leader);

    let (asked, request, at) = pre_vote(&mut node).await;
    assert_eq!((asked.as_str(), (at - began).as_millis()), ("2", 900));
    refuse(&mut node.connect(2), request).await;
    sleep(milliseconds(10)).await;
    assert_eq!(node.engine.status().borrow().leader.as_ref().unwrap().0, NodeId(2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_heard_is_not_asked() {
    let (mut node, mut leader) = follower_of_2().await;
    for _ in 0..100 {
        sleep(milliseconds(600)).await;
        append(&mut leader, 2, (1, 1), 0, &[]).await;
        node.append_answer().await;
    }
    assert!(node.sent.try_recv().is_err());
    // Such gaps are usual here.
    let began = Instant::now();
    assert_eq!((pre_vote(&mut node).await.2 - began).as_millis(), 1200);
}

#[tokio::test(start_paused = true)]
async fn who_starts_leaves_time_for_a_leader_to_be_heard() {
    let began = Instant::now();
    let mut node = follower().await;
    let after = (pre_vote(&mut node).await.2 - began).as_millis();
    assert!((900..=1800).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn who_has_promised_a_vote_leaves_the_election_to_the_other() {
    let mut node = follower().await;
    let mut candidate = node.connect(3);
    let mut waited = 0;
    for _ in 0..30 {
        send(&mut candidate, &vote(2, 3, (2, 1), false, true), &[]).await;
        assert_eq!(node.vote_answer().await, (2, true, true));
        sleep(milliseconds(100)).await;
        waited += 100;
    }
    assert_eq!(waited, 3000);
    assert!(node.sent.try_recv().is_err(), "it does not stand meanwhile");
    assert!(matches!(node.answer().await, (_, Message::RequestVote(_))), "it stands afterwards");
}

#[tokio::test(start_paused = true)]
async fn a_leader_sends_heartbeats_by_the_clock() {
    let node = node(vec![change(1, &servers(&[Role::Voter; 2]))], 1).await;
    let (mut node, _follower) = elected(node).await;
    let began = Instant::now();
    let mut heartbeats = Vec::new();

    // It gives up after an election timeout of 3 s without an answer.
    while let Ok((_, message)) =
        timeout(milliseconds(2900).saturating_sub(began.elapsed()), node.answer()).await
    {
        if matches!(message, Message::AppendEntries(append) if append.entries.is_empty()) {
            heartbeats.push(began.elapsed().as_millis() / 100);
        }
    }

    heartbeats.dedup();
    let expected: Vec<u128> = (1..=9).map(|interval| interval * 3).collect();
    assert!(expected.iter().all(|at| heartbeats.contains(at)), "{heartbeats:?}");
}
