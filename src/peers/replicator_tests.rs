use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, duplex};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::peers::FENCE_BASE;
use crate::peers::link::connect_bytes;
use crate::peers::message::AppendEntriesResult;
use crate::peers::reader::MessageReader;
use crate::peers::set::PeersParts;
use crate::transport::dial::{Dial, Stream};
use crate::types::random::RandomSource;

const TERM: Term = Term(2);

/// A log of the leader's with entries of term 1 up to an index.
struct OldLog(u64);

impl LeaderLog for OldLog {
    fn last_index(&self) -> LogIndex {
        LogIndex(self.0)
    }

    fn stored_term(&self, index: LogIndex) -> Option<Term> {
        (index.0 <= self.0).then_some(Term(1))
    }
}

/// A follower whose log is a part of the leader's and ends at `last`.
#[derive(Clone, Default)]
struct Follower {
    last: Arc<AtomicU64>,
    peer: Arc<Mutex<Option<SharedPeer>>>,
}

impl Follower {
    fn answer(&self, append: &AppendEntries) {
        let last_index = LogIndex(self.last.load(Ordering::Relaxed));
        let refuses = append.previous_index.0 >= FENCE_BASE || append.previous_index > last_index;
        let result = AppendEntriesResult {
            term: append.term,
            rejected: if refuses { append.previous_index } else { LogIndex::NONE },
            last_index: if refuses { last_index } else { append.previous_index },
        };
        self.peer.lock().unwrap().as_ref().unwrap().append_result(result, 1);
    }
}

impl Dial for Follower {
    fn dial(&self, _address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
        let follower = self.clone();
        Box::pin(async move {
            let (ours, mut theirs) = duplex(1 << 16);
            tokio::spawn(async move {
                let mut hello = vec![0; connect_bytes(NodeId(1), b"leader").len()];
                theirs.read_exact(&mut hello).await.unwrap();
                let mut reader = MessageReader::new(theirs, Bytes::new(), None);
                while let Ok(Some(received)) = reader.next().await {
                    if let Message::AppendEntries(append) = received.message {
                        follower.answer(&append);
                    }
                }
            });
            let (read, write) = tokio::io::split(ours);
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        })
    }
}

fn replicator(follower: &Follower, last: u64) -> Replicator {
    let peers = Peers::new(PeersParts {
        id: NodeId(1),
        address: Bytes::from_static(b"leader"),
        dial: Arc::new(follower.clone()),
        spawn: Arc::new(|task| drop(tokio::spawn(task))),
        pool: Arc::new(crate::types::tasks::InlinePool),
        payloads: None,
        patience: Duration::from_secs(3),
        random: Arc::new(RandomSource::from_seed(1)),
        stop: CancellationToken::new(),
    });
    let target = Target::new(&peers, NodeId(2), Bytes::from_static(b"follower"));
    *follower.peer.lock().unwrap() = Some(target.peer.clone());
    Replicator::new(target, TERM, Arc::new(OldLog(last)), Duration::from_secs(5))
}

#[tokio::test(start_paused = true)]
async fn where_the_logs_agree_is_found_once() {
    let follower = Follower::default();
    follower.last.store(20, Ordering::Relaxed);
    let mut replicator = replicator(&follower, 100);

    replicator.find(LogIndex(15)).await.unwrap();
    assert_eq!(replicator.matched(), Matched::At(LogIndex(20)));

    // What the follower gets by itself is not looked for while the caller goes on from what was found.
    follower.last.store(30, Ordering::Relaxed);
    replicator.find(LogIndex(20)).await.unwrap();
    assert_eq!(replicator.matched(), Matched::At(LogIndex(20)));
}

// Seen in clusters that took snapshots: openraft, told that the follower lacks what its snapshot had brought, sent
// the snapshot again.
#[tokio::test(start_paused = true)]
async fn a_follower_that_got_a_snapshot_without_having_refused_entries_is_looked_at_again() {
    let follower = Follower::default();
    follower.last.store(20, Ordering::Relaxed);
    let mut replicator = replicator(&follower, 100);
    replicator.find(LogIndex(15)).await.unwrap();
    assert_eq!(replicator.sent_upto(), LogIndex(20));

    follower.last.store(60, Ordering::Relaxed);
    replicator.find(LogIndex(60)).await.unwrap();

    assert_eq!(replicator.matched(), Matched::At(LogIndex(60)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_back_after_a_refusal_is_told_what_was_found() {
    let follower = Follower::default();
    follower.last.store(20, Ordering::Relaxed);
    let mut replicator = replicator(&follower, 100);
    replicator.find(LogIndex(60)).await.unwrap();
    assert_eq!(replicator.sent_upto(), LogIndex(20));
    replicator.refuse(LogIndex(60));

    // It may be there by now, but the caller was told that it is not, and goes back.
    follower.last.store(60, Ordering::Relaxed);
    replicator.find(LogIndex(40)).await.unwrap();
    assert_eq!(replicator.matched(), Matched::At(LogIndex(20)));
    replicator.find(LogIndex(60)).await.unwrap();

    assert_eq!(replicator.matched(), Matched::At(LogIndex(60)));
}
