//! A log that takes snapshots of its own and is replaced by one of a leader, whose power is cut at every file operation, and once
//! more at operations of the next run: what was acknowledged is there, every entry is the one that was written at its index, and
//! nothing is refused.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dqlite::storage::directory::{Directory, DirectoryLock};
use dqlite::storage::error::StorageError;
use dqlite::storage::load::{Loaded, load};
use dqlite::storage::log::{Done, LogOptions, LogRequest, LogWriter, Progress};
use dqlite::storage::snapshot::{Compression, Sealed, SnapshotWriter};
use dqlite::storage::snapshot_meta::SnapshotMeta;
use dqlite::storage::vault::{Vault, VaultRequest};
use dqlite::types::tasks::{InlinePool, LaterPool};
use dqlite::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};
use dqlite_sim::campaign::setting;
use dqlite_sim::disk::{Fault, SimDisk};
use dqlite_sim::node::load_options;

const DIRECTORY: &str = "/data";
/// Last entry of the first leader's log.
const OLD_LAST: u64 = 12;
/// Last entry in the snapshot that replaces it.
const INSTALLED: u64 = 20;
/// Last entry of the second leader's log.
const LAST: u64 = 32;
/// Every so many operations of the second run are cut, too; DQLITE_SIM_SECOND_CUTS=1 cuts all of them.
const SECOND_CUTS: u64 = 13;

/// How the work beside the writing of entries is done, and whether files can be without a name.
#[derive(Clone, Copy, Debug)]
struct Kind {
    later: bool,
    names_all: bool,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    last: u64,
    snapshot: u64,
}

fn payload(index: u64) -> Bytes {
    let era = u64::from(index > INSTALLED) + 1;
    let words = (index * 37 % 120) + 2;
    (0..words).flat_map(|word| [era, index, word][(word % 3) as usize].to_le_bytes()).collect()
}

fn term(index: u64) -> Term {
    Term(u64::from(index > OLD_LAST) + 1)
}

fn entry(index: u64) -> Entry {
    let data = EntryData::from_bytes(payload(index));
    Entry { term: term(index), kind: EntryKind::Command, data, proposals: None }
}

/// One node's log between a start and its end.
struct Run {
    directory: Directory,
    lock: DirectoryLock,
    writer: LogWriter,
    pool: LaterPool,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Run {
    fn start(disk: &SimDisk, kind: Kind) -> Result<(Run, Loaded), StorageError> {
        let directory = Directory::open(disk, Path::new(DIRECTORY))?;
        let lock = directory.lock()?;
        let loaded = load(&directory, &lock, &load_options())?;
        let pool = LaterPool::default();
        let mut options = match kind.later {
            true => LogOptions::new(Box::new(|_| {}), Arc::new(pool.clone())),
            false => LogOptions::new(Box::new(|_| {}), Arc::new(InlinePool)),
        };
        options.segment_bytes = 4096;
        let next = loaded.last_index().next();
        let writer = LogWriter::new(directory.clone(), lock.clone(), next, options);
        Ok((Run { directory, lock, writer, pool, acknowledged: Arc::default() }, loaded))
    }

    /// Whether the request was answered well.
    fn ask(
        &mut self,
        request: impl FnOnce(Done) -> LogRequest,
        then: fn(&mut Acknowledged, u64),
        value: u64,
    ) -> bool {
        let (acknowledged, answer) = (Arc::clone(&self.acknowledged), Arc::new(Mutex::new(None)));
        let heard = Arc::clone(&answer);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                then(&mut acknowledged.lock().unwrap(), value);
            }
            *heard.lock().unwrap() = Some(result.is_ok());
        });
        let progress = self.writer.process(vec![request(done)]);
        if value.is_multiple_of(3) {
            self.pool.catch_up();
        }
        self.writer.prepare_ahead();
        // One that waits for housekeeping is answered later.
        progress == Progress::Idle && *answer.lock().unwrap() != Some(false)
    }

    fn append(&mut self, first: u64, last: u64) -> bool {
        let entries = (first..=last).map(entry).collect();
        self.ask(
            |done| LogRequest::Append { first_index: LogIndex(first), entries, done },
            |acknowledged, last| acknowledged.last = last,
            last,
        )
    }

    fn sealed(&self, index: u64) -> Option<Box<dyn Sealed>> {
        let server = Server { id: NodeId(1), address: b"1".to_vec(), role: Role::Voter };
        let meta = SnapshotMeta {
            term: term(index),
            index: LogIndex(index),
            timestamp: index,
            configuration: Configuration::new(vec![server]).unwrap(),
            configuration_index: LogIndex(1),
        };
        let mut writer = SnapshotWriter::create(&self.directory, meta, 8, Compression::None, 4096).ok()?;
        writer.write_all(&index.to_le_bytes()).ok()?;
        Some(Box::new(writer.seal().ok()?))
    }

    fn add_snapshot(&mut self, index: u64) -> bool {
        let Some(snapshot) = self.sealed(index) else { return false };
        self.ask(
            |done| LogRequest::AddSnapshot { snapshot, trailing: 3, done },
            |acknowledged, index| acknowledged.snapshot = index,
            index,
        )
    }

    fn replace(&mut self) -> bool {
        let Some(snapshot) = self.sealed(INSTALLED) else { return false };
        self.ask(
            |done| LogRequest::Replace { snapshot, done },
            |acknowledged, index| *acknowledged = Acknowledged { last: index, snapshot: index },
            INSTALLED,
        )
    }

    /// Everything that is left to be done behind what was loaded.
    fn work(&mut self, loaded: &Loaded) -> bool {
        let mut last = loaded.last_index().0;
        let snapshot = loaded.snapshot.as_ref().map_or(0, |file| file.meta.index.0);
        if loaded.metadata.version == 0 {
            let stored = Arc::new(AtomicBool::new(false));
            let heard = Arc::clone(&stored);
            let done: Done = Box::new(move |result| heard.store(result.is_ok(), Ordering::Relaxed));
            let vote = VaultRequest::Store { term: Term(1), voted_for: NodeId(0), done };
            // One try: a crash ends it.
            let _ =
                Vault::new(self.directory.clone(), self.lock.clone(), loaded.metadata).process(vote, true);
            if !stored.load(Ordering::Relaxed) {
                return false;
            }
        }
        if snapshot < INSTALLED {
            while last < OLD_LAST {
                let next = (last + 3).min(OLD_LAST);
                if !self.append(last + 1, next) || (next == 6 && !self.add_snapshot(5)) {
                    return false;
                }
                last = next;
            }
            let truncate = |done| LogRequest::TruncateFrom { index: LogIndex(OLD_LAST), done };
            let shorten =
                |acknowledged: &mut Acknowledged, last| acknowledged.last = acknowledged.last.min(last);
            if !self.ask(truncate, shorten, OLD_LAST - 1) || !self.replace() {
                return false;
            }
            last = INSTALLED;
        }
        while last < LAST {
            let next = (last + 2).min(LAST);
            if !self.append(last + 1, next) || (next == 26 && !self.add_snapshot(25)) {
                return false;
            }
            last = next;
        }
        self.writer.close().is_ok()
    }
}

/// Works until the end or until the disk fails; what was acknowledged, beside what had been before.
fn run(disk: &SimDisk, kind: Kind) -> Acknowledged {
    let Ok((mut run, loaded)) = Run::start(disk, kind) else { return Acknowledged::default() };
    run.work(&loaded);
    *run.acknowledged.lock().unwrap()
}

/// Loads, and compares with what was acknowledged; what is there.
fn check(disk: &SimDisk, kind: Kind, acknowledged: Acknowledged, what: &str) -> Acknowledged {
    let (run, loaded) = Run::start(disk, kind).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(run);
    assert!(loaded.set_aside.is_empty(), "{what}: {:?}", loaded.set_aside);
    let snapshot = loaded.snapshot.as_ref().map_or(0, |file| file.meta.index.0);
    let last = loaded.last_index().0;
    assert!(snapshot >= acknowledged.snapshot, "{what}: snapshot {snapshot}, {acknowledged:?}");
    // The truncation before the installation takes one entry away.
    let taken_back = u64::from(acknowledged.last == OLD_LAST);
    assert!(last >= acknowledged.last - taken_back, "{what}: {last} entries, {acknowledged:?}");
    for (position, found) in loaded.entries.iter().enumerate() {
        let index = loaded.first_index.0 + position as u64;
        assert_eq!(found.term, term(index), "{what}: entry {index}");
        assert_eq!(found.data.contiguous().unwrap(), payload(index), "{what}: entry {index}");
    }
    if let Some(file) = &loaded.snapshot {
        assert!(loaded.first_index.0 <= file.meta.index.0 + 1, "{what}: a gap");
    }
    Acknowledged { last, snapshot }
}

fn disk(kind: Kind) -> SimDisk {
    let disk = SimDisk::new(Path::new(DIRECTORY));
    if kind.names_all {
        disk.name_all();
    }
    disk
}

fn cut_everywhere(kind: Kind) -> u64 {
    let whole = disk(kind);
    assert_eq!(run(&whole, kind).last, LAST);
    let mut cuts = 0;
    let second_cuts = setting("DQLITE_SIM_SECOND_CUTS", SECOND_CUTS);
    for operation in 1..=whole.operations() {
        let first = disk(kind);
        first.plan(operation, Fault::Cut);
        let acknowledged = run(&first, kind);
        assert!(first.is_off(), "operation {operation} was not reached");
        let what = format!("{kind:?}, cut at operation {operation}");
        let again = || first.after_power_cut(operation);
        let found = check(&again(), kind, acknowledged, &what);
        // The second run begins with the repairs of the first cut.
        let second = again();
        run(&second, kind);
        for operation in (1 + operation % second_cuts..=second.operations()).step_by(second_cuts as usize) {
            let second = again();
            second.plan(operation, Fault::Cut);
            let more = run(&second, kind);
            let last = if more.snapshot >= INSTALLED { more.last } else { more.last.max(found.last) };
            let acknowledged = Acknowledged { last, snapshot: more.snapshot.max(found.snapshot) };
            let what = format!("{what}, then at operation {operation}");
            let third = second.after_power_cut(operation);
            check(&third, kind, acknowledged, &what);
            assert_eq!(
                run(&third, kind).last.max(check(&third, kind, acknowledged, &what).last),
                LAST,
                "{what}"
            );
            cuts += 1;
        }
    }
    cuts
}

// conformance: disk-format 15
#[test]
fn the_power_may_be_cut_twice_while_snapshots_are_taken_and_installed() {
    let mut cuts = 0;
    for later in [false, true] {
        cuts += cut_everywhere(Kind { later, names_all: false });
    }
    println!("{cuts} pairs of cuts, 0 acknowledged entries lost, 0 starts refused");
    assert!(cuts >= 1000, "{cuts} pairs");
}

#[test]
fn the_same_holds_where_every_file_has_a_name() {
    let cuts = cut_everywhere(Kind { later: false, names_all: true });
    println!("{cuts} pairs of cuts");
    assert!(cuts >= 500, "{cuts} pairs");
}

#[test]
fn an_operation_of_an_installation_may_fail_and_is_tried_again() {
    for names_all in [false, true] {
        let kind = Kind { later: false, names_all };
        let whole = disk(kind);
        run(&whole, kind);
        for operation in 1..=whole.operations() {
            for fault in [Fault::Error, Fault::NoSpace { operations: 3 }] {
                let failing = disk(kind);
                failing.plan(operation, fault);
                let acknowledged = run(&failing, kind);
                let what = format!("{kind:?}, {fault:?} at operation {operation}");
                check(&failing.after_power_cut(operation), kind, acknowledged, &what);
            }
        }
    }
}
