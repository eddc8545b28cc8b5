//! A node on every file system at hand, in namespaces of the test's own. It writes, is killed, starts, is renamed and removed
//! under way; each driver once with databases in memory and once with them on the disk.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dqlite::storage::directory::Directory;
use dqlite::storage::error::StorageError;
use dqlite::storage::file_disk::FileDisk;
use dqlite_testing::bed::Bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::disks::file_system::{ALL, FileSystem, Mounted};
use dqlite_testing::disks::space;
use dqlite_testing::process::{NodeOptions, NodeProcess, free_address};

const DATABASE: &str = "test.db";
/// Longest wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever has not answered by then is silent.
const SILENCE: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Rows of the first spell of writes: enough for a snapshot.
const ROWS: i64 = 200;
/// Rows of later ones.
const ROWS_MORE: i64 = 50;
/// Rows that are in a directory before another file system is laid over it.
const ROWS_BELOW: i64 = 100;
/// Value of the large row: 8 MiB, more than an open segment has.
const LARGE: &str = "replace(hex(zeroblob(4194304)), '00', 'ab')";
/// Length of an open segment. spec: disk-format 1.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Bytes of a block as `stat` counts them.
const BLOCK_BYTES: u64 = 512;
/// Lives at once: much of their time is waiting. Each takes some 50 MiB of disk.
const WORKERS: usize = 6;
/// Names of the file systems that are tried where none is named, of one kind each.
const SHORT: &str = "ext4;tmpfs;overlay, copied up";
/// In place of names: all of them, as `make torture-host` has it.
const EVERYTHING: &str = "all";
/// So FUSE names files that are removed while they are open.
const HIDDEN: &str = ".fuse_hidden";
/// A snapshot after so many entries.
const THRESHOLD: &str = "--snapshot-threshold=128";
const TRAILING: &str = "--snapshot-trailing=128";

/// Where the databases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Databases {
    InMemory,
    OnDisk,
}

/// A node and the rows that it has acknowledged.
struct Life {
    options: NodeOptions,
    node: NodeProcess,
    rows: i64,
}

impl Life {
    fn start(options: &NodeOptions, rows: i64) -> Life {
        let node = NodeProcess::start(options).unwrap();
        Life { options: options.clone(), node, rows }
    }

    fn client(&self) -> Client {
        Client::of_sole_voter(&self.options.address, DATABASE, PATIENCE).unwrap()
    }

    fn write(&mut self, count: i64) {
        let mut client = self.client();
        if self.rows == 0 {
            client.exec("CREATE TABLE t(n INTEGER PRIMARY KEY, b)", &[]).unwrap();
        }
        for _ in 0..count {
            let n = self.rows + 1;
            client.exec(&format!("INSERT INTO t VALUES({n}, 'row ' || {n})"), &[]).unwrap();
            self.rows = n;
        }
    }

    fn write_large(&mut self) {
        let n = self.rows + 1;
        self.client().exec(&format!("INSERT INTO t VALUES({n}, {LARGE})"), &[]).unwrap();
        self.rows = n;
    }

    /// Looks for every row.
    fn look(&self) {
        let sql = format!("SELECT sum(b = 'row ' || n OR b = {LARGE}) FROM t");
        assert_eq!(self.client().number(&sql).unwrap(), self.rows);
    }

    /// Ends it, and starts it again: every row is there.
    fn start_again(&mut self, end: impl FnOnce(&mut NodeProcess)) {
        end(&mut self.node);
        self.node = NodeProcess::start(&self.options).unwrap();
        self.look();
    }

    fn wait_for_snapshot(&self) {
        let end = Instant::now() + PATIENCE;
        while !names(&self.options.directory).iter().any(|name| is_snapshot(name)) {
            assert!(Instant::now() < end, "no snapshot: {:?}", names(&self.options.directory));
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn is_snapshot(name: &str) -> bool {
    name.starts_with("snapshot-") && !name.ends_with(".meta")
}

/// What docs/data-directory.md says of the open segments of a node that runs.
fn check_of_running(directory: &Path, file_system: &FileSystem) {
    let mut open = 0;
    for name in names(directory).iter().filter(|name| name.starts_with("open-")) {
        // One that is closed meanwhile has another name.
        let Ok(metadata) = std::fs::metadata(directory.join(name)) else { continue };
        open += 1;
        let (bytes, taken) = (metadata.len(), metadata.blocks() * BLOCK_BYTES);
        assert!(bytes >= SEGMENT_BYTES, "{name} has {bytes} bytes");
        assert!(taken >= bytes || file_system.is_fuse(), "{name} has {bytes} bytes and takes {taken}");
    }
    assert!(open > 0, "{:?}", names(directory));
}

/// What it says of the files of a node that was stopped: `tmp-*` and `open-*` are not there.
fn check_of_stopped(directory: &Path) {
    let names = names(directory);
    let mut segments: Vec<(u64, u64)> = Vec::new();
    for name in &names {
        let metadata = std::fs::symlink_metadata(directory.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        match name.as_str() {
            "metadata1" | "metadata2" => assert_eq!(metadata.len(), 32, "{name}"),
            "dqlite-lock" => assert_eq!(metadata.len(), 0, "{name}"),
            name if name.starts_with("snapshot-") => {}
            name => {
                let range = name.split_once('-');
                let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
                segments.push(range.unwrap_or_else(|| panic!("{name} is none of a stopped node: {names:?}")));
            }
        }
    }
    segments.sort_unstable();
    assert!(segments.len() > 1, "{names:?}");
    assert!(segments.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{names:?}");
    let snapshots = names.iter().filter(|name| is_snapshot(name)).count();
    assert!((1..=2).contains(&snapshots), "{names:?}");
}

/// A second node on the same directory is refused, and whoever wants the lock is told who has it.
fn is_refused_beside(options: &NodeOptions, holder: u32) {
    let second = NodeOptions { address: free_address().unwrap(), ..options.clone() };
    let text = NodeProcess::start(&second).unwrap_err().to_string();
    assert!(text.contains("couldn't lock the raft directory"), "{text}");
    let directory = Directory::open(&FileDisk, &options.directory).unwrap();
    let by = match directory.lock().unwrap_err() {
        StorageError::Locked { by } => by.unwrap_or_default(),
        error => panic!("{error}"),
    };
    assert!(by.starts_with(&format!("process {holder}")), "it is held by process {holder}, not '{by}'");
}

/// Writes until the node notices that nothing is kept, and then asks it in vain; how long it took to notice.
fn falls_silent(life: &mut Life, directory: &Path) -> Duration {
    let began = Instant::now();
    let mut client = life.client();
    let error = loop {
        assert!(began.elapsed() < PATIENCE, "it goes on without its directory");
        match client.exec("INSERT INTO t(b) VALUES(0)", &[]) {
            Ok(_) => std::thread::sleep(LOOK_AGAIN),
            Err(error) => break error,
        }
    };
    let noticed = began.elapsed();
    while is_answered(&life.options.address) {
        assert!(began.elapsed() < PATIENCE, "it still answers; a write failed with {error}");
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(!directory.exists());
    // The host hears why when it stops the node.
    assert!(!life.node.stop().unwrap().success());
    let text = life.node.error_text();
    assert!(text.contains("was removed: nothing that is written to it is kept"), "{text}; {error}");
    noticed
}

fn is_answered(address: &str) -> bool {
    let ask = || -> Result<(u64, String), ClientError> { Client::connect(address, SILENCE)?.leader() };
    ask().is_ok()
}

/// The life of one node on one file system; what differs between them.
fn live(bed: &Bed, file_system: &FileSystem, databases: Databases, folder: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    let mut options = options(bed, Path::new(""));
    if databases == Databases::OnDisk {
        options.arguments.push("--disk-mode".to_owned());
    }
    let mut rows = 0;
    let mounted = file_system.mount(folder, |directory| {
        let mut life = Life::start(&NodeOptions { directory: directory.to_owned(), ..options.clone() }, 0);
        life.write(ROWS_BELOW);
        // It leaves open segments, which are changed above.
        life.node.kill().unwrap();
        rows = life.rows;
    });
    let mounted = mounted.unwrap();
    options.directory = mounted.data().to_owned();

    let mut life = Life::start(&options, rows);
    life.write(ROWS);
    life.write_large();
    life.wait_for_snapshot();
    is_refused_beside(&life.options, life.node.id());
    life.start_again(|node| {
        node.kill().unwrap();
    });
    life.write(ROWS_MORE);
    check_of_running(&life.options.directory, file_system);
    rename(&mut life, &mut notes);
    life.write(ROWS_MORE);
    let directory = life.options.directory.clone();
    life.start_again(|node| {
        assert!(node.stop().unwrap().success(), "{}", node.error_text());
        check_of_stopped(&directory);
    });
    remove(&mounted, &mut life, &mut notes);
    notes
}

fn options(bed: &Bed, directory: &Path) -> NodeOptions {
    NodeOptions {
        program: bed.program.clone(),
        library: bed.library.clone(),
        id: 1,
        address: free_address().unwrap(),
        directory: directory.to_owned(),
        arguments: vec![THRESHOLD.to_owned(), TRAILING.to_owned()],
    }
}

fn rename(life: &mut Life, notes: &mut Vec<String>) {
    let to = life.options.directory.with_file_name("renamed");
    match std::fs::rename(&life.options.directory, &to) {
        Ok(()) => life.options.directory = to,
        // What was not made above is not renamed there, unless the mount says so.
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            notes.push("the directory cannot be renamed".to_owned());
        }
        Err(error) => panic!("{error}"),
    }
}

fn remove(mounted: &Mounted, life: &mut Life, notes: &mut Vec<String>) {
    let directory = life.options.directory.clone();
    let end = Instant::now() + PATIENCE;
    // The node may make a file meanwhile.
    while let Err(error) = mounted.remove(&directory) {
        if names(&directory).iter().any(|name| name.starts_with(HIDDEN)) {
            return notes.push("the directory cannot be removed while a node has files open".to_owned());
        }
        assert!(Instant::now() < end, "{error}");
    }
    let noticed = falls_silent(life, &directory);
    notes.push(format!("removed, noticed after {noticed:.1?}"));
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs all lives, some at once; the lines of a table, and how many failed.
fn live_all(bed: &Bed) -> (String, usize) {
    let of = |kind: &'static FileSystem| {
        let on_disk = kind.is_of_own_driver.then_some((kind, Databases::OnDisk));
        std::iter::once((kind, Databases::InMemory)).chain(on_disk)
    };
    let chosen = std::env::var("DQLITE_TEST_FILE_SYSTEMS").unwrap_or_else(|_| SHORT.to_owned());
    let is_chosen = |name: &str| chosen == EVERYTHING || chosen.split(';').any(|chosen| chosen == name);
    let lives = ALL.iter().flat_map(of).filter(|(kind, _)| is_chosen(kind.name));
    let left = Mutex::new(lives.enumerate());
    let told = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((number, (kind, databases))) = left.lock().unwrap().next() else { return };
            let result = match kind.missing() {
                Some(reason) => Ok(format!("skipped: {reason}")),
                None => {
                    let folder = bed.folder.path().join(number.to_string());
                    std::fs::create_dir(&folder).unwrap();
                    let life = || live(bed, kind, databases, &folder).join("; ");
                    let began = Instant::now();
                    let lived = catch_unwind(AssertUnwindSafe(life));
                    lived.map(|notes| format!("good in {:.1?}; {notes}", began.elapsed()))
                }
            };
            told.lock().unwrap().push((number, kind.name, databases, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let mut told = told.into_inner().unwrap();
    told.sort_by_key(|(number, ..)| *number);
    let failed = told.iter().filter(|(.., result)| result.is_err()).count();
    let mut table = String::new();
    for (_, name, databases, result) in told {
        let result = result.unwrap_or_else(|panic| format!("FAILED: {}", words(panic.as_ref())));
        writeln!(table, "{name:22} {:9} {result}", format!("{databases:?}")).unwrap();
    }
    (table, failed)
}

/// Whether this process is in namespaces of its own; if not, the test runs there, where that can be had.
fn is_inside(test: &str) -> bool {
    if space::is_inside() {
        return true;
    }
    if let Some(reason) = space::without_volumes() {
        println!("skipped: {reason}");
        return false;
    }
    let arguments = ["--exact", test, "--nocapture"].map(OsString::from);
    let output = space::again(arguments).unwrap().output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    false
}

#[test]
fn a_node_lives_on_every_file_system() {
    if !is_inside("a_node_lives_on_every_file_system") {
        return;
    }
    let (table, failed) = live_all(&Bed::new());

    println!("{table}");
    assert_eq!(failed, 0, "lives that failed");
}

#[test]
fn a_start_on_what_is_read_only_is_refused_with_a_text_and_changes_nothing() {
    if !is_inside("a_start_on_what_is_read_only_is_refused_with_a_text_and_changes_nothing") {
        return;
    }
    let bed = Bed::new();
    let folder = bed.folder.path().join("volume");
    std::fs::create_dir(&folder).unwrap();
    let ext4 = ALL.iter().find(|kind| kind.name == "ext4").unwrap();
    let mounted = ext4.mount(&folder, |_| ()).unwrap();
    let options = options(&bed, mounted.data());
    let refused = || NodeProcess::start(&options).unwrap_err().to_string();
    mounted.make_read_only().unwrap();
    let of_empty = refused();
    mounted.make_writable().unwrap();
    let mut life = Life::start(&options, 0);
    life.write(ROWS);
    life.node.kill().unwrap();
    let mut before = names(mounted.data());
    mounted.make_read_only().unwrap();

    let of_used = refused();

    let mut after = names(mounted.data());
    before.sort();
    after.sort();
    assert_eq!(before, after);
    for text in [of_empty, of_used] {
        assert!(text.contains("lock dqlite-lock: Read-only file system"), "{text}");
    }
    mounted.make_writable().unwrap();
    life.node = NodeProcess::start(&options).unwrap();
    life.look();
}
