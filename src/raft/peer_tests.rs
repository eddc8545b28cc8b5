//! One node driven by hand through its raft connections, as raft-wire 5, 6 and 8 have it. The node is number 1; the hand
//! plays nodes 2 and 3, which are dialled at "2" and "3".

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::snapshot::{SnapshotPace, SnapshotPosition};
use super::*;
use crate::peers::link::connect_bytes;
use crate::peers::message::{
    AppendEntries, AppendEntriesResult, EntryHeader, InstallSnapshot, Message, RequestVote,
    RequestVoteResult, TimeoutNow,
};
use crate::peers::reader::{MessageReader, Received};
use crate::raft::testing::{InlinePool, TestDisk, TestHooks, TestMachine};
use crate::transport::client_stream::ClientStream;
use crate::transport::dial::Stream;
use crate::types::{Entry, EntryData, EntryKind, Role, Server};

/// What the node sends, by the address it dialled.
#[derive(Clone)]
struct Hand {
    sent: mpsc::UnboundedSender<(Vec<u8>, Received)>,
    dialled: Arc<Mutex<BTreeMap<Vec<u8>, usize>>>,
}

impl Dial for Hand {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
        let hand = self.clone();
        Box::pin(async move {
            *hand.dialled.lock().unwrap().entry(address.clone()).or_default() += 1;
            let (ours, mut theirs) = duplex(1 << 20);
            let (read, write) = tokio::io::split(ours);
            tokio::spawn(async move {
                let mut hello = vec![0; connect_bytes(NodeId(1), b"1").len()];
                theirs.read_exact(&mut hello).await.unwrap();
                assert_eq!(hello, connect_bytes(NodeId(1), b"1"));
                let mut reader = MessageReader::new(theirs, Bytes::new(), None);
                while let Ok(Some(received)) = reader.next().await {
                    let _ = hand.sent.send((address.clone(), received));
                }
            });
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        })
    }
}

pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) disk: TestDisk,
    machine: TestMachine,
    sent: mpsc::UnboundedReceiver<(Vec<u8>, Received)>,
    hand: Hand,
}

pub(super) fn servers(roles: &[Role]) -> Configuration {
    let servers = roles.iter().enumerate().map(|(place, role)| {
        let id = place as u64 + 1;
        Server { id: NodeId(id), address: id.to_string().into_bytes(), role: *role }
    });
    Configuration::new(servers.collect()).unwrap()
}

pub(super) fn change(term: u64, configuration: &Configuration) -> Entry {
    let data = EntryData::from_bytes(configuration.encode());
    Entry { term: Term(term), kind: EntryKind::Change, data, proposals: None }
}

pub(super) fn number(term: u64, number: u64) -> Entry {
    let data = EntryData::from_bytes(number.to_le_bytes().to_vec().into());
    Entry { term: Term(term), kind: EntryKind::Command, data, proposals: None }
}

/// A follower with these entries, in this term.
pub(super) async fn node(entries: Vec<Entry>, term: u64) -> Bench {
    let disk = TestDisk::default();
    disk.lock().term = Term(term);
    disk.lock().first = LogIndex(1);
    disk.lock().entries = entries;
    node_on(disk).await
}

async fn node_on(disk: TestDisk) -> Bench {
    let (sent, receiver) = mpsc::unbounded_channel();
    let hand = Hand { sent, dialled: Arc::default() };
    let machine = TestMachine::default();
    let options = EngineOptions {
        id: NodeId(1),
        address: b"1".to_vec(),
        heartbeat_interval: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        snapshot_policy: SnapshotPolicy {
            threshold_entries: u64::MAX,
            trailing_entries: 0,
            pace: SnapshotPace::Entries,
        },
        consensus: Tasks::new(tokio::runtime::Handle::current()),
        pool: Arc::new(InlinePool),
        random: Arc::new(RandomSource::from_seed(1)),
        log: disk.sender(),
        loaded: disk.loaded(),
        snapshots: Arc::new(disk.clone()),
        machine: Box::new(machine.clone()),
        hooks: Arc::new(TestHooks::default()),
        dial: Arc::new(hand.clone()),
        payloads: None,
    };
    let engine = Engine::start(options).await.unwrap();
    Bench { engine, disk, machine, sent: receiver, hand }
}

pub(super) async fn follower() -> Bench {
    node(vec![change(1, &servers(&[Role::Voter; 3]))], 1).await
}

impl Bench {
    /// A raft connection of node `id`.
    pub(super) fn connect(&self, id: u64) -> DuplexStream {
        self.connect_from(id, &id.to_string())
    }

    pub(super) fn connect_from(&self, id: u64, address: &str) -> DuplexStream {
        let (ours, theirs) = duplex(1 << 20);
        let (read, write) = tokio::io::split(theirs);
        let address = Bytes::copy_from_slice(address.as_bytes());
        self.engine.peers().accept(NodeId(id), address, Bytes::new(), <(_, _)>::detach(read, write));
        ours
    }

    pub(super) async fn answer(&mut self) -> (String, Message) {
        let next = timeout(Duration::from_secs(60), self.sent.recv()).await.expect("an answer").unwrap();
        (String::from_utf8(next.0).unwrap(), next.1.message)
    }

    /// The next answer to an append or a snapshot; votes of the node's own are passed over.
    pub(super) async fn append_answer(&mut self) -> (u64, u64, u64) {
        loop {
            if let (_, Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index })) =
                self.answer().await
            {
                return (term.0, rejected.0, last_index.0);
            }
        }
    }

    async fn vote_answer(&mut self) -> (u64, bool, bool) {
        loop {
            if let (_, Message::RequestVoteResult(RequestVoteResult { term, granted, is_pre_vote })) =
                self.answer().await
            {
                return (term.0, granted, is_pre_vote.unwrap());
            }
        }
    }

    pub(super) async fn silent(&mut self) -> bool {
        timeout(Duration::from_millis(100), self.sent.recv()).await.is_err()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.machine.0.lock().unwrap().commands.clone()
    }

    pub(super) fn terms(&self) -> Vec<u64> {
        self.disk.lock().entries.iter().map(|entry| entry.term.0).collect()
    }
}

pub(super) async fn send(stream: &mut DuplexStream, message: &Message, payload: &[u8]) {
    stream.write_all(&message.encode()).await.unwrap();
    stream.write_all(payload).await.unwrap();
}

pub(super) async fn append(
    stream: &mut DuplexStream,
    term: u64,
    previous: (u64, u64),
    commit: u64,
    entries: &[Entry],
) {
    let headers = entries.iter().map(|entry| EntryHeader {
        term: entry.term,
        kind: entry.kind,
        bytes: entry.data.len() as u32,
    });
    let message = Message::AppendEntries(AppendEntries {
        term: Term(term),
        previous_index: LogIndex(previous.0),
        previous_term: Term(previous.1),
        commit: LogIndex(commit),
        entries: headers.collect(),
    });
    let payload: Vec<u8> =
        entries.iter().flat_map(|entry| entry.data.contiguous().unwrap().to_vec()).collect();
    send(stream, &message, &payload).await;
}

fn vote(term: u64, candidate: u64, last: (u64, u64), disrupts_leader: bool, is_pre_vote: bool) -> Message {
    Message::RequestVote(RequestVote {
        term: Term(term),
        candidate: NodeId(candidate),
        last_index: LogIndex(last.0),
        last_term: Term(last.1),
        disrupts_leader,
        is_pre_vote,
    })
}

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
    assert!(timeout(Duration::from_secs(1), leader.read(&mut byte)).await.is_err());
    assert_eq!(node.hand.dialled.lock().unwrap().keys().collect::<Vec<_>>(), [b"elsewhere"]);
}

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
    assert_eq!(node.vote_answer().await, (7, true, false));
    assert_eq!(node.disk.lock().votes.last(), Some(&(7, 9)), "the vote is on the disk");
    send(&mut candidate, &vote(7, 3, (5, 5), true, false), &[]).await;
    assert_eq!(node.vote_answer().await, (7, false, false), "one vote in a term");
}

// conformance: raft-wire 20 (better: a candidate with an old term learns the higher one)
#[tokio::test(start_paused = true)]
async fn a_pre_vote_promises_nothing() {
    let mut node = node(vec![change(1, &servers(&[Role::Voter; 3])), number(2, 10)], 3).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
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

/// Answers fences with this last index, until something else comes.
async fn play(node: &mut Bench, follower: &mut DuplexStream, last: u64) -> AppendEntries {
    loop {
        let (to, message) = node.answer().await;
        if to != "2" {
            continue;
        }
        let Message::AppendEntries(append) = message else { continue };
        if append.previous_index.0 < 1 << 63 {
            return append;
        }
        answer(follower, append.term.0, append.previous_index.0, last).await;
    }
}

async fn answer(follower: &mut DuplexStream, term: u64, rejected: u64, last: u64) {
    let (term, rejected, last_index) = (Term(term), LogIndex(rejected), LogIndex(last));
    let result = AppendEntriesResult { term, rejected, last_index };
    send(follower, &Message::AppendEntriesResult(result), &[]).await;
}

/// A leader of term 2 with five entries of term 1 and its barrier, index 6.
async fn leader() -> (Bench, DuplexStream) {
    let mut entries = vec![change(1, &servers(&[Role::Voter; 2]))];
    entries.extend((0..4).map(|value| number(1, value)));
    elected(node(entries, 1).await).await
}

/// Node 2 votes for it.
pub(super) async fn elected(mut node: Bench) -> (Bench, DuplexStream) {
    let mut follower = node.connect(2);
    loop {
        if let (_, Message::RequestVote(request)) = node.answer().await {
            let (term, is_pre_vote) = (request.term, Some(request.is_pre_vote));
            let granted = RequestVoteResult { term, granted: true, is_pre_vote };
            send(&mut follower, &Message::RequestVoteResult(granted), &[]).await;
            if !request.is_pre_vote {
                return (node, follower);
            }
        }
    }
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
    answer(&mut stranger, 12, 0, 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.engine.current_term(), Term(12), "the term of an AppendEntriesResult is adopted");
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

/// Waits until the node closes the connection.
pub(super) async fn closed(stream: &mut DuplexStream) -> bool {
    // A duplex refuses what is written to a side that is gone.
    for _ in 0..100 {
        if stream.write_all(&[0; 8]).await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
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

pub(super) fn snapshot(term: u64, index: u64, last_term: u64, content: &[u8]) -> Message {
    Message::InstallSnapshot(InstallSnapshot {
        term: Term(term),
        index: LogIndex(index),
        last_term: Term(last_term),
        configuration_index: LogIndex(1),
        configuration: servers(&[Role::Voter; 3]),
        content_bytes: content.len() as u64,
    })
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

// fast failover: a leader whose connections end and that does not answer is replaced at once
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_is_replaced_without_waiting_for_the_timer() {
    struct Gone(Hand);
    impl Dial for Gone {
        fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
            if address == b"2" {
                return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
            }
            self.0.dial(address)
        }
    }
    let (sent, mut messages) = mpsc::unbounded_channel();
    let hand = Hand { sent, dialled: Arc::default() };
    let disk = TestDisk::default();
    disk.lock().term = Term(1);
    disk.lock().first = LogIndex(1);
    disk.lock().entries = vec![change(1, &servers(&[Role::Voter; 3]))];
    let options = EngineOptions {
        id: NodeId(1),
        address: b"1".to_vec(),
        heartbeat_interval: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        snapshot_policy: SnapshotPolicy {
            threshold_entries: u64::MAX,
            trailing_entries: 0,
            pace: SnapshotPace::Entries,
        },
        consensus: Tasks::new(tokio::runtime::Handle::current()),
        pool: Arc::new(InlinePool),
        random: Arc::new(RandomSource::from_seed(1)),
        log: disk.sender(),
        loaded: disk.loaded(),
        snapshots: Arc::new(disk.clone()),
        machine: Box::new(TestMachine::default()),
        hooks: Arc::new(TestHooks::default()),
        dial: Arc::new(Gone(hand)),
        payloads: None,
    };
    let engine = Engine::start(options).await.unwrap();
    let connect = |id: u64| {
        let (ours, theirs) = duplex(1 << 16);
        let (read, write) = tokio::io::split(theirs);
        let address = Bytes::from(id.to_string());
        engine.peers().accept(NodeId(id), address, Bytes::new(), <(_, _)>::detach(read, write));
        ours
    };
    let mut leader = connect(2);
    append(&mut leader, 2, (1, 1), 0, &[]).await;
    let mut status = engine.status();
    status.wait_for(|now| now.leader.is_some()).await.unwrap();
    let mut candidate = connect(3);
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    let next = |messages: &mut mpsc::UnboundedReceiver<(Vec<u8>, Received)>| messages.try_recv().ok();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Some((_, Received { message: Message::RequestVoteResult(result), .. })) = next(&mut messages) else {
        panic!()
    };
    assert!(!result.granted, "a live leader is not unseated");

    drop(leader);
    let began = tokio::time::Instant::now();
    let asked = loop {
        if let (_, Received { message: Message::RequestVote(request), .. }) = messages.recv().await.unwrap() {
            break request;
        }
    };
    assert!(asked.is_pre_vote && began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    send(&mut candidate, &vote(3, 3, (1, 1), false, true), &[]).await;
    let granted = loop {
        if let (_, Received { message: Message::RequestVoteResult(result), .. }) =
            messages.recv().await.unwrap()
        {
            break result.granted;
        }
    };
    assert!(granted, "who sees that the leader is gone votes for another");

    // One of upstream's that last heard of the leader a moment ago refuses for up to two of its timeouts.
    let mut asked_late = 0;
    while began.elapsed() < Duration::from_millis(5800) {
        let (_, received) = messages.recv().await.unwrap();
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
