//! One voter on one thread with a paused clock.

use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::raft::log::LogPhase;
use crate::raft::propose::EpochHooks;
use crate::raft::snapshot::SnapshotPace;
use crate::raft::testing::{InlinePool, NoDial, TestDisk, TestHooks, TestMachine, command};
use crate::raft::types::ChangeError;
use crate::types::config::{CHANGE_COMMIT_MAX, LOG_TRAILING_MAX_BYTES};
use crate::types::random::RandomSource;
use crate::types::tasks::Tasks;
use crate::types::{EntryData, ProposalRange};

struct Node {
    engine: Engine,
    disk: TestDisk,
    machine: TestMachine,
    hooks: Arc<TestHooks>,
}

async fn start(disk: TestDisk, policy: SnapshotPolicy, seed: u64) -> Node {
    let machine = TestMachine::default();
    let hooks = Arc::new(TestHooks::default());
    let options = EngineOptions {
        id: NodeId(1),
        address: b"127.0.0.1:9001".to_vec(),
        heartbeat_interval: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        snapshot_policy: policy,
        consensus: Tasks::new(tokio::runtime::Handle::current()),
        pool: Arc::new(InlinePool),
        random: Arc::new(RandomSource::from_seed(seed)),
        log: disk.sender(),
        loaded: disk.loaded(),
        snapshots: Arc::new(disk.clone()),
        machine: Box::new(machine.clone()),
        hooks: hooks.clone(),
        dial: Arc::new(NoDial),
        payloads: None,
    };
    let engine = Engine::start(options).await.unwrap();
    Node { engine, disk, machine, hooks }
}

const NO_SNAPSHOTS: SnapshotPolicy =
    SnapshotPolicy { threshold_entries: u64::MAX, trailing_entries: 0, pace: SnapshotPace::Entries };

impl Node {
    fn serving(&self) -> Option<Serving> {
        self.engine.status().borrow().serving
    }

    fn commands(&self) -> Vec<u64> {
        self.machine.0.lock().unwrap().commands.clone()
    }

    async fn applied(&self, count: usize) {
        while self.commands().len() < count {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until an epoch not before `epoch` is served.
    async fn serves_from(&self, epoch: u64) -> Serving {
        let mut status = self.engine.status();
        let reached = status.wait_for(|status| status.serving.is_some_and(|serving| serving.epoch >= epoch));
        reached.await.unwrap().serving.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_voter_serves_with_its_log_applied_when_start_returns() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 1).await;

    let status = node.engine.status().borrow().clone();
    assert_eq!(status.leader, Some((NodeId(1), b"127.0.0.1:9001".to_vec())));
    assert_eq!(status.serving, Some(Serving { term: Term(1), epoch: 0 }));
    assert_eq!(node.engine.last_applied(), LogIndex(1));
    assert_eq!(node.disk.lock().votes, vec![]);
    assert_eq!(node.engine.configuration().index, LogIndex(1));
    assert!(node.engine.prove().given().await);
    node.engine.shutdown().await;
    assert_eq!(node.engine.status().borrow().failed, None);
    assert_eq!(node.serving(), None);
}

// conformance: state-machine 23
#[tokio::test(start_paused = true)]
async fn pipelined_proposals_reach_log_and_state_in_order_without_a_gap() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 2).await;
    node.disk.lock().held = true;

    for number in 1..=1000 {
        let token = node.engine.propose(0, command(number), |_| true).unwrap();
        assert_eq!(token, ProposalToken { epoch: 0, sequence: number });
    }
    while node.commands().len() < 1000 {
        sleep(Duration::from_millis(1)).await;
        node.disk.flush();
    }

    let sequences: Vec<u64> = node.disk.lock().tokens.iter().map(|token| token.last).collect();
    assert_eq!(sequences, (1..=1000).collect::<Vec<_>>());
    assert_eq!(node.commands(), (1..=1000).collect::<Vec<_>>());
    assert!(node.hooks.ended.lock().unwrap().is_empty());
    node.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_takes_proposals_before_the_earlier_ones_are_durable_but_none_while_it_is_busy_or_gathers() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 3).await;
    node.disk.lock().held = true;

    for number in 1..=200 {
        node.engine.propose(0, command(number), |_| true).unwrap();
    }
    sleep(Duration::from_millis(10)).await;

    assert_eq!(node.disk.lock().tokens.len(), 200);
    assert!(node.commands().is_empty());
    let phase = node.disk.lock().phase.clone();
    phase.send_replace(LogPhase::Busy);
    node.engine.propose(0, command(201), |_| true).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.disk.lock().tokens.len(), 200);
    phase.send_replace(LogPhase::Gathering { proposals: 3 });
    node.engine.propose(0, command(202), |_| true).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.disk.lock().tokens.len(), 200);
    node.engine.propose(0, command(203), |_| true).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.disk.lock().tokens.len(), 203);
    node.engine.propose(0, command(204), |_| true).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.disk.lock().tokens.len(), 203);
    phase.send_replace(LogPhase::Idle);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.disk.lock().tokens.len(), 204);
    node.disk.lock().held = false;
    node.disk.flush();
    node.applied(204).await;
    node.engine.shutdown().await;
}

/// Steps down while 290 proposals are queued; the step-down reaches openraft `before` or after their first batch.
async fn refuse_in_a_pipeline(before: bool, seed: u64) -> u64 {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, seed).await;
    for number in 1..=10 {
        node.engine.propose(0, command(number), |_| true).unwrap();
    }
    node.applied(10).await;

    let engine = node.engine.clone();
    let step_down = async move { engine.step_down().await };
    let propose = || {
        for number in 11..=300 {
            node.engine.propose(0, command(number), |_| true).unwrap();
        }
    };
    if before {
        let stepping_down = tokio::spawn(step_down);
        propose();
        stepping_down.await.unwrap();
    } else {
        propose();
        tokio::spawn(step_down).await.unwrap();
    }
    sleep(Duration::from_secs(20)).await;
    let serving = node.serves_from(1).await;

    let in_log = node.disk.lock().tokens.len() as u64;
    assert_eq!(node.hooks.ended.lock().unwrap()[0], (0, Some(in_log + 1)));
    assert!(node.engine.propose(0, command(1), |_| true).is_err());
    let token = node.engine.propose(serving.epoch, command(900), |_| true).unwrap();
    node.applied(in_log as usize + 1).await;
    let wanted: Vec<u64> = (1..=in_log).chain([900]).collect();
    assert_eq!(node.commands(), wanted);
    assert_eq!(node.disk.lock().tokens.last(), Some(&ProposalRange::of(token)));
    node.engine.shutdown().await;
    in_log
}

// conformance: state-machine 23
#[tokio::test(start_paused = true)]
async fn after_a_refusal_nothing_of_the_epoch_reaches_the_log() {
    let before = refuse_in_a_pipeline(true, 4).await;
    let after = refuse_in_a_pipeline(false, 4).await;

    assert_eq!(before, 10);
    assert!((11..300).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_taken_at_the_threshold_and_a_restart_continues_from_it() {
    let policy = SnapshotPolicy { threshold_entries: 50, trailing_entries: 10, pace: SnapshotPace::Entries };
    let node = start(TestDisk::bootstrapped(), policy, 5).await;
    for number in 1..=170 {
        node.engine.propose(0, command(number), |_| true).unwrap();
        if number % 10 == 0 {
            node.applied(number as usize).await;
        }
    }
    sleep(Duration::from_millis(100)).await;
    let snapshot = node.disk.lock().snapshot.as_ref().unwrap().0.clone();
    assert!(snapshot.index >= LogIndex(122), "{snapshot:?}");
    assert!(node.disk.lock().entries.len() < 62);
    node.engine.shutdown().await;

    let again = start(node.disk.clone(), policy, 6).await;

    assert_eq!(again.commands(), (1..=170).collect::<Vec<_>>());
    let first_applied = again.machine.0.lock().unwrap().applied[0].0;
    assert_eq!(first_applied, snapshot.index.0 + 1);
    assert_eq!(again.serves_from(0).await.term, Term(1));
    assert_eq!(again.engine.configuration().index, LogIndex(1));
    again.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_log_fails_does_not_campaign_until_it_has_recovered() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 1).await;

    // Alone, it waits for its disk and keeps what is in flight.
    node.disk.lock().fails.send_replace(true);
    assert!(node.serving().is_some());
    node.engine.step_down().await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(node.serving(), None);
    assert_eq!(node.disk.lock().votes, vec![(2, 0)]);

    node.disk.lock().fails.send_replace(false);
    assert_eq!(node.serves_from(1).await.term, Term(3));
    node.engine.shutdown().await;
}

// Terms 1, 5, 5, 1, 5, as a recovery leaves them.
// conformance: c-api 59
// conformance: disk-format 16
#[tokio::test(start_paused = true)]
async fn a_log_whose_terms_fall_is_served_and_keeps_them() {
    for (terms, policy) in [
        (vec![5, 5, 1, 5], NO_SNAPSHOTS),
        (vec![5, 5, 1], NO_SNAPSHOTS),
        (
            vec![5, 5, 1],
            SnapshotPolicy { threshold_entries: 4, trailing_entries: 3, pace: SnapshotPace::Entries },
        ),
        (
            vec![5, 5, 1],
            SnapshotPolicy { threshold_entries: 4, trailing_entries: 0, pace: SnapshotPace::Entries },
        ),
    ] {
        let disk = TestDisk::bootstrapped();
        let configuration = disk.lock().entries[0].clone();
        for (number, term) in terms.iter().enumerate() {
            let entry = if *term == 1 {
                configuration.clone()
            } else {
                let data = command(number as u64).data;
                crate::types::Entry {
                    term: Term(*term),
                    kind: crate::types::EntryKind::Command,
                    data,
                    proposals: None,
                }
            };
            disk.lock().entries.push(entry);
        }
        disk.lock().term = Term(5);
        let mut expected: Vec<u64> = (0..terms.len() as u64).filter(|n| terms[*n as usize] == 5).collect();

        for round in 0..4 {
            let node = start(disk.clone(), policy, 1).await;
            let serving = node.serving().unwrap();
            assert_eq!(serving.term, Term(6 + round));
            assert_eq!(node.commands(), expected, "{terms:?} round {round}");
            node.engine.propose(serving.epoch, command(100 + round), |_| true).unwrap();
            expected.push(100 + round);
            node.applied(expected.len()).await;
            assert_eq!(node.commands(), expected);
            sleep(Duration::from_millis(100)).await;
            node.engine.shutdown().await;
        }
        if policy == NO_SNAPSHOTS {
            let stored: Vec<u64> =
                disk.lock().entries[1..=terms.len()].iter().map(|entry| entry.term.0).collect();
            assert_eq!(stored, terms);
        } else {
            assert!(disk.lock().snapshot.is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_snapshot_covers_takes_bounded_memory() {
    let policy =
        SnapshotPolicy { threshold_entries: 50, trailing_entries: 1000, pace: SnapshotPace::Entries };
    let node = start(TestDisk::bootstrapped(), policy, 5).await;
    assert_eq!(node.engine.log.last_beyond(8 * 50), LogIndex::NONE);
    for number in 1..=60 {
        node.engine.propose(0, command(number), |_| true).unwrap();
    }
    node.applied(60).await;
    // The first entry is the configuration.
    assert_eq!(node.engine.log.last_beyond(8 * 50), LogIndex(11));
    assert_eq!(node.engine.log.last_beyond(0), LogIndex(61));
    node.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_few_large_entries_are_a_reason_for_a_snapshot_and_do_not_stay_behind_it() {
    let policy =
        SnapshotPolicy { threshold_entries: 1024, trailing_entries: 8192, pace: SnapshotPace::Bytes };
    let node = start(TestDisk::bootstrapped(), policy, 5).await;
    let bytes = LOG_TRAILING_MAX_BYTES / 2;
    for number in 1..=20 {
        let mut payload = vec![0; bytes];
        payload[..8].copy_from_slice(&u64::to_le_bytes(number));
        let large = Proposed { data: EntryData::from_bytes(payload.into()), ..command(number) };
        node.engine.propose(0, large, |_| true).unwrap();
        node.applied(number as usize).await;
    }
    sleep(Duration::from_millis(100)).await;

    // Due behind the fifth of them, and so on.
    let snapshot = node.disk.lock().snapshot.as_ref().unwrap().0.index;
    assert!(snapshot >= LogIndex(17), "{snapshot}");
    let first = node.disk.lock().first;
    assert!(
        first >= LogIndex(snapshot.0 - 2),
        "the disk has entries from {first} on, the snapshot is at {snapshot}"
    );
    assert!(node.engine.log.entry_at(LogIndex(snapshot.0 - 2)).is_none());
    node.engine.shutdown().await;
}

// In a later term somebody else may have led: it takes an election to be sure.
#[tokio::test(start_paused = true)]
async fn a_single_voter_of_a_later_term_is_elected_again() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 1).await;
    node.engine.step_down().await;
    assert_eq!(node.serves_from(1).await.term, Term(3));
    assert_eq!(node.disk.lock().votes, vec![(2, 0), (3, 1)]);
    node.engine.shutdown().await;

    let again = start(node.disk.clone(), NO_SNAPSHOTS, 6).await;

    assert_eq!(again.serving().unwrap().term, Term(4));
    assert_eq!(again.engine.last_applied(), LogIndex(3));
    again.engine.shutdown().await;
}

// conformance: state-machine 2
#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_applied_stops_the_node_and_not_the_process() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 7).await;
    let mut status = node.engine.status();

    node.engine
        .propose(0, Proposed { data: EntryData::from_bytes(vec![0; 16].into()), merges: false }, |_| true)
        .unwrap();

    let failed = status.wait_for(|status| status.failed.is_some()).await.unwrap().clone();
    assert!(failed.failed.unwrap().contains("not 8 bytes"));
    assert_eq!(failed.serving, None);
    sleep(Duration::from_millis(10)).await;
    assert!(node.engine.propose(0, command(1), |_| true).is_err());
    assert!(!node.engine.prove().given().await);
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, seed).await;
            let begin = tokio::time::Instant::now();
            let mut trace = Vec::new();
            for round in 0..4 {
                let epoch = node.serves_from(round).await.epoch;
                for number in 0..20 {
                    node.engine.propose(epoch, command(number), |_| true).unwrap();
                }
                node.applied((round as usize + 1) * 20).await;
                trace.push((begin.elapsed(), node.machine.0.lock().unwrap().applied.clone()));
                node.engine.step_down().await;
            }
            node.engine.shutdown().await;
            trace
        })
    };

    assert_eq!(trace(11), trace(11));
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_the_page_store_ends_by_itself_is_followed_by_another_without_a_gap() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 21).await;
    let phase = node.disk.lock().phase.clone();
    for number in 1..=3 {
        node.engine.propose(0, command(number), |_| true).unwrap();
    }
    node.applied(3).await;
    // In the queue when the epoch ends.
    phase.send_replace(LogPhase::Busy);
    node.engine.propose(0, command(4), |_| true).unwrap();

    node.hooks.end_this_epoch(0, None);

    let serving = node.serves_from(1).await;
    assert_eq!(serving, Serving { term: Term(1), epoch: 1 });
    assert_eq!(*node.hooks.ended.lock().unwrap(), [(0, None)], "it ended once");
    assert!(node.engine.propose(0, command(5), |_| true).is_err());
    phase.send_replace(LogPhase::Idle);
    node.engine.propose(1, command(6), |_| true).unwrap();
    node.applied(4).await;
    assert_eq!(node.commands(), [1, 2, 3, 6]);
    node.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_not_committed_in_time_ends_and_may_still_be_made() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 22).await;
    node.disk.lock().held = true;
    // A disk that is slow, and has much to do before the change: one that does nothing ends the epoch.
    for number in 0..100 {
        node.engine.propose(0, command(number), |_| true).unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let began = tokio::time::Instant::now();
    let disk = node.disk.clone();
    let slowly = tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            let flushed = disk.lock().pending.remove(0);
            flushed(Ok(()));
        }
    });

    let added = node.engine.add(NodeId(2), b"2".to_vec()).await;

    slowly.abort();
    assert_eq!(added, Err(ChangeError::NotCommittedYet));
    assert_eq!(began.elapsed().as_secs(), CHANGE_COMMIT_MAX.as_secs());
    assert_eq!(node.engine.remove(NodeId(2)).await, Err(ChangeError::InProgress));
    node.disk.lock().held = false;
    node.disk.flush();
    sleep(Duration::from_millis(10)).await;
    assert!(node.engine.configuration().configuration.get(NodeId(2)).is_some());
    assert_eq!(node.engine.remove(NodeId(2)).await, Ok(()));
    node.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_change_and_whoever_waits_for_it() {
    let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 23).await;
    node.disk.lock().held = true;
    let adding = node.engine.add(NodeId(2), b"2".to_vec());
    let refused = node.engine.add(NodeId(3), b"3".to_vec()).await;
    assert_eq!(refused, Err(ChangeError::InProgress));

    tokio::join!(
        async { assert!(matches!(adding.await, Err(ChangeError::Stopped(_) | ChangeError::LeadershipLost))) },
        node.engine.shutdown()
    );
}

#[test]
fn an_epoch_ends_with_its_runtime_and_what_was_never_handed_on_is_refused() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let node = runtime.block_on(async {
        let node = start(TestDisk::bootstrapped(), NO_SNAPSHOTS, 24).await;
        node.disk.lock().held = true;
        for number in 1..=3 {
            node.engine.propose(0, command(number), |_| true).unwrap();
        }
        sleep(Duration::from_millis(10)).await;
        let phase = node.disk.lock().phase.clone();
        phase.send_replace(LogPhase::Busy);
        for number in 4..=5 {
            node.engine.propose(0, command(number), |_| true).unwrap();
        }
        node
    });

    drop(runtime);

    assert_eq!(*node.hooks.ended.lock().unwrap(), [(0, Some(4))]);
    assert!(node.engine.propose(0, command(6), |_| true).is_err());
}
