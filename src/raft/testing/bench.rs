//! One node driven by hand through its raft connections. The node is number 1; the hand plays nodes 2 and 3, which
//! are dialled at "2" and "3".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{InlinePool, TestDisk, TestHooks, TestMachine};
use crate::peers::link::connect_bytes;
use crate::peers::message::{
    AppendEntries, AppendEntriesResult, EntryHeader, InstallSnapshot, Message, RequestVote, RequestVoteResult,
};
use crate::peers::reader::{MessageReader, Received};
use crate::raft::{Engine, EngineOptions, SnapshotPace, SnapshotPolicy};
use crate::transport::client_stream::ClientStream;
use crate::transport::dial::{Dial, Stream};
use crate::types::random::RandomSource;
use crate::types::tasks::Tasks;
use crate::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};

/// What the node sends, by the address it dialled.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) sent: mpsc::UnboundedSender<(Vec<u8>, Received)>,
    pub(crate) dialled: Arc<Mutex<BTreeMap<Vec<u8>, usize>>>,
    /// Where nobody listens; empty: the hand does everywhere.
    gone: &'static [u8],
}

impl Dial for Hand {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
        if address == self.gone {
            return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
        }
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

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) disk: TestDisk,
    pub(crate) machine: TestMachine,
    pub(crate) sent: mpsc::UnboundedReceiver<(Vec<u8>, Received)>,
    pub(crate) hand: Hand,
}

pub(crate) fn servers(roles: &[Role]) -> Configuration {
    let servers = roles.iter().enumerate().map(|(place, role)| {
        let id = place as u64 + 1;
        Server { id: NodeId(id), address: id.to_string().into_bytes(), role: *role }
    });
    Configuration::new(servers.collect()).unwrap()
}

pub(crate) fn change(term: u64, configuration: &Configuration) -> Entry {
    let data = EntryData::from_bytes(configuration.encode());
    Entry { term: Term(term), kind: EntryKind::Change, data, proposals: None }
}

pub(crate) fn number(term: u64, number: u64) -> Entry {
    let data = EntryData::from_bytes(number.to_le_bytes().to_vec().into());
    Entry { term: Term(term), kind: EntryKind::Command, data, proposals: None }
}

/// A follower with these entries, in this term.
pub(crate) async fn node(entries: Vec<Entry>, term: u64) -> Bench {
    node_without(b"", entries, term).await
}

/// The same; nobody listens at the address `gone`.
pub(crate) async fn node_without(gone: &'static [u8], entries: Vec<Entry>, term: u64) -> Bench {
    let disk = TestDisk::default();
    disk.lock().term = Term(term);
    disk.lock().first = LogIndex(1);
    disk.lock().entries = entries;
    start(disk, gone).await
}

pub(crate) async fn node_on(disk: TestDisk) -> Bench {
    start(disk, b"").await
}

async fn start(disk: TestDisk, gone: &'static [u8]) -> Bench {
    let (sent, receiver) = mpsc::unbounded_channel();
    let hand = Hand { sent, dialled: Arc::default(), gone };
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

pub(crate) async fn follower() -> Bench {
    node(vec![change(1, &servers(&[Role::Voter; 3]))], 1).await
}

impl Bench {
    /// A raft connection of node `id`.
    pub(crate) fn connect(&self, id: u64) -> DuplexStream {
        self.connect_from(id, &id.to_string())
    }

    pub(crate) fn connect_from(&self, id: u64, address: &str) -> DuplexStream {
        let (ours, theirs) = duplex(1 << 20);
        let (read, write) = tokio::io::split(theirs).split();
        let detached = <(ReadHalf<_>, WriteHalf<_>)>::detach(read, write);
        let address = Bytes::copy_from_slice(address.as_bytes());
        self.engine.peers().accept(NodeId(id), address, Bytes::new(), detached);
        ours
    }

    pub(crate) async fn answer(&mut self) -> (String, Message) {
        let next = timeout(Duration::from_secs(60), self.sent.recv()).await.expect("an answer").unwrap();
        (String::from_utf8(next.0).unwrap(), next.1.message)
    }

    /// The next answer to an append or a snapshot; votes of the node's own are passed over.
    pub(crate) async fn append_answer(&mut self) -> (u64, u64, u64) {
        loop {
            if let (_, Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index })) =
                self.answer().await
            {
                return (term.0, rejected.0, last_index.0);
            }
        }
    }

    pub(crate) async fn vote_answer(&mut self) -> (u64, bool, bool) {
        loop {
            if let (_, Message::RequestVoteResult(RequestVoteResult { term, granted, is_pre_vote })) =
                self.answer().await
            {
                return (term.0, granted, is_pre_vote.unwrap());
            }
        }
    }

    pub(crate) async fn silent(&mut self) -> bool {
        timeout(Duration::from_millis(100), self.sent.recv()).await.is_err()
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.machine.0.lock().unwrap().commands.clone()
    }

    pub(crate) fn terms(&self) -> Vec<u64> {
        self.disk.lock().entries.iter().map(|entry| entry.term.0).collect()
    }
}

pub(crate) async fn send(stream: &mut DuplexStream, message: &Message, payload: &[u8]) {
    stream.write_all(&message.encode()).await.unwrap();
    stream.write_all(payload).await.unwrap();
}

pub(crate) async fn append(
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

pub(crate) fn vote(
    term: u64,
    candidate: u64,
    last: (u64, u64),
    disrupts_leader: bool,
    is_pre_vote: bool,
) -> Message {
    Message::RequestVote(RequestVote {
        term: Term(term),
        candidate: NodeId(candidate),
        last_index: LogIndex(last.0),
        last_term: Term(last.1),
        disrupts_leader,
        is_pre_vote,
    })
}

/// Answers fences with this last index, until something else comes.
pub(crate) async fn play(node: &mut Bench, follower: &mut DuplexStream, last: u64) -> AppendEntries {
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

pub(crate) async fn answer(follower: &mut DuplexStream, term: u64, rejected: u64, last: u64) {
    let (term, rejected, last_index) = (Term(term), LogIndex(rejected), LogIndex(last));
    let result = AppendEntriesResult { term, rejected, last_index };
    send(follower, &Message::AppendEntriesResult(result), &[]).await;
}

/// A leader of term 2 with five entries of term 1 and its barrier, index 6.
pub(crate) async fn leader() -> (Bench, DuplexStream) {
    let mut entries = vec![change(1, &servers(&[Role::Voter; 2]))];
    entries.extend((0..4).map(|value| number(1, value)));
    elected(node(entries, 1).await).await
}

/// Node 2 votes for it.
pub(crate) async fn elected(mut node: Bench) -> (Bench, DuplexStream) {
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

/// Waits until the node closes the connection.
pub(crate) async fn closed(stream: &mut DuplexStream) -> bool {
    // A duplex refuses what is written to a side that is gone.
    for _ in 0..100 {
        if stream.write_all(&[0; 8]).await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

pub(crate) fn snapshot(term: u64, index: u64, last_term: u64, content: &[u8]) -> Message {
    Message::InstallSnapshot(InstallSnapshot {
        term: Term(term),
        index: LogIndex(index),
        last_term: Term(last_term),
        configuration_index: LogIndex(1),
        configuration: servers(&[Role::Voter; 3]),
        content_bytes: content.len() as u64,
    })
}
