//! Databases larger than memory: a node in disk mode, in a control group that bounds its memory with its page cache, writes,
//! reads, indexes, vacuums and snapshots a database, sends it to another such node, and both are started again.
//! `DQLITE_TEST_DISK_MIB` is the size of the database, `DQLITE_TEST_LIMIT_MIB` the bound; `make disk-mode` has the large ones.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dqlite::types::Role;
use dqlite::types::config::ENTRY_MAX_BYTES;
use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::cluster::{Cluster, FIRST_ID};
use dqlite_testing::limit::MemoryLimit;

const DATABASE: &str = "large";
/// Size of the database and bound, if the environment says nothing.
const SIZE_MIB: u64 = 150;
const LIMIT_MIB: u64 = 128;
/// Rows of one transaction, about 1 MiB.
const ROWS: u64 = 1050;
/// Longest wait for one statement.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes that a page of a transaction takes in its entry, about.
const PAGE_IN_ENTRY_BYTES: u64 = 4096 + 24;
/// FAILURE codes of a node that does not lead or has lost the leadership.
const LEADERSHIP: [u64; 2] = [10250, 10506];
/// SQLITE_FULL.
const FULL: u64 = 13;
/// Pages of the program and its libraries, which count as resident and not as memory of the process.
const SHARED_MIB: u64 = 16;
/// Memory that a node needs whatever its databases are.
const FLOOR_MIB: u64 = 120;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Longest time until the snapshot that is due is there.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

struct World {
    cluster: Cluster,
    limit: Result<MemoryLimit, String>,
    limit_mib: u64,
    began: Instant,
}

impl World {
    fn client(&self) -> Client {
        let mut client = self.cluster.leader_client().unwrap();
        client.set_timeout(PATIENCE).unwrap();
        client.open(DATABASE).unwrap();
        client
    }

    /// Runs a statement that may be run twice: a large entry on a slow disk may cost the leadership.
    fn exec(&self, sql: &str) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.client().exec(sql, &[]) {
            let lost = error.code().is_some_and(|code| LEADERSHIP.contains(&code));
            assert!(lost && Instant::now() < end, "{sql}: {error}");
        }
    }

    /// Makes a member a voter, however long its databases are on their way.
    fn promote(&self, id: u64) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.cluster.assign(id, Role::Voter) {
            assert!(Instant::now() < end, "{error}");
        }
    }

    /// Stops nodes and starts them again.
    fn restart(&mut self, ids: &[u64]) {
        for id in ids {
            self.cluster.stop(*id).unwrap();
        }
        for id in ids {
            self.cluster.start(*id).unwrap();
        }
    }

    /// Prints what was done and how much memory it took so far; no process may need more than the bound.
    fn done(&mut self, what: &str) {
        println!("{what}: {:.1} s", self.began.elapsed().as_secs_f64());
        for id in self.cluster.live() {
            let process = self.cluster.process(id).unwrap().id();
            let own = peak_mib(process);
            let counted = match &self.limit {
                Ok(limit) => format!("{} MiB with page cache", limit.peak_bytes(process).unwrap() >> 20),
                Err(_) => "page cache not counted".to_owned(),
            };
            println!("  node {id}: peak {own} MiB resident, {counted}");
            assert!(own <= self.limit_mib + SHARED_MIB, "node {id} had {own} MiB of memory of its own");
        }
        self.began = Instant::now();
    }

    fn digests(&self) -> Vec<(u64, u64)> {
        let digest = |id: u64| {
            let mut client = self.cluster.client(id).unwrap();
            client.set_timeout(PATIENCE).unwrap();
            client.dump_digest(DATABASE).unwrap()
        };
        self.cluster.live().into_iter().map(digest).collect()
    }

    /// Waits until both nodes hold the same pages; nobody writes meanwhile.
    fn wait_equal(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let digests = self.digests();
            if digests.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < end, "the nodes differ: {digests:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Most memory of its own that a process had so far.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn insert(client: &mut Client, first: u64) {
    let sql = format!(
        "INSERT INTO t SELECT value, abs(random()) % 1000000, randomblob(950) FROM (WITH RECURSIVE n(value) AS \
         (VALUES({first}) UNION ALL SELECT value + 1 FROM n LIMIT {ROWS}) SELECT value FROM n)"
    );
    client.exec(&sql, &[]).unwrap();
}

#[test]
fn a_database_larger_than_memory_is_used_in_every_way() {
    let size_mib = setting("DQLITE_TEST_DISK_MIB", SIZE_MIB);
    let limit_mib = setting("DQLITE_TEST_LIMIT_MIB", LIMIT_MIB);
    assert!(limit_mib >= FLOOR_MIB, "a node needs {FLOOR_MIB} MiB for itself");
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let limit = MemoryLimit::new(limit_mib << 20);
    let program = match &limit {
        Ok(limit) => limit.wrap(&options.program, folder.path()).unwrap(),
        Err(reason) => {
            println!("{reason}: only the memory of the processes themselves is measured");
            options.program.clone()
        }
    };
    let entries = (size_mib / 4).max(20);
    let threshold = format!("--snapshot-threshold={entries}");
    let trailing = format!("--snapshot-trailing={entries}");
    // Timers that a slow disk does not disturb.
    let arguments = ["--disk-mode", "--latency-ms=1000", &threshold, &trailing];
    let libraries = [options.library.clone()];
    let nodes = folder.path().join("nodes");
    let cluster = Cluster::of_voters(&program, &nodes, &arguments, &libraries).unwrap();
    let mut world = World { cluster, limit, limit_mib, began: Instant::now() };
    println!("a database of {size_mib} MiB, nodes of {limit_mib} MiB");

    let mut client = world.client();
    client.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, b BLOB)", &[]).unwrap();
    for number in 0..size_mib {
        insert(&mut client, number * ROWS);
    }
    let rows = (size_mib * ROWS) as i64;
    world.done("written");
    let written = client.number("PRAGMA page_count").unwrap() as u64;
    assert!(written * 4096 >= (size_mib << 20) * 9 / 10, "only {written} pages");
    // It is written behind those who serve clients, and may take its time.
    let taken = |cluster: &Cluster| match cluster.has_snapshot(FIRST_ID) {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    world.cluster.wait("a snapshot", SNAPSHOT_WAIT, SNAPSHOT_PAUSE, taken).unwrap();

    assert_eq!(client.number("SELECT count(*) FROM t WHERE length(b) = 950").unwrap(), rows);
    world.done("read");
    client.exec("CREATE INDEX t_k ON t(k, substr(b, 1, 40))", &[]).unwrap();
    assert_eq!(client.number("SELECT count(*) FROM t WHERE k >= 0").unwrap(), rows);
    world.done("indexed");

    let pages = client.number("PRAGMA page_count").unwrap() as u64;
    let vacuumed = client.exec("VACUUM", &[]).map_err(|error| error.code());
    if pages * PAGE_IN_ENTRY_BYTES > ENTRY_MAX_BYTES {
        assert_eq!(vacuumed, Err(Some(FULL)), "{pages} pages in one entry");
        world.done("a VACUUM that would be too large for one entry was refused");
    } else {
        vacuumed.unwrap();
        world.done(&format!("vacuumed, {} MiB in one entry", (pages * PAGE_IN_ENTRY_BYTES) >> 20));
    }
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), rows);
    drop(client);

    // No snapshot contains the last entry: it is read and applied again.
    world.restart(&[FIRST_ID]);
    let mut client = world.client();
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), rows);
    world.done("started again with all rows");

    // Behind the next snapshot: an entry as large as the database takes a slow disk longer than voters wait for each other.
    for _ in 0..=2 * entries {
        client.exec("UPDATE t SET k = k + 1 WHERE id = 0", &[]).unwrap();
    }
    world.cluster.join(2, &options.library, Role::Spare).unwrap();
    world.promote(2);
    world.done("sent to another node");
    world.wait_equal();
    world.done("dumped by both nodes, and equal");
    drop(client);

    world.restart(&[FIRST_ID, 2]);
    let mut client = world.client();
    assert_eq!(client.number("SELECT count(*) FROM t WHERE k >= 0").unwrap(), rows);
    drop(client);
    world.done("both started again with all rows");

    let kept = rows / 8;
    let deleted_at_once = (rows / 40).max(20_000);
    let mut end = rows;
    while end > kept {
        // One statement would change more pages than one entry takes.
        end = (end - deleted_at_once).max(kept);
        world.exec(&format!("DELETE FROM t WHERE id >= {end}"));
    }
    world.done("most rows deleted");
    world.exec("VACUUM");
    let mut client = world.client();
    let left = client.number("PRAGMA page_count").unwrap() as u64;
    assert!(left < pages / 2, "{left} pages of {pages}");
    world.done("vacuumed, on both nodes");
    insert(&mut client, rows as u64);
    world.wait_equal();
    world.done("dumped by both nodes, and equal");
    drop(client);

    let before = world.digests();
    world.restart(&[FIRST_ID, 2]);
    let mut client = world.client();
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), kept + ROWS as i64);
    world.done("both started again");
    world.wait_equal();
    assert_eq!(world.digests(), before);
    assert_eq!(client.query("PRAGMA integrity_check", &[]).unwrap().rows.len(), 1);
    world.done("checked");
}
