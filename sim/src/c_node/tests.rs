//! The model does what was seen on real nodes of upstream, as the specification records it.

use dqlite::peers::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, Kind, PREAMBLE_BYTES, RequestVote, RequestVoteResult,
};
use dqlite::raft::SnapshotPace;
use dqlite::types::{Entry, Server};
use tokio::time::advance;

use super::*;

fn peer(id: u64) -> Sender {
    Sender { id: NodeId(id), address: format!("10.0.0.{id}:9000").into_bytes().into() }
}

fn configuration() -> Configuration {
    let server = |id| Server { id: NodeId(id), address: peer(id).address.to_vec(), role: Role::Voter };
    Configuration::new((1..=3).map(server).collect()).unwrap()
}

/// Node 1 of three voters in term 1; the log is 25 to 27 behind a snapshot at 24.
fn node() -> CNode {
    let content = Bytes::copy_from_slice(&[1u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
    let snapshot = Snapshot {
        index: 24,
        term: Term(1),
        configuration: configuration(),
        configuration_index: 4,
        content,
    };
    let mut log = Log::behind(&snapshot);
    (25..=27).for_each(|_| log.push(Entry::barrier(Term(1))));
    let disk = Stored { term: Term(1), voted_for: 0, snapshot: Some(Arc::new(snapshot)), log };
    let policy =
        SnapshotPolicy { threshold_entries: 1000, trailing_entries: 1000, pace: SnapshotPace::Entries };
    let options = Options { seed: 1, policy, heirs: Vec::new(), fault: None };
    let node = CNode::load(peer(1), options, Arc::default(), disk);
    node.observed().quiet = true;
    node
}

fn decoded(bytes: &Bytes) -> Message {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let header = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    let kinds = [Kind::AppendEntries, Kind::AppendEntriesResult, Kind::RequestVote, Kind::RequestVoteResult];
    let kind = kinds.into_iter().find(|kind| *kind as u64 == number).unwrap_or(Kind::InstallSnapshot);
    Message::decode(kind, &bytes.slice(PREAMBLE_BYTES..PREAMBLE_BYTES + header)).unwrap()
}

/// What it has sent to node 2: entries with index before them and number, a snapshot with its index.
fn sent(node: &mut CNode) -> Vec<(&'static str, u64, usize)> {
    let outgoing = node.take_outgoing().into_iter().filter(|message| message.to.id == NodeId(2));
    let known = outgoing.filter_map(|message| match decoded(&message.bytes) {
        Message::AppendEntries(append) => Some(("entries", append.previous_index.0, append.entries.len())),
        Message::InstallSnapshot(install) => Some(("snapshot", install.index.0, 0)),
        _ => None,
    });
    known.collect()
}

async fn heartbeat(node: &mut CNode) -> Vec<(&'static str, u64, usize)> {
    advance(HEARTBEAT).await;
    for _ in 0..5 {
        node.wake();
    }
    sent(node)
}

fn answer(node: &mut CNode, rejected: u64, last: u64) {
    let result =
        AppendEntriesResult { term: node.term(), rejected: LogIndex(rejected), last_index: LogIndex(last) };
    node.handle(Event::Message(peer(2), Message::AppendEntriesResult(result), Vec::new(), Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_answers_a_follower_as_recorded() {
    // spec: raft-wire 7.3, the table, with waits for the interval where it says "once per heartbeat".
    let mut node = node();
    node.campaign(false, false);
    let vote = RequestVoteResult { term: Term(2), granted: true, is_pre_vote: Some(false) };
    node.handle(Event::Message(peer(2), Message::RequestVoteResult(vote), Vec::new(), Bytes::new()));
    assert_eq!(sent(&mut node), [("entries", 27, 1)]);
    assert_eq!(heartbeat(&mut node).await, [("entries", 27, 1)]);
    answer(&mut node, 27, 0);
    assert_eq!(heartbeat(&mut node).await, [("snapshot", 24, 0)]);
    assert_eq!(heartbeat(&mut node).await, [("entries", 28, 0)]);
    // Neither moves it.
    answer(&mut node, 27, 0);
    answer(&mut node, 0, 3);
    assert_eq!(heartbeat(&mut node).await, [("entries", 28, 0)]);
    answer(&mut node, 24, 0);
    assert_eq!(heartbeat(&mut node).await, [("snapshot", 24, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_goes_on_with_entries_as_recorded() {
    let mut node = node();
    node.campaign(false, false);
    let vote = RequestVoteResult { term: Term(2), granted: true, is_pre_vote: Some(false) };
    node.handle(Event::Message(peer(2), Message::RequestVoteResult(vote), Vec::new(), Bytes::new()));
    answer(&mut node, 27, 0);
    sent(&mut node);
    assert_eq!(heartbeat(&mut node).await, [("snapshot", 24, 0)]);
    answer(&mut node, 0, 24);
    assert_eq!(heartbeat(&mut node).await, [("entries", 24, 4)]);
    answer(&mut node, 0, 27);
    assert_eq!(sent(&mut node), [("entries", 27, 1)]);
    assert_eq!(heartbeat(&mut node).await, [("entries", 28, 0)]);
    node.propose(vec![Entry::barrier(Term(2))]);
    assert_eq!(sent(&mut node), [("entries", 28, 1)]);
    answer(&mut node, 29, 28);
    assert_eq!(heartbeat(&mut node).await, [("entries", 27, 2)]);
    assert_eq!(heartbeat(&mut node).await, [("entries", 27, 2)]);
    assert_eq!(node.failed(), None);
}

/// An append of barriers of `term` behind an entry of term 1.
fn append(term: u64, previous: u64, entries: usize, commit: u64) -> Event {
    let header = dqlite::peers::message::EntryHeader { term: Term(term), kind: EntryKind::Barrier, bytes: 8 };
    let append = AppendEntries {
        term: Term(term),
        previous_index: LogIndex(previous),
        previous_term: Term(u64::from(previous > 0)),
        commit: LogIndex(commit),
        entries: vec![header; entries],
    };
    let payload = Entry::barrier(Term(term)).data;
    Event::Message(peer(2), Message::AppendEntries(append), vec![payload; entries], Bytes::new())
}

fn results(node: &mut CNode) -> Vec<(u64, u64)> {
    let outgoing = node.take_outgoing().into_iter();
    let results = outgoing.filter_map(|message| match decoded(&message.bytes) {
        Message::AppendEntriesResult(result) => Some((result.rejected.0, result.last_index.0)),
        _ => None,
    });
    results.collect()
}

#[tokio::test(start_paused = true)]
async fn a_follower_answers_entries_when_they_are_on_its_disk_and_reports_all_that_is() {
    let mut node = node();
    // A gap, and leftovers that the message did not look at: raft-wire 5.1.
    node.handle(append(2, 40, 0, 0));
    node.handle(append(2, 24, 0, 0));
    assert_eq!(results(&mut node), [(40, 27), (0, 27)]);
    // The conflicting end goes; the answer waits for the disk.
    node.handle(append(2, 25, 2, 25));
    assert_eq!((results(&mut node), node.log.last(), node.commit), (Vec::new(), 27, 24));
    heartbeat_quietly(&mut node).await;
    assert_eq!((results(&mut node), node.commit, node.stored), (vec![(0, 27)], 25, 27));
    // What a correct leader never does ends the node: a conflict with what is committed.
    node.handle(append(3, 24, 1, 25));
    assert!(node.failed().is_some_and(|text| text.contains("committed index 25")), "{:?}", node.failed());
}

async fn heartbeat_quietly(node: &mut CNode) {
    // The disk takes its time for each write.
    for _ in 0..5 {
        advance(Duration::from_millis(100)).await;
        node.wake();
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_follower_says_nothing_to_a_snapshot_and_one_that_has_it_says_so() {
    let mut node = node();
    let install = |index| {
        let install = InstallSnapshot {
            term: Term(2),
            index: LogIndex(index),
            last_term: Term(1),
            configuration_index: LogIndex(4),
            configuration: configuration(),
            content_bytes: 16,
        };
        let content = Bytes::copy_from_slice(&[1u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
        Event::Message(peer(2), Message::InstallSnapshot(install), Vec::new(), content)
    };
    node.handle(install(26));
    assert_eq!(results(&mut node), [(0, 26)]);
    node.handle(install(60));
    node.handle(install(61));
    node.handle(append(2, 27, 1, 0));
    node.handle(append(2, 27, 0, 0));
    assert_eq!(results(&mut node), [(27, 0)]);
    heartbeat_quietly(&mut node).await;
    assert_eq!((results(&mut node), node.applied, node.log.last()), (vec![(0, 60)], 60, 60));
}

#[tokio::test(start_paused = true)]
async fn a_vote_needs_a_follower_without_a_leader_and_is_given_once() {
    let mut node = node();
    let ask = |node: &mut CNode, candidate, disrupts_leader| {
        let request = RequestVote {
            term: Term(5),
            candidate: NodeId(candidate),
            last_index: LogIndex(27),
            last_term: Term(1),
            disrupts_leader,
            is_pre_vote: false,
        };
        node.handle(Event::Message(peer(candidate), Message::RequestVote(request), Vec::new(), Bytes::new()));
        let outgoing = node.take_outgoing();
        match decoded(&outgoing[0].bytes) {
            Message::RequestVoteResult(result) => (result.term.0, result.granted),
            other => panic!("{other:?}"),
        }
    };
    node.handle(append(1, 27, 0, 0));
    node.take_outgoing();
    assert_eq!(ask(&mut node, 2, false), (1, false));
    assert_eq!(ask(&mut node, 2, true), (5, true));
    assert_eq!(ask(&mut node, 3, true), (5, false));
    assert_eq!((node.disk.term, node.disk.voted_for), (Term(5), 2));
}
