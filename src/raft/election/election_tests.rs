//! Votes, elections and the end of leadership, through a node's raft connections. spec: raft-wire 6

use std::time::Duration;

use crate::peers::message::{
    AppendEntries, AppendEntriesResult, Message, RequestVote, RequestVoteResult, TimeoutNow,
};
use crate::peers::reader::Received;
use crate::raft::testing::bench::*;
use crate::types::{Entry, LogIndex, Role, Term};

// conformance: raft-wire 19, 23
#[tokio::test(start_paused = true)]
async fn votes_are_refused_while_a_leader_is_heard() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    node.append_answer().await;
    let mut candidate = node.connect(9);

    send(&mut candidate, &vote(7, 9, (5, 5), false, false), &[]).await;
    assert_eq!(node.vote_answer().await, (2, false, false));
    send(&mut candidate, &vote(7, 9, (5, 5), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (7, false, true));
    assert_eq!(node.engine.current_term(), Term(2));
    send(&mut candidate, &vote(7, 9, (5, 5), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (2, false, false), "nobody hands over to a stranger");
    let mut candidate = node.connect(3);
    send(&mut candidate, &vote(7, 3, (5, 5), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (7, true, false));
    assert_eq!(node.disk.lock().votes.last(), Some(&(7, 3)), "the vote is on the disk");
    send(&mut candidate, &vote(7, 2, (5, 5), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (7, false, false), "one vote in a term");
}

// conformance: raft-wire 20 (better: a candidate with an old term learns the higher one)
#[tokio::test(start_paused = true)]
async fn a_pre_vote_promises_nothing() {
    let mut node = node(vec![change(1, &servers(&[Role::Voter; 3])), number(2, 10)], 3).await;
    let mut candidate = node.connect(2);
    let votes = node.disk.lock().votes.clone();

    send(&mut candidate, &vote(4, 2, (2, 2), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (4, true, true));
    send(&mut candidate, &vote(4, 2, (1, 1), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (4, false, true), "a shorter log");
    send(&mut candidate, &vote(2, 2, (9, 2), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, false, true), "a lower term learns the higher one");
    assert_eq!(node.disk.lock().votes, votes);
    assert_eq!(node.engine.current_term(), Term(3));
}

// conformance: raft-wire 21, 22
#[tokio::test(start_paused = true)]
async fn leadership_is_taken_over_from_the_leader_alone_and_with_its_whole_log() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[number(2, 10)]).await;
    node.append_answer().await;
    let now = |last: (u64, u64)| {
        Message::TimeoutNow(TimeoutNow {
            term: Term(2),
            last_index: LogIndex(last.0),
            last_term: Term(last.1),
        })
    };

    send(&mut leader, &now((3, 2)), &[]).await;
    send(&mut leader, &now((2, 1)), &[]).await;
    send(&mut node.connect(3), &now((2, 2)), &[]).await;
    assert!(node.silent().await);
    send(&mut leader, &now((2, 2)), &[]).await;

    let (_, Message::RequestVote(request)) = node.answer().await else { panic!("no vote is asked for") };
    assert!(request.disrupts_leader && !request.is_pre_vote);
    assert_eq!((request.term.0, request.last_index.0, request.last_term.0), (3, 2, 2));
}

// conformance: raft-wire 21, 25
#[tokio::test(start_paused = true)]
async fn an_election_is_a_pre_vote_then_a_vote_then_a_barrier() {
    let mut node = follower().await;
    let mut voter = node.connect(2);
    let granted = |term, is_pre_vote| {
        Message::RequestVoteResult(RequestVoteResult {
            term: Term(term),
            granted: true,
            is_pre_vote: Some(is_pre_vote),
        })
    };
    let mut seen = Vec::new();
    let barrier = loop {
        match node.answer().await {
            (to, Message::RequestVote(request)) if to == "2" => {
                seen.push((request.term.0, request.is_pre_vote, request.disrupts_leader));
                send(&mut voter, &granted(request.term.0, request.is_pre_vote), &[]).await;
            }
            (to, Message::AppendEntries(append)) if to == "2" => break append,
            _ => {}
        }
    };
    assert_eq!(seen, [(2, true, false), (2, false, false)]);
    assert_eq!((barrier.term, barrier.commit), (Term(2), LogIndex(0)));
    assert!(barrier.previous_index.0 >= 1 << 63, "the follower is asked before anything is assumed of it");
    assert_eq!(node.terms(), [1, 2], "a barrier of the new term");
}

// Its vote was on the disk when it had given the election up, and so it stood in it for ever.
#[tokio::test(start_paused = true)]
async fn who_has_stored_its_vote_late_and_is_not_elected_stands_again() {
    let mut node = follower().await;
    let mut voter = node.connect(2);
    node.disk.lock().vote_takes = Duration::from_secs(5);
    let mut has_voted = false;
    let stands_again = async {
        loop {
            let (to, Message::RequestVote(request)) = node.answer().await else { continue };
            if to != "2" {
                continue;
            }
            if request.is_pre_vote && has_voted {
                return;
            }
            has_voted |= !request.is_pre_vote;
            if has_voted {
                node.disk.lock().vote_takes = Duration::ZERO;
                continue;
            }
            let granted = RequestVoteResult { term: request.term, granted: true, is_pre_vote: Some(true) };
            send(&mut voter, &Message::RequestVoteResult(granted), &[]).await;
        }
    };

    tokio::time::timeout(Duration::from_secs(60), stands_again).await.unwrap();
}

// conformance: raft-wire 26
#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_answers_gives_up() {
    let (mut node, mut follower) = leader().await;
    let data = play(&mut node, &mut follower, 0).await;
    answer(&mut follower, 2, 0, data.previous_index.0 + data.entries.len() as u64).await;
    let mut status = node.engine.status();
    status.wait_for(|now| now.serving.is_some()).await.unwrap();
    let began = tokio::time::Instant::now();

    status.wait_for(|now| now.serving.is_none()).await.unwrap();

    let after = began.elapsed();
    assert!(after >= Duration::from_secs(3) && after <= Duration::from_secs(5), "{after:?}");
    assert!(node.engine.current_term() > Term(2), "no follower is kept waiting by the old term");
}

// It counted as a leader without a majority until somebody had answered it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_just_elected_keeps_its_place() {
    let (mut node, _follower) = elected(node(vec![change(1, &servers(&[Role::Voter; 3]))], 1).await).await;
    let mut candidate = node.connect(3);
    let mut status = node.engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();

    send(&mut candidate, &vote(3, 3, (9, 2), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, false, true));
    tokio::time::sleep(Duration::from_secs(2)).await;
    send(&mut candidate, &vote(3, 3, (9, 2), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, false, true));
}

// fast failover: a leader whose connections end and that does not answer is replaced at once
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_is_replaced_without_waiting_for_the_timer() {
    let entries = vec![change(1, &servers(&[Role::Voter; 3]))];
    let mut node = node_without(b"2", entries, 1).await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    let mut status = node.engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();
    let mut candidate = node.connect(3);
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Some((_, Received { message: Message::RequestVoteResult(result), .. })) = node.sent.try_recv().ok()
    else {
        panic!()
    };
    assert!(!result.granted, "a live leader is not unseated");

    drop(leader);
    let began = tokio::time::Instant::now();
    let asked = loop {
        if let (_, Received { message: Message::RequestVote(request), .. }) = node.sent.recv().await.unwrap()
        {
            break request;
        }
    };
    assert!(asked.is_pre_vote && began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (3, false, true), "it asks itself, and has the lower id");
    send(&mut candidate, &vote(3, 3, (2, 1), false, true), &[]).await;
    assert_eq!(
        node.vote_answer().await,
        (3, true, true),
        "who sees that the leader is gone votes for another"
    );

    // One of upstream's that last heard of the leader a moment ago refuses for up to two of its timeouts.
    let mut asked_late = 0;
    while began.elapsed() < Duration::from_millis(5800) {
        let (_, received) = node.sent.recv().await.unwrap();
        if let Message::RequestVote(RequestVote { is_pre_vote: true, .. }) = received.message {
            asked_late += u32::from(began.elapsed() > Duration::from_millis(3500));
            let refused = RequestVoteResult { term: Term(1), granted: false, is_pre_vote: Some(true) };
            send(&mut candidate, &Message::RequestVoteResult(refused), &[]).await;
        }
    }
    assert!(asked_late >= 5, "it asked {asked_late} times after one timeout");
}

// conformance: raft-wire 19 (better: it votes, since its promotion may be in the log of the candidate alone)
// found by the simulation: the promotion of a voter was in the logs of all but itself, and one of those was dead
#[tokio::test(start_paused = true)]
async fn a_node_votes_though_its_own_log_does_not_say_that_it_may() {
    let mut node = node(vec![change(1, &servers(&[Role::StandBy, Role::Voter, Role::Voter]))], 1).await;
    let mut candidate = node.connect(2);

    send(&mut candidate, &vote(2, 2, (2, 1), false, true), &[]).await;
    assert_eq!(node.vote_answer().await, (2, true, true));
    send(&mut candidate, &vote(2, 2, (2, 1), false, false), &[]).await;
    assert_eq!(node.vote_answer().await, (2, true, false));
}

/// One of each message, in this term.
fn all_kinds(term: u64) -> Vec<Message> {
    let (number, term) = (term, Term(term));
    vec![
        Message::AppendEntries(AppendEntries {
            term,
            previous_index: LogIndex(1),
            previous_term: Term(1),
            commit: LogIndex(0),
            entries: Vec::new(),
        }),
        Message::AppendEntriesResult(AppendEntriesResult {
            term,
            rejected: LogIndex(0),
            last_index: LogIndex(1),
        }),
        vote(number, 3, (1, 1), true, false),
        vote(number, 3, (1, 1), false, true),
        Message::RequestVoteResult(RequestVoteResult { term, granted: false, is_pre_vote: Some(true) }),
        snapshot(number, 5, 1, b""),
        Message::TimeoutNow(TimeoutNow { term, last_index: LogIndex(1), last_term: Term(1) }),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_term_that_no_election_leads_to_ends_the_connection_and_is_not_taken_up() {
    let mut node = follower().await;
    for term in [u64::MAX, 1 << 62, (1 << 32) + 2] {
        for message in all_kinds(term) {
            let mut member = node.connect(2);
            send(&mut member, &message, &[]).await;
            assert!(closed(&mut member).await, "{message:?}");
        }
    }
    assert!(node.sent.try_recv().is_err(), "none is answered");
    assert_eq!((node.engine.current_term(), node.disk.lock().votes.len()), (Term(1), 0));

    append(&mut node.connect(2), (1 << 32) + 1, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, ((1 << 32) + 1, 0, 1));
}

// conformance: raft-wire 23 (better: the term of a stranger's AppendEntriesResult is not adopted)
#[tokio::test(start_paused = true)]
async fn a_term_is_learned_from_the_answers_of_members_alone_where_they_speak() {
    let (mut node, mut follower) = leader().await;
    let mut status = node.engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();
    play(&mut node, &mut follower, 6).await;

    answer(&mut node.connect(9), 7, 0, 1).await;
    // In the name of a member, on a connection that has not proved to be its.
    answer(&mut node.connect(2), 7, 0, 1).await;
    answer(&mut node.connect(2), 7, 1 << 63, 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.engine.current_term(), Term(2));
    answer(&mut follower, 7, 0, 1).await;
    status.wait_for(|now| now.term == Term(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_configuration_comes_into_a_cluster_of_any_term() {
    let mut node = node(Vec::new(), 0).await;
    let mut leader = node.connect(2);

    append(&mut leader, 1 << 40, (0, 0), 0, &[change(1 << 40, &servers(&[Role::StandBy, Role::Voter]))])
        .await;

    assert_eq!(node.append_answer().await, (1 << 40, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_node_at_the_end_of_all_terms_starts_and_stands_for_no_election() {
    for (term, roles) in [(u64::MAX, &[Role::Voter][..]), ((1 << 62) - 1, &[Role::Voter; 3])] {
        let mut node = node(vec![change(1, &servers(roles))], term).await;
        assert_eq!(node.engine.terms_ended_in(), Some(Term(term)));

        let heard = tokio::time::timeout(Duration::from_secs(60), node.sent.recv()).await;

        assert!(heard.is_err(), "{heard:?}");
        assert_eq!((node.engine.current_term(), node.disk.lock().votes.len()), (Term(term), 0));
        assert!(node.engine.serving().is_none());
    }
}

/// The term in which a lone voter serves after a start, and what it has stored for it.
async fn restarted(entries: Vec<Entry>) -> (u64, Vec<(u64, u64)>) {
    let node = node(entries, 1).await;
    let votes = node.disk.lock().votes.clone();
    (node.engine.serving().unwrap().term.0, votes)
}

// The voter may have sent entries of its term that it had not written when it ended: another server has them.
#[tokio::test(start_paused = true)]
async fn a_lone_voter_takes_a_new_term_at_a_start_unless_it_has_always_been_alone() {
    let alone = || change(1, &servers(&[Role::Voter]));
    assert_eq!(restarted(vec![alone(), number(1, 1)]).await, (1, vec![]));

    let with_standby = change(1, &servers(&[Role::Voter, Role::StandBy]));
    let with_spare = change(1, &servers(&[Role::Voter, Role::Spare]));
    for entries in [
        vec![with_standby.clone()],
        vec![alone(), number(1, 1), with_standby.clone(), number(1, 2)],
        vec![alone(), with_spare],
        vec![alone(), with_standby, alone()],
    ] {
        assert_eq!(restarted(entries.clone()).await, (2, vec![(2, 1)]), "{entries:?}");
    }
}

// A stranger that claimed a term which has a leader took its place, and was gone a moment later.
#[tokio::test(start_paused = true)]
async fn a_second_claimant_of_a_term_moves_nothing() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    node.append_answer().await;
    let named = |node: &Bench| node.engine.status().borrow().leader.as_ref().map(|(id, _)| id.0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(named(&node), Some(2));

    let mut stranger = node.connect(77);
    append(&mut stranger, 2, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await.1, 1, "it is refused");
    drop(stranger);
    tokio::time::sleep(Duration::from_millis(500)).await;

    assert_eq!(named(&node), Some(2));
    assert!(node.sent.try_recv().is_err(), "nobody is asked for a vote");
}

// A stranger that came first, right after a start, kept the leader of the term out of this node for as long as the term lasted.
#[tokio::test(start_paused = true)]
async fn a_voter_takes_the_place_that_a_stranger_has_in_its_term_and_keeps_it() {
    let mut node = follower().await;
    let mut stranger = node.connect(77);
    append(&mut stranger, 1, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (1, 0, 1), "nobody else was heard");

    let mut leader = node.connect(2);
    append(&mut leader, 1, (1, 1), 0, &[number(1, 10)]).await;
    assert_eq!(node.append_answer().await, (1, 0, 2));
    let beat = 1 << 63 | 5;
    append(&mut leader, 1, (beat, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (1, beat, 2));
    append(&mut stranger, 1, (1, 1), 0, &[number(1, 20)]).await;
    assert_eq!(node.append_answer().await.1, 1, "it is refused");

    append(&mut leader, 1, (2, 1), 2, &[number(1, 30)]).await;
    assert_eq!(node.append_answer().await, (1, 0, 3));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(node.engine.status().borrow().leader.as_ref().map(|(id, _)| id.0), Some(2));
    assert_eq!(node.numbers(), [10]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_moved_by_no_claim_of_its_own_term() {
    let (node, _follower) = leader().await;
    let mut status = node.engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();

    let mut stranger = node.connect(77);
    append(&mut stranger, 2, (1, 1), 0, &[]).await;
    drop(stranger);
    tokio::time::sleep(Duration::from_millis(500)).await;

    let now = status.borrow().clone();
    assert_eq!((now.term, now.leader.map(|(id, _)| id.0)), (Term(2), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_silent_and_does_not_answer_is_not_named_until_it_is_back() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    node.append_answer().await;
    let mut status = node.engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();
    let began = tokio::time::Instant::now();

    status.wait_for(|now| now.leader.is_none()).await.unwrap();

    assert_eq!(began.elapsed().as_millis() / 100, 10, "900 ms of silence and 100 ms for an answer");
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    status.wait_for(|now| now.leader.is_some()).await.unwrap();
}
