//! Payloads that are not in memory, on their way to segments and back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::directory::Directory;
use super::file_disk::FileDisk;
use super::load::{LoadOptions, load};
use super::log::{Done, LogOptions, LogRequest, LogWriter, Progress};
use super::metadata::Metadata;
use super::recover::{Forgotten, describe_last_entry, recover};
use super::vault::write_metadata;
use crate::pages::testing::FaultyDisk;
use crate::pages::{PageFile, PageSpace};
use crate::types::clock::SystemWallClock;
use crate::types::config::PAGE_SIZE;
use crate::types::payload::{PayloadKeeper, PayloadStore};
use crate::types::tasks::InlinePool;
use crate::types::{Chunk, Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};

fn page_file() -> (FaultyDisk, Arc<PageFile>) {
    let disk = FaultyDisk::default();
    let space = PageSpace::on_disk(Arc::new(disk.clone()), 0).unwrap();
    (disk, space.file().unwrap().clone())
}

fn content(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes / 8).flat_map(|word| ((word * 31 + seed) as u64).to_le_bytes()).collect()
}

fn kept(file: &Arc<PageFile>, content: &[u8]) -> EntryData {
    let mut keeper = PayloadKeeper::new(file.clone(), content.len());
    keeper.push(content).unwrap();
    keeper.finish()
}

fn command(data: EntryData) -> Entry {
    Entry { term: Term(1), kind: EntryKind::Command, data, proposals: None }
}

fn writer(directory: &Directory) -> LogWriter {
    let mut options = LogOptions::new(Box::new(|_| {}), Arc::new(InlinePool));
    options.segment_bytes = 1 << 20;
    let metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };
    write_metadata(directory, &metadata).unwrap();
    let lock = directory.lock().unwrap();
    LogWriter::new(directory.clone(), lock, LogIndex(1), options)
}

fn told(answers: &mpsc::Sender<Option<String>>) -> Done {
    let answers = answers.clone();
    Box::new(move |result| answers.send(result.err().map(|error| error.to_string())).unwrap())
}

#[test]
fn entries_go_to_segments_and_come_back_whether_they_are_in_memory_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&FileDisk, folder.path()).unwrap();
    let (_, file) = page_file();
    let contents: Vec<Vec<u8>> =
        [16, 3 << 20, 70_000, 64 * 1024, 600_000].into_iter().map(|bytes| content(bytes, bytes)).collect();
    let mut writer = writer(&directory);
    let (answers, answer) = mpsc::channel();
    for (position, content) in contents.iter().enumerate() {
        let memory = EntryData::from_bytes(Bytes::copy_from_slice(content));
        let data = if position % 2 == 0 { memory } else { kept(&file, content) };
        let first_index = LogIndex(position as u64 + 1);
        let append = LogRequest::Append { first_index, entries: vec![command(data)], done: told(&answers) };
        assert_eq!(writer.process(vec![append]), Progress::Idle);
        assert_eq!(answer.recv().unwrap(), None);
    }
    drop(writer);

    for payloads in [None, Some(page_file().1)] {
        let is_stored = payloads.is_some();
        let payloads = payloads.map(|file| -> Arc<dyn PayloadStore> { file });
        let options = LoadOptions { auto_recovery: false, wall_clock: Arc::new(SystemWallClock), payloads };
        let lock = directory.lock().unwrap();
        let loaded = load(&directory, &lock, &options).unwrap();

        assert_eq!(loaded.entries.len(), contents.len());
        for (entry, content) in loaded.entries.iter().zip(&contents) {
            assert_eq!(entry.data.contiguous().unwrap(), *content);
            let in_memory: usize = entry
                .data
                .chunks()
                .iter()
                .map(|chunk| if let Chunk::Memory(bytes) = chunk { bytes.len() } else { 0 })
                .sum();
            assert!(!is_stored || in_memory < PAGE_SIZE, "{in_memory}");
        }
    }
}

#[test]
fn the_end_of_a_log_is_found_and_a_configuration_put_behind_it_without_keeping_payloads() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&FileDisk, folder.path()).unwrap();
    let mut writer = writer(&directory);
    let (answers, answer) = mpsc::channel();
    let entries =
        [3 << 20, 16].map(|bytes| command(EntryData::from_bytes(content(bytes, 1).into()))).to_vec();
    writer.process(vec![LogRequest::Append { first_index: LogIndex(1), entries, done: told(&answers) }]);
    assert_eq!(answer.recv().unwrap(), None);
    drop(writer);
    let options =
        |payloads| LoadOptions { auto_recovery: false, wall_clock: Arc::new(SystemWallClock), payloads };
    let forgetting = options(Some(Arc::new(Forgotten)));

    assert_eq!(describe_last_entry(&directory, &forgetting).unwrap(), (LogIndex(2), Term(1)));
    let alone = Server { id: NodeId(1), address: b"1".to_vec(), role: Role::Voter };
    let lock = directory.lock().unwrap();
    recover(&directory, &lock, &forgetting, &Configuration::new(vec![alone]).unwrap()).unwrap();

    let loaded = load(&directory, &lock, &options(None)).unwrap();
    let lengths: Vec<usize> = loaded.entries.iter().map(|entry| entry.data.len()).collect();
    assert_eq!(lengths[..2], [3 << 20, 16]);
    assert_eq!(loaded.entries[2].kind, EntryKind::Change);
}

#[test]
fn an_entry_that_cannot_be_read_is_never_acknowledged_nor_anything_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(&FileDisk, folder.path()).unwrap();
    let (disk, file) = page_file();
    let mut writer = writer(&directory);
    let (answers, answer) = mpsc::channel();
    let append = |index, data| {
        let done = told(&answers);
        LogRequest::Append { first_index: LogIndex(index), entries: vec![command(data)], done }
    };
    let small = || EntryData::from_bytes(Bytes::from_static(&[7; 16]));
    assert_eq!(writer.process(vec![append(1, small())]), Progress::Idle);
    assert_eq!(answer.recv().unwrap(), None);

    let lost = kept(&file, &content(1 << 20, 3));
    disk.0.read.store(libc::EIO, Ordering::SeqCst);
    let progress = writer.process(vec![append(2, lost), append(3, small())]);
    assert_eq!(progress, Progress::Idle, "a later try cannot succeed");
    disk.0.read.store(0, Ordering::SeqCst);
    writer.process(vec![append(4, small()), append(5, small())]);

    for _ in 0..4 {
        assert!(answer.recv().unwrap().is_some_and(|error| error.contains("Input/output error")));
    }
    drop(writer);
    let options = LoadOptions { auto_recovery: false, wall_clock: Arc::new(SystemWallClock), payloads: None };
    let lock = directory.lock().unwrap();
    let loaded = load(&directory, &lock, &options).unwrap();
    assert_eq!((loaded.entries.len(), loaded.metadata.term), (1, Term(1)));
}
