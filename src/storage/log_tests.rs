//! Tests of the log writer on a real directory, with a disk whose syncs can be made to fail.

use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, mpsc};

use bytes::Bytes;

use super::super::disk::{
    DirEntryInfo, DirectoryStatus, Disk, DiskDirectory, DiskFile, Locking, OpenMode, Stat,
};
use super::super::file_disk::FileDisk;
use super::super::metadata::Metadata;
use super::super::snapshot::{Compression, SnapshotWriter};
use super::super::snapshot_meta::SnapshotMeta;
use super::super::vault::{Vault, VaultRequest, read_metadata};
use super::*;
use crate::types::config::SEGMENTS_UNCLOSED_MAX;
use crate::types::scratch::ScratchFile;
use crate::types::tasks::{InlinePool, LaterPool};
use crate::types::{Configuration, EntryData, EntryKind, NodeId, Role, Server, Term};

/// Whether syncs fail, bytes that were written, and whether there is no space for another file.
#[derive(Clone, Debug)]
struct FaultyDisk(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicBool>);

#[derive(Debug)]
struct FaultyDirectory(Arc<dyn DiskDirectory>, FaultyDisk);

#[derive(Debug)]
struct FaultyFile(Box<dyn DiskFile>, FaultyDisk);

impl Disk for FaultyDisk {
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskDirectory>> {
        Ok(Arc::new(FaultyDirectory(FileDisk.open_directory(path)?, self.clone())))
    }
}

impl DiskDirectory for FaultyDirectory {
    fn status(&self) -> io::Result<DirectoryStatus> {
        self.0.status()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn list(&self) -> io::Result<Vec<DirEntryInfo>> {
        self.0.list()
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(self.0.open(name, mode)?, self.1.clone())))
    }
    fn create_unnamed(&self) -> io::Result<Option<Box<dyn DiskFile>>> {
        if self.1.2.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.0.create_unnamed()?;
        Ok(file.map(|file| -> Box<dyn DiskFile> { Box::new(FaultyFile(file, self.1.clone())) }))
    }
    fn create_scratch(&self) -> io::Result<Box<dyn ScratchFile>> {
        self.0.create_scratch()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn stat(&self, name: &str) -> io::Result<Stat> {
        self.0.stat(name)
    }
    fn lock(&self, name: &str) -> io::Result<Locking> {
        self.0.lock(name)
    }
}

impl FaultyFile {
    fn check(&self) -> io::Result<()> {
        if self.1.0.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.1.1.fetch_add(slices.iter().map(|slice| slice.len() as u64).sum(), Ordering::Relaxed);
        self.0.write_vectored_at(slices, offset)
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn allocate(&mut self, bytes: u64) -> io::Result<bool> {
        self.0.allocate(bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.check()?;
        self.0.sync_data()
    }
    fn sync_all(&mut self) -> io::Result<()> {
        self.check()?;
        self.0.sync_all()
    }
    fn link(&mut self, name: &str) -> io::Result<()> {
        self.0.link(name)
    }
    fn duplicate(&self) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(self.0.duplicate()?, self.1.clone())))
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

pub(super) struct Bench {
    pub(super) writer: LogWriter,
    pub(super) path: PathBuf,
    lock: DirectoryLock,
    pub(super) failing: Arc<AtomicBool>,
    pub(super) full: Arc<AtomicBool>,
    pub(super) written: Arc<AtomicU64>,
    pub(super) troubles: Arc<Mutex<Vec<LogTrouble>>>,
    answers: mpsc::Receiver<(u64, bool)>,
    sender: mpsc::Sender<(u64, bool)>,
    _keep: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new(segment_bytes: u64) -> Bench {
        Bench::over(segment_bytes, Arc::new(InlinePool))
    }

    pub(super) fn over(segment_bytes: u64, pool: Arc<dyn BlockingPool>) -> Bench {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().to_path_buf();
        let failing = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let full = Arc::new(AtomicBool::new(false));
        let disk = FaultyDisk(Arc::clone(&failing), Arc::clone(&written), Arc::clone(&full));
        let directory = Directory::open(&disk, &path).unwrap();
        let lock = directory.lock().unwrap();
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&troubles);
        let options = LogOptions {
            segment_bytes,
            segments_ahead: 2,
            pool,
            on_trouble: Box::new(move |trouble| heard.lock().unwrap().push(trouble)),
        };
        let writer = LogWriter::new(directory, lock.clone(), LogIndex(1), options);
        let (sender, answers) = mpsc::channel();
        Bench { writer, path, lock, failing, full, written, troubles, answers, sender, _keep: keep }
    }

    pub(super) fn done(&self, tag: u64) -> Done {
        let sender = self.sender.clone();
        Box::new(move |result| sender.send((tag, result.is_ok())).unwrap())
    }

    pub(super) fn append(&self, first: u64, count: u64, bytes: usize) -> LogRequest {
        let entry = |index| Entry {
            term: Term(1),
            kind: EntryKind::Command,
            data: EntryData::from_bytes(Bytes::from(vec![index as u8; bytes])),
            proposals: None,
        };
        let entries = (first..first + count).map(entry).collect();
        LogRequest::Append { first_index: LogIndex(first), entries, done: self.done(first) }
    }

    /// Another node has the directory by now.
    pub(super) fn take_lock_away(&self) {
        let name = self.path.join("dqlite-lock");
        std::fs::remove_file(&name).unwrap();
        std::fs::File::create(&name).unwrap();
    }

    /// A snapshot that has no name yet.
    pub(super) fn snapshot(&self, index: u64) -> Box<dyn Sealed> {
        let server = Server { id: NodeId(1), address: b"1".to_vec(), role: Role::Voter };
        let meta = SnapshotMeta {
            term: Term(1),
            index: LogIndex(index),
            timestamp: 7,
            configuration: Configuration::new(vec![server]).unwrap(),
            configuration_index: LogIndex(1),
        };
        let directory = Directory::open(&FileDisk, &self.path).unwrap();
        let mut writer = SnapshotWriter::create(&directory, meta, 4, Compression::Lz4, 4096).unwrap();
        writer.write_all(b"data").unwrap();
        Box::new(writer.seal().unwrap())
    }

    pub(super) fn add_snapshot(&self, index: u64, trailing: u64, tag: u64) -> LogRequest {
        LogRequest::AddSnapshot { snapshot: self.snapshot(index), trailing, done: self.done(tag) }
    }

    pub(super) fn replace(&self, index: u64, tag: u64) -> LogRequest {
        LogRequest::Replace { snapshot: self.snapshot(index), done: self.done(tag) }
    }

    pub(super) fn answers(&self) -> Vec<(u64, bool)> {
        self.answers.try_iter().collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "dqlite-lock")
            .collect();
        names.sort();
        names
    }

    pub(super) fn closed(first: u64, last: u64) -> String {
        format!("{first:016}-{last:016}")
    }

    /// First payload byte of every entry in a segment of entries with `bytes` payload bytes, by batch.
    pub(super) fn batches(&self, name: &str, bytes: usize) -> Vec<Vec<u8>> {
        let content = std::fs::read(self.path.join(name)).unwrap();
        assert_eq!(content[..8], 1u64.to_le_bytes());
        let mut offset = 8;
        let mut batches = Vec::new();
        while offset < content.len() {
            let count = u64::from_le_bytes(content[offset + 8..offset + 16].try_into().unwrap()) as usize;
            let data = offset + 16 + 16 * count;
            batches.push((0..count).map(|entry| content[data + entry * bytes]).collect());
            offset = data + count * bytes;
        }
        assert_eq!(offset, content.len());
        batches
    }
}

// conformance: disk-format 10
#[test]
fn consecutive_appends_are_one_sync_and_one_batch_each() {
    let mut bench = Bench::new(65536);
    let requests = vec![bench.append(1, 1, 8), bench.append(2, 2, 8), bench.append(4, 1, 8)];

    assert_eq!(bench.writer.process(requests), Progress::Idle);

    assert_eq!(bench.writer.statistics().syncs.load(Ordering::Relaxed), 1);
    assert_eq!(bench.answers(), [(1, true), (2, true), (4, true)]);
    bench.writer.prepare_ahead();
    assert!(bench.names().contains(&"open-3".to_owned()));
    bench.writer.close().unwrap();
    assert_eq!(bench.names(), [Bench::closed(1, 4)]);
    assert_eq!(bench.batches(&Bench::closed(1, 4), 8), [vec![1], vec![2, 3], vec![4]]);
}

// conformance: disk-format 9
#[test]
fn segments_roll_over_and_never_end_8_bytes_after_a_batch() {
    let mut bench = Bench::new(4096);
    // 8 + 32 + 4048 = 4088: 8 bytes would be left, so this needs a longer segment.
    bench.writer.process(vec![bench.append(1, 1, 4048)]);
    let length = std::fs::metadata(bench.path.join("open-1")).unwrap().len();
    assert!(length >= 4088 + 16, "{length}");
    // What would fill it but for the zeros at its end, then small, then larger than a segment.
    bench.writer.process(vec![bench.append(2, 1, 4056), bench.append(3, 1, 8), bench.append(4, 1, 20000)]);
    let last = std::fs::read(bench.path.join("open-3")).unwrap();
    let end = 8 + 32 + 20000;
    assert!(last[end..end + 16].iter().all(|byte| *byte == 0));
    assert_eq!(last[last.len() - 32..last.len() - 16], *b"dqlfirst\x04\0\0\0\0\0\0\0");
    bench.writer.close().unwrap();

    assert_eq!(bench.names(), [Bench::closed(1, 1), Bench::closed(2, 3), Bench::closed(4, 4)]);
    assert_eq!(bench.answers().len(), 4);
}

// conformance: disk-format 9
#[test]
fn a_segment_for_one_large_batch_is_not_filled_with_zeros_first() {
    let mut bench = Bench::new(65536);
    bench.writer.process(vec![bench.append(1, 1, 8)]);
    let before = bench.written.load(Ordering::Relaxed);

    bench.writer.process(vec![bench.append(2, 1, 1 << 20)]);

    let written = bench.written.load(Ordering::Relaxed) - before;
    assert!(written < (1 << 20) + 4 * 65536, "{written}");
    assert_eq!(bench.answers(), [(1, true), (2, true)]);
}

// conformance: disk-format 9
#[test]
fn many_entries_of_one_append_are_one_batch() {
    let mut bench = Bench::new(4096);
    bench.writer.process(vec![bench.append(1, 10_000, 8)]);
    assert_eq!(bench.answers(), [(1, true)]);
    assert_eq!(lengths(crashed(&bench.path).path()), [8; 10_000]);
    bench.writer.close().unwrap();

    let batches = bench.batches(&Bench::closed(1, 10_000), 8);
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [10_000]);
}

// conformance: disk-format 18
#[test]
fn entries_of_a_failed_sync_go_to_another_segment_before_they_are_answered() {
    let mut bench = Bench::new(65536);
    bench.writer.process(vec![bench.append(1, 1, 8)]);
    bench.failing.store(true, Ordering::Relaxed);
    let requests = vec![bench.append(2, 2, 8), bench.append(4, 1, 8)];
    assert!(matches!(bench.writer.process(requests), Progress::RetryAfter(_)));
    assert!(matches!(bench.writer.process(vec![bench.append(5, 1, 8)]), Progress::RetryAfter(_)));
    assert_eq!(bench.answers(), [(1, true)]);

    bench.failing.store(false, Ordering::Relaxed);
    assert_eq!(bench.writer.process(Vec::new()), Progress::Idle);

    assert_eq!(bench.answers(), [(2, true), (4, true), (5, true)]);
    bench.writer.close().unwrap();
    assert_eq!(bench.names(), [Bench::closed(1, 1), Bench::closed(2, 5)]);
    assert_eq!(bench.batches(&Bench::closed(2, 5), 8), [vec![2, 3], vec![4], vec![5]]);
    let troubles = bench.troubles.lock().unwrap();
    assert!(matches!(troubles.as_slice(), [LogTrouble::Failing { .. }, LogTrouble::Recovered]));
}

#[test]
fn truncation_keeps_complete_batches_and_cuts_the_one_with_the_index() {
    let mut bench = Bench::new(65536);
    let truncate = LogRequest::TruncateFrom { index: LogIndex(5), done: bench.done(100) };
    let requests = vec![bench.append(1, 2, 8), bench.append(3, 4, 8), truncate, bench.append(5, 1, 8)];
    assert_eq!(bench.writer.process(requests), Progress::Idle);
    bench.writer.close().unwrap();

    assert_eq!(bench.answers(), [(1, true), (3, true), (100, true), (5, true)]);
    assert_eq!(bench.names(), [Bench::closed(1, 4), Bench::closed(5, 5)]);
    assert_eq!(bench.batches(&Bench::closed(1, 4), 8), [vec![1, 2], vec![3, 4]]);
    let content = std::fs::read(bench.path.join(Bench::closed(1, 4))).unwrap();
    let again = super::super::checksum::crc32(0, &content[8 + 64 + 8..8 + 64 + 48]);
    assert_eq!(content[8 + 64..8 + 68], again.to_le_bytes());
}

fn vault(bench: &Bench) -> Vault {
    let directory = Directory::open(&FileDisk, &bench.path).unwrap();
    Vault::new(directory, bench.lock.clone(), Metadata::default())
}

#[test]
fn the_second_file_is_made_while_there_is_space_and_says_the_same() {
    let bench = Bench::new(65536);
    let mut vault = vault(&bench);
    assert!(vault.process(VaultRequest::MakeBoth, false).is_none());
    assert!(!bench.path.join("metadata1").exists(), "there is no vote to store");
    let vote = VaultRequest::Store { term: Term(1), voted_for: NodeId(3), done: bench.done(0) };
    assert!(vault.process(vote, false).is_none());
    for _ in 0..2 {
        assert!(vault.process(VaultRequest::MakeBoth, false).is_none());
    }

    let loaded = read_metadata(&Directory::open(&FileDisk, &bench.path).unwrap()).unwrap();
    assert_eq!((loaded.version, loaded.term, loaded.voted_for), (2, Term(1), NodeId(3)));
}

// conformance: disk-format 5
#[test]
fn votes_alternate_between_the_files_and_keep_the_other() {
    let bench = Bench::new(65536);
    let mut vault = vault(&bench);
    for (term, vote) in [(1, 0), (1, 2), (2, 0)] {
        let request =
            VaultRequest::Store { term: Term(term), voted_for: NodeId(vote), done: bench.done(term) };
        assert!(vault.process(request, false).is_none());
    }

    let read = |name: &str| std::fs::read(bench.path.join(name)).unwrap();
    assert_eq!(read("metadata1")[8], 3);
    assert_eq!(read("metadata1")[16], 2);
    assert_eq!((read("metadata2")[8], read("metadata2")[24]), (2, 2));
    let loaded = read_metadata(&Directory::open(&FileDisk, &bench.path).unwrap()).unwrap();
    assert_eq!((loaded.version, loaded.term, loaded.voted_for), (3, Term(2), NodeId(0)));
}

// conformance: disk-format 5, 8
#[test]
fn an_unclean_stop_keeps_acknowledged_entries_and_the_vote() {
    let mut bench = Bench::new(4096);
    let vote = VaultRequest::Store { term: Term(1), voted_for: NodeId(3), done: bench.done(0) };
    assert!(vault(&bench).process(vote, false).is_none());
    let truncate = LogRequest::TruncateFrom { index: LogIndex(4), done: bench.done(100) };
    let requests = vec![bench.append(1, 3, 1000), bench.append(4, 2, 1000), truncate, bench.append(4, 1, 8)];
    assert_eq!(bench.writer.process(requests), Progress::Idle);
    bench.writer.prepare_ahead();
    let Bench { writer, path, lock, _keep: keep, .. } = bench;
    drop((writer, lock));

    let loaded = load(&path);

    assert_eq!((loaded.metadata.term, loaded.metadata.voted_for), (Term(1), NodeId(3)));
    let lengths: Vec<usize> = loaded.entries.iter().map(|entry| entry.data.len()).collect();
    assert_eq!(lengths, [1000, 1000, 1000, 8]);
    drop(keep);
}

/// What a start finds in a directory whose node has gone.
fn load(path: &Path) -> super::super::load::Loaded {
    let directory = Directory::open(&FileDisk, path).unwrap();
    let lock = directory.lock().unwrap();
    load_with(&directory, &lock).unwrap()
}

fn load_with(
    directory: &Directory,
    lock: &DirectoryLock,
) -> Result<super::super::load::Loaded, StorageError> {
    if !directory.path().join("metadata1").exists() {
        let metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };
        std::fs::write(directory.path().join("metadata1"), metadata.encode()).unwrap();
    }
    let wall_clock = Arc::new(crate::types::clock::SystemWallClock);
    let options = super::super::load::LoadOptions { auto_recovery: false, wall_clock, payloads: None };
    super::super::load::load(directory, lock, &options)
}

#[test]
fn a_start_whose_lock_goes_meanwhile_changes_nothing() {
    let mut bench = Bench::new(4096);
    bench.writer.process((1..=2).map(|index| bench.append(index, 1, 3000)).collect());
    std::fs::write(bench.path.join("tmp-left"), "x").unwrap();
    let before = bench.names();
    bench.take_lock_away();

    let directory = Directory::open(&FileDisk, &bench.path).unwrap();
    let error = load_with(&directory, &bench.lock).unwrap_err();

    assert!(matches!(error, StorageError::LockLost { .. }), "{error}");
    let mut after = bench.names();
    after.retain(|name| name != "metadata1");
    assert_eq!(after, before);
}

fn lengths(path: &Path) -> Vec<usize> {
    load(path).entries.iter().map(|entry| entry.data.len()).collect()
}

/// A copy of a directory, as a crash at this moment would leave it.
fn crashed(path: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

// conformance: disk-format 9, 15
#[test]
fn full_segments_are_closed_while_entries_go_on_and_a_crash_meanwhile_loses_nothing() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=3).map(|index| bench.append(index, 1, 3000)).collect());
    assert_eq!(bench.answers(), [(1, true), (2, true), (3, true)]);

    let names = bench.names();
    assert!(
        ["open-1", "open-2", "open-3"].iter().all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
    assert_eq!(lengths(crashed(&bench.path).path()), [3000; 3]);

    pool.catch_up();
    let names = bench.names();
    assert!(names.contains(&Bench::closed(1, 1)) && names.contains(&Bench::closed(2, 2)), "{names:?}");
    assert_eq!(lengths(crashed(&bench.path).path()), [3000; 3]);
}

#[test]
fn segments_that_cannot_be_closed_hold_up_writing_only_when_there_are_too_many() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    let unclosed = SEGMENTS_UNCLOSED_MAX as u64;
    bench.writer.process((1..=unclosed + 1).map(|index| bench.append(index, 1, 3000)).collect());
    assert_eq!(bench.answers().len(), SEGMENTS_UNCLOSED_MAX + 1);

    bench.failing.store(true, Ordering::Relaxed);
    pool.catch_up();
    let next = bench.append(unclosed + 2, 1, 3000);
    assert!(matches!(bench.writer.process(vec![next]), Progress::RetryAfter(_)));
    assert!(bench.answers().is_empty());

    bench.failing.store(false, Ordering::Relaxed);
    assert_eq!(bench.writer.process(Vec::new()), Progress::Idle);
    assert_eq!(bench.answers(), [(unclosed + 2, true)]);
    assert_eq!(lengths(crashed(&bench.path).path()).len(), SEGMENTS_UNCLOSED_MAX + 2);
}

// conformance: disk-format 9
#[test]
fn a_segment_for_a_large_batch_is_never_loaded_behind_what_follows_it() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.prepare_ahead();
    // Two are prepared; the large one gets a higher counter, what follows would go to a prepared one.
    bench.writer.process(vec![bench.append(1, 1, 20_000), bench.append(2, 1, 3000)]);

    assert_eq!(lengths(crashed(&bench.path).path()), [20_000, 3000]);
}

// conformance: disk-format 15
#[test]
fn a_truncation_waits_for_the_closing_of_earlier_segments() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    let truncate = LogRequest::TruncateFrom { index: LogIndex(2), done: bench.done(100) };
    let requests = vec![bench.append(1, 1, 3000), bench.append(2, 1, 3000), truncate, bench.append(2, 1, 8)];

    assert_eq!(bench.writer.process(requests), Progress::Idle);

    assert_eq!(lengths(crashed(&bench.path).path()), [3000, 8]);
    pool.catch_up();
    assert_eq!(lengths(crashed(&bench.path).path()), [3000, 8]);
}

#[test]
#[should_panic(expected = "segments are tended no more")]
fn a_panic_while_segments_are_tended_ends_the_log() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=2).map(|index| bench.append(index, 1, 3000)).collect());
    let (snapshot, done) = (bench.snapshot(2), Box::new(|_| panic!("in a job")));
    bench.writer.process(vec![LogRequest::AddSnapshot { snapshot, trailing: 0, done }]);
    pool.catch_up();

    // It needs the panicked one's work.
    drop(bench.writer.close());
}
