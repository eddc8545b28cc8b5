//! What strangers can take of a node, and what they cannot, through its raft connections; and members that are not what they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, timeout};

use crate::peers::message::{AppendEntries, EntryHeader, Message};
use crate::raft::testing::bench::*;
use crate::types::config::{MEMBER_PLACES, STRANGER_PLACES, UNFINISHED_FREE_BYTES, UNFINISHED_MAX_BYTES};
use crate::types::{EntryKind, LogIndex, Term};

/// Whether the node has closed the connection; it never writes on it.
async fn is_closed(stream: &mut DuplexStream) -> bool {
    let mut byte = [0];
    timeout(Duration::from_millis(1), stream.read(&mut byte)).await.is_ok()
}

async fn open(streams: &mut [DuplexStream]) -> usize {
    let mut open = 0;
    for stream in streams {
        open += usize::from(!is_closed(stream).await);
    }
    open
}

/// An append of this term that announces an entry of so many bytes.
fn announced(term: u64, bytes: u32) -> Message {
    let entries = vec![EntryHeader { term: Term(term), kind: EntryKind::Command, bytes }];
    let (previous_index, previous_term, commit) = (LogIndex(1), Term(1), LogIndex(1));
    Message::AppendEntries(AppendEntries { term: Term(term), previous_index, previous_term, commit, entries })
}

// The fault: no leader for as long as it dripped.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_drips_keeps_nobody_from_an_election_and_is_closed() {
    let mut node = follower().await;
    let mut stranger = node.connect(77);
    let Message::InstallSnapshot(mut install) = snapshot(2, 1000, 1, &[]) else { unreachable!() };
    install.content_bytes = 1 << 30;
    send(&mut stranger, &Message::InstallSnapshot(install), &[]).await;
    let began = Instant::now();
    tokio::spawn(async move {
        while stranger.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(500)).await
        }
    });

    loop {
        // The term is adopted, as any that somebody claims; the stranger is asked first whether it is there.
        if let (_, Message::RequestVote(request)) = node.answer().await
            && request.term > Term(2)
        {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // It is answered, since its connection has ended.
    assert_eq!(node.append_answer().await.1, 1000);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_sends_a_large_snapshot_is_followed_all_the_while() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    let content = vec![0; 4 << 20];
    send(&mut leader, &snapshot(2, 1000, 1, &content), &[]).await;
    for piece in content.chunks(64 * 1024) {
        leader.write_all(piece).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(node.engine.current_term(), Term(2));
    }
    let (term, rejected, _) = node.append_answer().await;
    assert_eq!((term, rejected), (2, 0), "nothing but the answer: no vote was asked for");
}

// A link of 2 MB/s, and a transaction of 16 MiB: its leader was silent for longer than three beats, and was deposed.
#[tokio::test(start_paused = true)]
async fn a_leader_that_sends_large_entries_is_followed_all_the_while() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    node.append_answer().await;
    send(&mut leader, &announced(2, 16 << 20), &[]).await;
    for _ in 0..80 {
        leader.write_all(&[0; 200 * 1024]).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(node.sent.try_recv().is_err(), "nobody is asked for anything");
    assert_eq!(node.engine.status().borrow().leader.as_ref().map(|(id, _)| id.0), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stands_still_is_given_up() {
    let node = follower().await;
    for bytes in [&[1][..], &announced(2, 1 << 20).encode()] {
        let mut stranger = node.connect(77);
        stranger.write_all(bytes).await.unwrap();
        sleep(Duration::from_secs(15)).await;
        assert!(!is_closed(&mut stranger).await);
        sleep(Duration::from_secs(10)).await;
        assert!(is_closed(&mut stranger).await);
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_share_their_places_and_a_member_keeps_those_that_matter() {
    let (mut node, mut follower) = leader().await;
    play(&mut node, &mut follower, 6).await;
    let mut strangers: Vec<_> = (0..2 * STRANGER_PLACES as u64).map(|id| node.connect(1000 + id)).collect();
    let mut forged: Vec<_> = (0..100).map(|_| node.connect(2)).collect();
    sleep(Duration::from_millis(10)).await;

    assert_eq!(open(&mut strangers).await, STRANGER_PLACES);
    assert_eq!(open(&mut forged).await, MEMBER_PLACES - 1);
    assert!(!is_closed(&mut follower).await, "the one that speaks stays");
    assert_eq!(open(&mut strangers[..STRANGER_PLACES]).await, 0, "the idlest go");
}

#[tokio::test(start_paused = true)]
async fn a_follower_keeps_the_connection_of_its_leader() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 1, &[]).await;
    node.append_answer().await;
    let mut forged: Vec<_> = (0..100).map(|_| node.connect(2)).collect();
    sleep(Duration::from_millis(10)).await;

    assert_eq!(open(&mut forged).await, MEMBER_PLACES - 1);
    append(&mut leader, 2, (1, 1), 1, &[number(2, 7)]).await;
    assert_eq!(node.append_answer().await, (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn unfinished_messages_of_strangers_take_no_more_than_their_share_and_stop_no_vote() {
    let mut node = follower().await;
    let (bytes, count) = (4 << 20, 12);
    let taken = Arc::new(AtomicUsize::new(0));
    for id in 0..count {
        let (mut stranger, taken) = (node.connect(1000 + id), taken.clone());
        send(&mut stranger, &announced(9, bytes), &[]).await;
        tokio::spawn(async move {
            let piece = vec![0; 64 * 1024];
            // All but the last bytes.
            for _ in 2..bytes as usize / piece.len() {
                stranger.write_all(&piece).await?;
                taken.fetch_add(piece.len(), Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(60)).await;
            Ok::<_, std::io::Error>(())
        });
    }
    sleep(Duration::from_secs(1)).await;
    let sum = taken.load(Ordering::Relaxed);

    let mut candidate = node.connect(3);
    send(&mut candidate, &vote(2, 3, (1, 1), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (2, true, false));
    let pipes = count as usize * ((1 << 20) + UNFINISHED_FREE_BYTES);
    assert!(sum <= UNFINISHED_MAX_BYTES + pipes, "{sum}");
    assert!(sum >= UNFINISHED_MAX_BYTES / 2, "{sum}");
}

#[tokio::test(start_paused = true)]
async fn the_leader_that_is_followed_may_send_what_others_may_not() {
    let mut node = follower().await;
    let mut leader = node.connect(2);
    append(&mut leader, 2, (1, 1), 1, &[]).await;
    node.append_answer().await;
    let bytes = 100 << 20;
    send(&mut leader, &announced(2, bytes), &[]).await;

    let piece = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        timeout(Duration::from_secs(1), leader.write_all(&piece)).await.expect("it is read").unwrap();
    }

    assert_eq!(node.append_answer().await, (2, 0, 2));
}

// The fault: it stayed empty until the next write, and the leader counted a copy that did not exist.
#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_with_less_gets_it_although_nobody_writes() {
    for last in [0, 3] {
        let (mut node, mut follower) = leader().await;
        let data = play(&mut node, &mut follower, 0).await;
        assert_eq!(data.entries.len(), 6);
        answer(&mut follower, 2, 0, 6).await;
        let mut status = node.engine.status();
        status.wait_for(|now| now.serving.is_some()).await.unwrap();
        sleep(Duration::from_secs(1)).await;

        drop(follower);
        let mut again = node.connect(2);
        let began = Instant::now();
        let sent = loop {
            let append = play(&mut node, &mut again, last).await;
            match append.previous_index.0 {
                previous if previous > last => answer(&mut again, 2, previous, last).await,
                previous if append.entries.is_empty() => answer(&mut again, 2, 0, previous).await,
                _ => break append,
            }
        };

        assert_eq!((sent.previous_index.0, sent.entries.len() as u64), (last, 6 - last));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        answer(&mut again, 2, 0, 6).await;
        sleep(Duration::from_millis(100)).await;
        assert!(node.engine.serving().is_some());
    }
}
