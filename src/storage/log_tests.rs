//! Tests of the log writer on a real directory, with a disk whose syncs can be made to fail.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, mpsc};

use bytes::Bytes;

use super::super::disk::{DirEntryInfo, Disk, DiskFile, DiskLock, FileDisk, OpenMode, Stat};
use super::*;
use crate::types::config::SEGMENTS_UNCLOSED_MAX;
use crate::types::tasks::{InlinePool, LaterPool};
use crate::types::{EntryData, EntryKind};

/// Whether syncs fail, and bytes that were written.
#[derive(Debug)]
struct FaultyDisk(Arc<AtomicBool>, Arc<AtomicU64>);

#[derive(Debug)]
struct FaultyFile(Box<dyn DiskFile>, Arc<AtomicBool>, Arc<AtomicU64>);

impl Disk for FaultyDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntryInfo>> {
        FileDisk.list(directory)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(FileDisk.open(path, mode)?, Arc::clone(&self.0), Arc::clone(&self.1))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        FileDisk.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        FileDisk.sync_directory(directory)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        FileDisk.stat(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        FileDisk.lock(path)
    }
}

impl FaultyFile {
    fn check(&self) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.2.fetch_add(slices.iter().map(|slice| slice.len() as u64).sum(), Ordering::Relaxed);
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
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

struct Bench {
    writer: LogWriter,
    path: PathBuf,
    failing: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    troubles: Arc<Mutex<Vec<LogTrouble>>>,
    answers: mpsc::Receiver<(u64, bool)>,
    sender: mpsc::Sender<(u64, bool)>,
    _keep: tempfile::TempDir,
}

impl Bench {
    fn new(segment_bytes: u64) -> Bench {
        Bench::over(segment_bytes, Arc::new(InlinePool))
    }

    fn over(segment_bytes: u64, pool: Arc<dyn BlockingPool>) -> Bench {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().to_path_buf();
        let failing = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let disk = FaultyDisk(Arc::clone(&failing), Arc::clone(&written));
        let directory = Directory::open(Arc::new(disk), &path).unwrap();
        let lock = directory.lock().unwrap();
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&troubles);
        let options = LogOptions {
            segment_bytes,
            segments_ahead: 2,
            pool,
            on_trouble: Box::new(move |trouble| heard.lock().unwrap().push(trouble)),
        };
        let writer = LogWriter::new(directory, lock, Metadata::default(), LogIndex(1), options);
        let (sender, answers) = mpsc::channel();
        Bench { writer, path, failing, written, troubles, answers, sender, _keep: keep }
    }

    fn done(&self, tag: u64) -> Done {
        let sender = self.sender.clone();
        Box::new(move |result| sender.send((tag, result.is_ok())).unwrap())
    }

    fn append(&self, first: u64, count: u64, bytes: usize) -> LogRequest {
        let entry = |index| Entry {
            term: Term(1),
            kind: EntryKind::Command,
            data: EntryData::from_bytes(Bytes::from(vec![index as u8; bytes])),
            proposals: None,
        };
        let entries = (first..first + count).map(entry).collect();
        LogRequest::Append { first_index: LogIndex(first), entries, done: self.done(first) }
    }

    fn answers(&self) -> Vec<(u64, bool)> {
        self.answers.try_iter().collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "dqlite-lock")
            .collect();
        names.sort();
        names
    }

    fn closed(first: u64, last: u64) -> String {
        format!("{first:016}-{last:016}")
    }

    /// First payload byte of every entry in a segment of entries with `bytes` payload bytes, by batch.
    fn batches(&self, name: &str, bytes: usize) -> Vec<Vec<u8>> {
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
    // Exactly full, then small, then larger than a segment.
    bench.writer.process(vec![bench.append(2, 1, 4056), bench.append(3, 1, 8), bench.append(4, 1, 20000)]);
    bench.writer.close().unwrap();

    let expected = [Bench::closed(1, 2), Bench::closed(3, 3), Bench::closed(4, 4)];
    let alternative = [Bench::closed(1, 1), Bench::closed(2, 2), Bench::closed(3, 3), Bench::closed(4, 4)];
    let names = bench.names();
    assert!(names == expected || names == alternative, "{names:?}");
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

// conformance: disk-format 5
#[test]
fn votes_alternate_between_the_files_and_keep_the_other() {
    let mut bench = Bench::new(65536);
    for (term, vote) in [(1, 0), (1, 2), (2, 0)] {
        let done = bench.done(term);
        bench.writer.process(vec![LogRequest::SetVote { term: Term(term), voted_for: NodeId(vote), done }]);
    }

    let read = |name: &str| std::fs::read(bench.path.join(name)).unwrap();
    assert_eq!(read("metadata1")[8], 3);
    assert_eq!(read("metadata1")[16], 2);
    assert_eq!((read("metadata2")[8], read("metadata2")[24]), (2, 2));
    let loaded = Directory::open(Arc::new(FileDisk), &bench.path).unwrap().metadata();
    assert_eq!((loaded.version, loaded.term, loaded.voted_for), (3, Term(2), NodeId(0)));
}

// conformance: disk-format 12
#[test]
fn trim_keeps_trailing_entries_and_two_snapshots() {
    let mut bench = Bench::new(4096);
    let requests = (1..=4).map(|index| bench.append(index, 1, 3000)).collect();
    bench.writer.process(requests);
    for name in ["snapshot-1-2-9", "snapshot-1-10-3", "snapshot-1-3-5"] {
        std::fs::write(bench.path.join(name), "x").unwrap();
        std::fs::write(bench.path.join(format!("{name}.meta")), "x").unwrap();
    }
    let done = bench.done(9);
    bench.writer.process(vec![LogRequest::Trim { snapshot_index: LogIndex(4), trailing: 2, done }]);

    let names = bench.names();
    assert!(!names.contains(&Bench::closed(2, 2)) && names.contains(&Bench::closed(3, 3)), "{names:?}");
    assert!(
        !names.contains(&"snapshot-1-2-9".to_owned()) && names.contains(&"snapshot-1-3-5.meta".to_owned())
    );
}

#[test]
fn reset_leaves_no_segment_and_goes_on_at_the_given_index() {
    let mut bench = Bench::new(65536);
    let reset = LogRequest::Reset { next_index: LogIndex(50), done: bench.done(0) };
    bench.writer.process(vec![bench.append(1, 3, 8), reset]);
    assert!(bench.names().is_empty());

    bench.writer.process(vec![bench.append(50, 1, 8)]);
    bench.writer.close().unwrap();
    assert_eq!(bench.names(), [Bench::closed(50, 50)]);
}

// Found with killed nodes: a snapshot that was named while its entries were in an open segment and none was closed made
// them count as other entries behind it.
#[test]
fn the_entries_of_a_snapshot_can_be_closed_before_it_gets_its_name() {
    let mut bench = Bench::new(65536);
    let reset = LogRequest::Reset { next_index: LogIndex(50), done: bench.done(0) };
    bench.writer.process(vec![reset, bench.append(50, 4, 8)]);
    assert!(!bench.names().contains(&Bench::closed(50, 53)));

    let close = LogRequest::CloseWritten { done: bench.done(1) };
    bench.writer.process(vec![close, bench.append(54, 2, 8)]);

    assert!(bench.names().contains(&Bench::closed(50, 53)), "{:?}", bench.names());
    assert!(!bench.names().contains(&Bench::closed(54, 55)));
}

// conformance: disk-format 5, 8
#[test]
fn an_unclean_stop_keeps_acknowledged_entries_and_the_vote() {
    let mut bench = Bench::new(4096);
    let done = bench.done(0);
    let vote = LogRequest::SetVote { term: Term(1), voted_for: NodeId(3), done };
    let truncate = LogRequest::TruncateFrom { index: LogIndex(4), done: bench.done(100) };
    let requests =
        vec![vote, bench.append(1, 3, 1000), bench.append(4, 2, 1000), truncate, bench.append(4, 1, 8)];
    assert_eq!(bench.writer.process(requests), Progress::Idle);
    bench.writer.prepare_ahead();
    let Bench { writer, path, _keep: keep, .. } = bench;
    drop(writer);

    let loaded = load(&path);

    assert_eq!((loaded.metadata.term, loaded.metadata.voted_for), (Term(1), NodeId(3)));
    let lengths: Vec<usize> = loaded.entries.iter().map(|entry| entry.data.len()).collect();
    assert_eq!(lengths, [1000, 1000, 1000, 8]);
    drop(keep);
}

/// What a start finds in a directory whose node has gone.
fn load(path: &Path) -> super::super::load::Loaded {
    let directory = Directory::open(Arc::new(FileDisk), path).unwrap();
    let lock = directory.lock().unwrap();
    let wall_clock = Arc::new(crate::types::clock::SystemWallClock);
    let options = super::super::load::LoadOptions { auto_recovery: false, wall_clock, payloads: None };
    super::super::load::load(&directory, &lock, &options).unwrap()
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
fn a_trim_removes_after_the_segments_before_it_are_closed() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=4).map(|index| bench.append(index, 1, 3000)).collect());
    bench.answers();
    let done = bench.done(9);
    bench.writer.process(vec![LogRequest::Trim { snapshot_index: LogIndex(4), trailing: 2, done }]);
    assert!(bench.answers().is_empty());

    bench.writer.process(vec![bench.append(5, 1, 8)]);
    assert_eq!(bench.answers(), [(5, true)]);
    pool.catch_up();

    assert_eq!(bench.answers(), [(9, true)]);
    let names = bench.names();
    assert!(!names.contains(&Bench::closed(2, 2)) && names.contains(&Bench::closed(3, 3)), "{names:?}");
}

#[test]
fn nobody_waits_for_the_bytes_of_removed_segments_and_they_go_at_the_latest_with_the_log() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=4).map(|index| bench.append(index, 1, 3000)).collect());
    let done = bench.done(9);
    bench.writer.process(vec![LogRequest::Trim { snapshot_index: LogIndex(4), trailing: 0, done }]);
    // A truncation needs the jobs done, here and now.
    let truncated = bench.done(10);
    bench.writer.process(vec![LogRequest::TruncateFrom { index: LogIndex(4), done: truncated }]);

    let removed = |names: &[String]| names.iter().filter(|name| name.starts_with("tmp-removed-")).count();
    assert!(bench.answers().contains(&(10, true)));
    assert!(!bench.names().contains(&Bench::closed(3, 3)) && removed(&bench.names()) > 0);
    bench.writer.close().unwrap();
    assert_eq!(removed(&bench.names()), 0, "{:?}", bench.names());
}

#[test]
#[should_panic(expected = "segments are tended no more")]
fn a_panic_while_segments_are_tended_ends_the_log() {
    let pool = LaterPool::default();
    let mut bench = Bench::over(4096, Arc::new(pool.clone()));
    bench.writer.process((1..=2).map(|index| bench.append(index, 1, 3000)).collect());
    let done = Box::new(|_| panic!("in a job"));
    bench.writer.process(vec![LogRequest::Trim { snapshot_index: LogIndex(2), trailing: 0, done }]);
    pool.catch_up();

    // It needs the panicked one's work.
    drop(bench.writer.close());
}
