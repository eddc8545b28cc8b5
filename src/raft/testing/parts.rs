//! A directory, a log thread, a pool and a replicated state in memory.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::raft::machine::{DecodedState, Decoder, Machine, NotApplied, SnapshotContent};
use crate::raft::{EpochHooks, LogPhase, LogSender, LogSignals, Proposed, SnapshotPosition};
use crate::raft::{ReceivedSnapshot, SnapshotStore};
use crate::storage::error::StorageError;
use crate::storage::load::Loaded;
use crate::storage::log::{Done, LogRequest};
use crate::storage::metadata::Metadata;
use crate::storage::snapshot::Sealed;
use crate::storage::snapshot_meta::{SnapshotFile, SnapshotMeta};
use crate::storage::vault::VaultRequest;
use crate::types::space::LogSpace;
pub(crate) use crate::types::tasks::InlinePool;
use crate::types::{Configuration, Entry, EntryData, LogIndex, NodeId, ProposalRange, Role, Server, Term};

#[derive(Default)]
pub(crate) struct DiskState {
    pub(crate) term: Term,
    pub(crate) voted_for: NodeId,
    pub(crate) votes: Vec<(u64, u64)>,
    /// How long it takes to store one.
    pub(crate) vote_takes: Duration,
    pub(crate) first: LogIndex,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<(SnapshotPosition, Vec<u8>)>,
    /// Appends wait for `flush`.
    pub(crate) held: bool,
    pub(crate) pending: Vec<Done>,
    pub(crate) tokens: Vec<ProposalRange>,
    /// What the log says that it does.
    pub(crate) phase: watch::Sender<LogPhase>,
    /// Whether it says that writing fails.
    pub(crate) fails: watch::Sender<bool>,
    /// Whether it is full.
    pub(crate) space: TestSpace,
}

/// Space that can be taken away.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestSpace(pub(crate) Arc<AtomicBool>);

impl LogSpace for TestSpace {
    fn takes(&self, _bytes: u64) -> bool {
        !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A directory in memory.
#[derive(Clone, Default)]
pub(crate) struct TestDisk(Arc<Mutex<DiskState>>);

impl TestDisk {
    /// A directory as bootstrap leaves it: one voter.
    pub(crate) fn bootstrapped() -> TestDisk {
        let configuration = Configuration::new(vec![Server {
            id: NodeId(1),
            address: b"127.0.0.1:9001".to_vec(),
            role: Role::Voter,
        }]);
        let entry = Entry {
            term: Term(1),
            kind: crate::types::EntryKind::Change,
            data: EntryData::from_bytes(configuration.unwrap().encode()),
            proposals: None,
        };
        let disk = TestDisk::default();
        disk.lock().term = Term(1);
        disk.lock().first = LogIndex(1);
        disk.lock().entries = vec![entry];
        disk
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    pub(crate) fn loaded(&self) -> Loaded {
        let state = self.lock();
        let strip = |entry: &Entry| Entry { proposals: None, ..entry.clone() };
        Loaded {
            metadata: Metadata { version: 1, term: state.term, voted_for: state.voted_for },
            snapshot: state.snapshot.as_ref().map(|(position, bytes)| SnapshotFile {
                data_name: format!("snapshot-{}-{}-0", position.term, position.index),
                data_bytes: bytes.len() as u64,
                meta: SnapshotMeta {
                    term: position.term,
                    index: position.index,
                    timestamp: 0,
                    configuration: Configuration::clone(&position.configuration),
                    configuration_index: position.configuration_index,
                },
            }),
            first_index: state.first,
            entries: state.entries.iter().map(strip).collect(),
            set_aside: Vec::new(),
        }
    }

    pub(crate) fn sender(&self) -> LogSender {
        let disk = self.clone();
        let signals = {
            let state = disk.lock();
            LogSignals {
                phase: state.phase.subscribe(),
                fails: state.fails.subscribe(),
                space: Arc::new(state.space.clone()),
            }
        };
        let send = move |request| {
            if let Some(done) = disk.perform(request) {
                done(Ok(()));
            }
        };
        let disk = self.clone();
        let vault = move |request| {
            if let VaultRequest::Store { term, voted_for, done } = request {
                let mut state = disk.lock();
                state.term = term;
                state.voted_for = voted_for;
                state.votes.push((term.0, voted_for.0));
                let takes = state.vote_takes;
                drop(state);
                if takes.is_zero() {
                    return done(Ok(()));
                }
                tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    done(Ok(()));
                });
            }
        };
        LogSender::new(send, vault, signals)
    }

    fn perform(&self, request: LogRequest) -> Option<Done> {
        let mut state = self.lock();
        match request {
            LogRequest::Append { first_index, entries, done } => {
                if state.entries.is_empty() {
                    state.first = first_index;
                }
                assert_eq!(state.first.plus(state.entries.len() as u64), first_index);
                state.tokens.extend(entries.iter().filter_map(|entry| entry.proposals));
                state.entries.extend(entries);
                if state.held {
                    state.pending.push(done);
                    return None;
                }
                Some(done)
            }
            LogRequest::TruncateFrom { index, done } => {
                let keep = index.0.saturating_sub(state.first.0) as usize;
                state.entries.truncate(keep);
                Some(done)
            }
            LogRequest::AddSnapshot { mut snapshot, trailing, done } => {
                let index = snapshot.index();
                drop(state);
                snapshot.name_data().unwrap();
                state = self.lock();
                let first = LogIndex(index.0.saturating_sub(trailing) + 1).max(state.first);
                let count = (first.0 - state.first.0) as usize;
                let count = count.min(state.entries.len());
                state.entries.drain(..count);
                state.first = first;
                Some(done)
            }
            LogRequest::Replace { mut snapshot, done } => {
                let index = snapshot.index();
                assert!(state.first.plus(state.entries.len() as u64) <= index, "{index} is in the log");
                state.entries.clear();
                state.first = index.next();
                drop(state);
                snapshot.name_data().unwrap();
                Some(done)
            }
        }
    }

    /// Reports all appends that were held back; how many.
    pub(crate) fn flush(&self) -> usize {
        let pending = std::mem::take(&mut self.lock().pending);
        let count = pending.len();
        for done in pending {
            done(Ok(()));
        }
        count
    }
}

impl SnapshotStore for TestDisk {
    fn write(
        &self,
        position: &SnapshotPosition,
        content: &dyn SnapshotContent,
    ) -> Result<Box<dyn Sealed>, String> {
        let mut bytes = Vec::new();
        content.write_to(&mut bytes).map_err(|error| error.to_string())?;
        assert_eq!(bytes.len() as u64, content.content_size());
        Ok(Box::new(TestSealed { disk: self.clone(), position: position.clone(), bytes }))
    }

    fn open(&self, position: &SnapshotPosition) -> Result<Box<dyn Read + Send>, String> {
        match &self.lock().snapshot {
            Some((stored, bytes)) if stored == position => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            _ => Err(format!("no snapshot at {}", position.index)),
        }
    }

    fn content_bytes(&self, position: &SnapshotPosition) -> Result<u64, String> {
        match &self.lock().snapshot {
            Some((stored, bytes)) if stored == position => Ok(bytes.len() as u64),
            _ => Err(format!("no snapshot at {}", position.index)),
        }
    }

    fn receive(
        &self,
        position: &SnapshotPosition,
        content_bytes: u64,
    ) -> Result<Box<dyn ReceivedSnapshot>, String> {
        Ok(Box::new(TestReceived {
            disk: self.clone(),
            position: position.clone(),
            content_bytes,
            bytes: vec![],
        }))
    }
}

struct TestReceived {
    disk: TestDisk,
    position: SnapshotPosition,
    content_bytes: u64,
    bytes: Vec<u8>,
}

impl ReceivedSnapshot for TestReceived {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, String> {
        let TestReceived { disk, position, content_bytes, bytes } = *self;
        if bytes.len() as u64 != content_bytes {
            return Err(format!("{} bytes of {content_bytes}", bytes.len()));
        }
        Ok(Box::new(TestSealed { disk, position, bytes }))
    }
}

/// A snapshot that is in the directory once its data has a name.
pub(crate) struct TestSealed {
    pub(crate) disk: TestDisk,
    pub(crate) position: SnapshotPosition,
    pub(crate) bytes: Vec<u8>,
}

impl Sealed for TestSealed {
    fn index(&self) -> LogIndex {
        self.position.index
    }

    fn read_back(&self) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(io::Cursor::new(self.bytes.clone())))
    }

    fn name_meta(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn name_data(&mut self) -> Result<(), StorageError> {
        self.disk.lock().snapshot = Some((self.position.clone(), self.bytes.clone()));
        Ok(())
    }
}

/// What a test machine holds: a number per command, and who proposed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MachineState {
    pub(crate) commands: Vec<u64>,
    pub(crate) applied: Vec<(u64, Option<ProposalRange>)>,
    /// Whether there is no space for what is applied.
    pub(crate) no_space: bool,
}

/// Collects commands.
#[derive(Clone, Default)]
pub(crate) struct TestMachine(pub(crate) Arc<Mutex<MachineState>>);

impl Machine for TestMachine {
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), NotApplied> {
        let mut state = self.0.lock().unwrap();
        if state.no_space {
            return Err(NotApplied::NoSpace("no space".to_owned()));
        }
        state.applied.push((index.0, entry.proposals));
        if entry.kind == crate::types::EntryKind::Command {
            let bytes = entry.data.contiguous().map_err(|error| NotApplied::Refused(error.to_string()))?;
            // What follows the number makes it large.
            let number = bytes.first_chunk().filter(|_| bytes.len() == 8 || bytes.len() >= 1 << 20);
            let number = number.ok_or_else(|| NotApplied::Refused("not 8 bytes".to_owned()))?;
            state.commands.push(u64::from_le_bytes(*number));
        }
        Ok(())
    }

    fn may_wait(&self, _entry: &Entry) -> bool {
        false
    }

    fn pin(&mut self) -> Box<dyn SnapshotContent> {
        Box::new(TestContent(self.0.lock().unwrap().commands.clone()))
    }

    fn restore(&mut self, state: DecodedState) -> Result<(), String> {
        self.0.lock().unwrap().commands = *state.downcast::<Vec<u64>>().unwrap();
        Ok(())
    }

    fn decoder(&self) -> Arc<dyn Decoder> {
        Arc::new(TestDecoder)
    }
}

struct TestDecoder;

impl Decoder for TestDecoder {
    fn decode(&self, mut reader: Box<dyn Read + Send>) -> Result<DecodedState, String> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let commands: Vec<u64> =
            bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect();
        Ok(Box::new(commands))
    }
}

struct TestContent(Vec<u64>);

impl SnapshotContent for TestContent {
    fn content_size(&self) -> u64 {
        self.0.len() as u64 * 8
    }

    fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|number| writer.write_all(&number.to_le_bytes()))
    }
}

/// Epochs as the page store counts them, and how each ended.
#[derive(Default)]
pub(crate) struct TestHooks {
    pub(crate) epoch: watch::Sender<u64>,
    pub(crate) ended: Mutex<Vec<(u64, Option<u64>)>>,
}

impl EpochHooks for TestHooks {
    fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    fn end_this_epoch(&self, epoch: u64, refused_from: Option<u64>) {
        let mut ended = self.ended.lock().unwrap();
        if *self.epoch.borrow() == epoch {
            ended.push((epoch, refused_from));
            self.epoch.send_modify(|epoch| *epoch += 1);
        }
    }
}

/// Payload of a numbered command.
pub(crate) fn command(number: u64) -> Proposed {
    Proposed { data: EntryData::from_bytes(number.to_le_bytes().to_vec().into()), merges: false }
}

/// Reaches nobody.
pub(crate) struct NoDial;

impl crate::transport::dial::Dial for NoDial {
    fn dial(
        &self,
        _address: Vec<u8>,
    ) -> futures_util::future::BoxFuture<'static, io::Result<crate::transport::dial::Stream>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}
