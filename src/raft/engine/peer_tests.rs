//! Entries, snapshots and what no peer sends, through a node's raft connections. spec: raft-wire 5, 8

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::peers::message::{Message, RequestVoteResult};
use crate::raft::testing::TestDisk;
use crate::raft::testing::bench::*;
use crate::raft::types::SnapshotPosition;
use crate::types::{Entry, EntryData, EntryKind, Role};

// conformance: raft-wire 13
// conformance: raft-wire 14 (better: upstream reports its whole log, leftovers included)
#[tokio::test(start_paused = true)]
async fn a_follower_answers_every_kind_of_append() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    let entries = [number(2, 10), number(2, 11), number(2, 12)];

    append(&mut leader, 2, (1, 1), 0, &entries).await;
    assert_eq!(node.append_answer().await, (2, 0, 4), "appended");
    append(&mut leader, 2, (1, 1), 0, &entries[..1]).await;
    assert_eq!(node.append_answer().await, (2, 0, 2), "repeated: no more than was sent counts");
    append(&mut leader, 2, (2, 2), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 0, 2), "empty");
    append(&mut leader, 2, (9, 2), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 9, 4), "gap");
    append(&mut leader, 2, (3, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 3, 4), "mismatch");
    assert_eq!(node.terms(), [1, 2, 2, 2], "a mismatch removes nothing");
    append(&mut leader, 1, (1, 1), 0, &[number(1, 99)]).await;
    assert_eq!(node.append_answer().await, (2, 1, 4), "stale term");
    append(&mut leader, 2, (1, 1), 3, &entries[..2]).await;
    assert_eq!(node.append_answer().await, (2, 0, 3));
    assert_eq!(node.numbers(), [10, 11], "committed up to what was verified");

    let mut other = node.connect(3);
    append(&mut other, 3, (3, 2), 3, &[number(3, 20)]).await;
    assert_eq!(node.append_answer().await, (3, 0, 4), "conflict");
    assert_eq!(node.terms(), [1, 2, 2, 3]);
    assert_eq!(node.disk.lock().votes.last(), Some(&(3, 0)));
}

// conformance: raft-wire 14, 15
// conformance: raft-wire 13 (better: entries whose write fails are written again, upstream drops and rejects them)
#[tokio::test(start_paused = true)]
async fn entries_are_acknowledged_when_they_are_durable_and_heartbeats_at_once() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 0, 1));
    node.disk.lock().held = true;

    append(&mut leader, 2, (1, 1), 0, &[number(2, 10)]).await;
    assert!(node.silent().await);
    append(&mut leader, 2, ((1 << 63) + 5, 2), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, (1 << 63) + 5, 2), "a fence need not wait for the disk");

    node.disk.lock().held = false;
    node.disk.flush();
    assert_eq!(node.append_answer().await, (2, 0, 2));
}

// What is in memory only: no probe acknowledges it, no candidate is measured by it, and after a vote it counts for nobody.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_durable_counts_for_no_leader_and_against_no_candidate() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    assert_eq!(node.append_answer().await, (2, 0, 1));
    node.disk.lock().held = true;
    append(&mut leader, 2, (1, 1), 0, &[number(2, 10)]).await;
    append(&mut leader, 2, (2, 2), 0, &[]).await;
    assert!(node.silent().await, "a success without entries says that those before it are there");

    let mut candidate = node.connect(3);
    send(&mut candidate, &vote(3, 3, (1, 1), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (3, true, false), "a log with all that was acknowledged");
    node.disk.lock().held = false;
    node.disk.flush();
    assert!(node.silent().await, "the leader of an earlier term gets no success for it");

    append(&mut candidate, 3, (1, 1), 0, &[number(3, 20)]).await;
    assert_eq!(node.append_answer().await, (3, 0, 2));
    assert_eq!(node.terms(), [1, 3]);
}

// conformance: raft-wire 4, 5
#[tokio::test(start_paused = true)]
async fn answers_go_where_connect_says() {
    let mut node = follower().await;
    let mut leader = node.connect_from(2, "elsewhere");
    append(&mut leader, 2, (1, 1), 0, &[]).await;

    assert_eq!(node.answer().await.0, "elsewhere");
    let leader_known = node.engine.status().borrow().leader.clone();
    assert_eq!(leader_known.map(|(id, _)| id), Some(NodeId(2)));
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(500), leader.read(&mut byte)).await.is_err());
    assert_eq!(node.hand.dialled.lock().unwrap().keys().collect::<Vec<_>>(), [b"elsewhere"]);
}

// conformance: raft-wire 24, 25 (better: upstream takes what a follower says for replicated)
#[tokio::test(start_paused = true)]
async fn a_leader_believes_a_follower_no_more_than_was_verified() {
    let (mut node, mut follower) = leader().await;

    // Upstream's follower with nine entries, of which those from 4 on are leftovers of another leader.
    let probe = play(&mut node, &mut follower, 9).await;
    assert_eq!((probe.previous_index.0, probe.previous_term.0, probe.commit.0), (6, 2, 0));
    assert!(probe.entries.is_empty());
    answer(&mut follower, 2, 6, 9).await;
    let probe = play(&mut node, &mut follower, 9).await;
    assert_eq!(probe.previous_index.0, 5);
    answer(&mut follower, 2, 5, 9).await;
    let probe = play(&mut node, &mut follower, 9).await;
    assert_eq!(probe.previous_index.0, 4);
    answer(&mut follower, 2, 4, 9).await;
    let probe = play(&mut node, &mut follower, 9).await;
    assert_eq!(probe.previous_index.0, 3);
    // A success of an empty append says how long its log is, leftovers included.
    answer(&mut follower, 2, 0, 9).await;
    let data = play(&mut node, &mut follower, 9).await;
    assert_eq!((data.previous_index.0, data.previous_term.0), (3, 1));
    assert_eq!(data.entries.len(), 3);
    assert!(data.commit.0 <= 6);
    assert_eq!(node.engine.configuration().committed, LogIndex(0), "nothing is committed by leftovers");

    answer(&mut follower, 2, 0, 6).await;
    let mut status = node.engine.status();
    timeout(Duration::from_secs(5), status.wait_for(|now| now.serving.is_some())).await.unwrap().unwrap();
    assert_eq!(node.numbers(), [0, 1, 2, 3]);
}

// conformance: raft-wire 24
#[tokio::test(start_paused = true)]
async fn an_empty_follower_gets_everything_and_one_that_has_all_gets_nothing() {
    for (last, first) in [(0, 0), (6, 6)] {
        let (mut node, mut follower) = leader().await;
        let message = play(&mut node, &mut follower, last).await;
        assert_eq!(message.previous_index.0, first, "last {last}");
        assert_eq!(message.entries.len(), if last == 0 { 6 } else { 0 });
    }
}

// A C node that writes a snapshot of its own drops what it gets meanwhile, silently: a roll once stood still for 42 s.
// spec: raft-wire 5.2, 6.2
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_not_answered_is_sent_again_soon() {
    let disk = TestDisk::default();
    disk.lock().term = Term(1);
    disk.lock().first = LogIndex(6);
    disk.lock().entries = vec![number(1, 8)];
    let position = SnapshotPosition {
        term: Term(1),
        index: LogIndex(5),
        configuration: Arc::new(servers(&[Role::Voter; 2])),
        configuration_index: LogIndex(1),
    };
    disk.lock().snapshot = Some((position, 7_u64.to_le_bytes().to_vec()));
    let (mut node, mut follower) = elected(node_on(disk).await).await;

    let began = tokio::time::Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 {
        match node.answer().await.1 {
            Message::InstallSnapshot(install) => {
                assert_eq!((install.index, install.content_bytes), (LogIndex(5), 8));
                times.push(began.elapsed().as_secs());
            }
            // It is alive, and has nothing.
            Message::AppendEntries(append) => {
                answer(&mut follower, 2, append.previous_index.0, 0).await;
            }
            _ => {}
        }
    }
    assert!(times[0] <= 2 && times[1] - times[0] <= 5 && times[2] - times[1] <= 5, "{times:?}");

    answer(&mut follower, 2, 0, 5).await;
    let probe = play(&mut node, &mut follower, 5).await;
    assert_eq!((probe.previous_index.0, probe.entries.len()), (5, 0));
    answer(&mut follower, 2, 0, 5).await;
    let entries = play(&mut node, &mut follower, 5).await;
    assert_eq!((entries.previous_index.0, entries.entries.len()), (5, 2));
}

// conformance: raft-wire 23
#[tokio::test(start_paused = true)]
async fn strangers_are_treated_as_upstream_treats_them() {
    let mut node = follower().await;
    let mut stranger = node.connect(77);
    append(&mut stranger, 2, (1, 1), 0, &[number(2, 5)]).await;
    assert_eq!(node.append_answer().await, (2, 0, 2), "AppendEntries is processed");
    assert_eq!(node.engine.status().borrow().leader.as_ref().map(|(id, _)| id.0), Some(77));
    let granted = RequestVoteResult { term: Term(9), granted: true, is_pre_vote: Some(false) };
    send(&mut stranger, &Message::RequestVoteResult(granted), &[]).await;
    assert!(node.silent().await);
    assert_eq!(node.engine.current_term(), Term(2), "the term of a RequestVoteResult is ignored");
}

// conformance: raft-wire 16, 17
#[tokio::test(start_paused = true)]
async fn configurations_are_taken_as_they_come_and_rolled_back_with_their_entries() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    let three = servers(&[Role::Voter; 3]);
    let five = servers(&[Role::Voter, Role::Spare, Role::StandBy, Role::Voter, Role::Spare]);

    append(&mut leader, 2, (1, 1), 1, &[change(2, &three), change(2, &five)]).await;
    assert_eq!(node.append_answer().await, (2, 0, 3));
    assert_eq!(*node.engine.configuration().configuration, five);
    append(&mut node.connect(3), 3, (2, 2), 2, &[number(3, 1)]).await;
    assert_eq!(node.append_answer().await, (3, 0, 3));

    assert_eq!(*node.engine.configuration().configuration, three);
}

// conformance: raft-wire 17
// found by history 856: the log kept a configuration that the snapshot had replaced, so that the node, once it led, refused
// the very changes that were needed.
#[tokio::test(start_paused = true)]
async fn a_snapshot_brings_its_configuration_into_the_log() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    let four = servers(&[Role::Voter, Role::Voter, Role::Spare, Role::Voter]);
    let five = servers(&[Role::Voter; 5]);
    append(&mut leader, 2, (1, 1), 1, &[change(2, &five)]).await;
    node.append_answer().await;
    let Message::InstallSnapshot(mut message) = snapshot(2, 50, 2, &[]) else { unreachable!() };
    message.configuration = four.clone();
    message.configuration_index = LogIndex(40);

    send(&mut leader, &Message::InstallSnapshot(message), &[]).await;

    assert_eq!(node.append_answer().await, (2, 0, 50));
    let current = node.engine.configuration();
    assert_eq!((&*current.configuration, current.index), (&four, LogIndex(40)));
    append(&mut leader, 2, (50, 2), 50, &[change(2, &five)]).await;
    node.append_answer().await;
    append(&mut node.connect(3), 3, (50, 2), 50, &[number(3, 1)]).await;
    node.append_answer().await;
    let current = node.engine.configuration();
    assert_eq!(
        (&*current.configuration, current.index),
        (&four, LogIndex(40)),
        "rolled back to the snapshot's"
    );
}

// conformance: raft-wire 12
// A peer that sends random bytes, wrong ids, huge lengths, old terms: the node lives.
#[tokio::test(start_paused = true)]
async fn what_no_peer_sends_closes_the_connection_and_harms_nothing() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 2, &[number(2, 10)]).await;
    node.append_answer().await;
    let bad_change = Entry {
        data: EntryData::from_bytes(Bytes::from_static(&[9, 0, 0, 0, 0, 0, 0, 0])),
        ..change(2, &servers(&[Role::Voter]))
    };
    let nobody = change(2, &servers(&[Role::Spare]));

    for (what, term, previous, entries) in [
        ("a term above the leader's", 2, (2, 2), vec![number(3, 1)]),
        ("a previous term above the leader's", 2, (2, 3), vec![]),
        ("term 0", 0, (0, 0), vec![]),
        ("a configuration that does not decode", 2, (2, 2), vec![bad_change]),
        ("a configuration without voters", 2, (2, 2), vec![nobody]),
        ("another entry where one is committed", 5, (1, 1), vec![number(5, 1)]),
        ("another term where one is committed", 5, (2, 1), vec![]),
        ("entries behind a fence", 2, (1 << 63, 2), vec![number(2, 1)]),
        ("entries beyond all indexes", 2, (u64::MAX, 2), vec![number(2, 1)]),
    ] {
        let mut liar = node.connect(2);
        append(&mut liar, term, previous, 1 << 62, &entries).await;
        assert!(closed(&mut liar).await, "{what}");
        assert_eq!(node.terms(), [1, 2], "{what}");
    }
    for bytes in [
        vec![0xff; 64],
        vec![0; 64],
        5u64.to_le_bytes().repeat(8),
        vec![1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut liar = node.connect(3);
        liar.write_all(&bytes).await.unwrap();
        assert!(closed(&mut liar).await, "{bytes:?}");
    }
    for own in [0, 1] {
        assert!(closed(&mut node.connect(own)).await, "id {own}");
    }
    assert!(node.engine.status().borrow().failed.is_none());
    append(&mut node.connect(2), 2, (2, 2), 3, &[number(2, 11)]).await;
    while node.append_answer().await != (2, 0, 3) {}
    assert_eq!(node.numbers(), [10, 11]);
}

// conformance: raft-wire 18 (better: a snapshot that is cut short is answered and forgotten)
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_installed_whole_or_not_at_all() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 3, &[number(2, 10), number(2, 11)]).await;
    node.append_answer().await;

    send(&mut leader, &snapshot(2, 2, 2, &[]), &[]).await;
    assert_eq!(node.append_answer().await, (2, 0, 2), "already there");
    send(&mut leader, &snapshot(1, 50, 1, &[]), &[]).await;
    assert_eq!(node.append_answer().await, (2, 50, 3), "old term");
    let mut liar = node.connect(2);
    send(&mut liar, &snapshot(2, 50, 2, &[0; 64]), &[0; 8]).await;
    drop(liar);
    assert_eq!(node.append_answer().await, (2, 50, 3), "cut");
    assert_eq!(node.numbers(), [10, 11]);

    let content: Vec<u8> = [7u64, 8, 9].iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut leader = node.connect(2);
    send(&mut leader, &snapshot(2, 50, 2, &content), &content).await;
    assert_eq!(node.append_answer().await, (2, 0, 50));
    assert_eq!(node.numbers(), [7, 8, 9]);
    append(&mut leader, 2, (50, 2), 51, &[number(2, 12)]).await;
    assert_eq!(node.append_answer().await, (2, 0, 51));
    assert_eq!(node.numbers(), [7, 8, 9, 12]);
    assert_eq!(node.disk.lock().first, LogIndex(51), "the old log is gone");
}

// conformance: raft-wire 27
#[tokio::test(start_paused = true)]
async fn a_removed_node_is_told_and_a_spare_gets_nothing() {
    let mut entries = vec![change(1, &servers(&[Role::Voter, Role::StandBy, Role::Spare]))];
    entries.push(number(1, 7));
    let mut node = node(entries, 1).await;
    let mut follower = node.connect(2);
    let mut status = node.engine.status();
    status.wait_for(|now| now.serving.is_some()).await.unwrap();
    let engine = node.engine.clone();
    let removing = tokio::spawn(async move { engine.remove(NodeId(2)).await });

    let told = loop {
        let (to, message) = node.answer().await;
        assert_eq!(to, "2", "a spare gets nothing: {message:?}");
        let Message::AppendEntries(append) = message else { continue };
        if append.previous_index.0 >= 1 << 63 {
            answer(&mut follower, append.term.0, append.previous_index.0, 0).await;
        } else if let [entry] = append.entries[..]
            && entry.kind == EntryKind::Change
            && append.commit > append.previous_index
        {
            break append;
        }
    };
    assert_eq!(told.commit, told.previous_index.next(), "it is committed");
    removing.await.unwrap().unwrap();
    assert_eq!(*node.engine.configuration().configuration, {
        let all = servers(&[Role::Voter, Role::StandBy, Role::Spare]);
        Configuration::new(vec![all.servers()[0].clone(), all.servers()[2].clone()]).unwrap()
    });
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_finds_no_space_is_applied_when_there_is_some_and_a_stop_does_not_wait_for_it() {
    let mut bench = follower().await;
    let mut stream = bench.connect(2);
    bench.machine.0.lock().unwrap().no_space = true;

    append(&mut stream, 1, (1, 1), 2, &[number(1, 7), number(1, 8)]).await;
    assert_eq!(bench.append_answer().await, (1, 0, 3));
    // Acknowledged, since the log has them.
    assert!(bench.silent().await);
    assert!(bench.numbers().is_empty());
    bench.machine.0.lock().unwrap().no_space = false;
    let mut applied = bench.engine.applied.clone();
    let seen = timeout(Duration::from_secs(60), applied.wait_for(|applied| applied.index == LogIndex(2)));
    seen.await.expect("applied").unwrap();
    assert_eq!(bench.numbers(), [7]);

    bench.machine.0.lock().unwrap().no_space = true;
    append(&mut stream, 1, (3, 1), 3, &[]).await;
    bench.append_answer().await;
    timeout(Duration::from_secs(60), bench.engine.shutdown()).await.expect("stopped");
    assert_eq!(bench.numbers(), [7]);
}
