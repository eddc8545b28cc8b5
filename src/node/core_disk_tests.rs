//! Disk mode in a whole node: what a client sees of a page file that fails, and that nobody else sees anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::core::LiveSettings;
use super::core::{Core, CoreError};
use super::core_testing::{self, Client, start};
use crate::pages::PageSpace;
use crate::pages::testing::FaultyDisk;
use crate::protocol::request::Request;
use crate::raft::testing::TestDisk;
use crate::types::config::DISK_FULL_WAIT;

async fn start_in(disk: &TestDisk, seed: u64, space: PageSpace) -> Result<Core, CoreError> {
    core_testing::start_in(disk, seed, LiveSettings::default(), space).await
}

/// SQLITE_FULL.
const FULL: u64 = 13;
/// SQLITE_IOERR_READ.
const IOERR_READ: u64 = 266;
/// SQLITE_IOERR_WRITE.
const IOERR_WRITE: u64 = 778;

/// A disk, and pages on it of which next to none is cached.
fn faulty() -> (FaultyDisk, PageSpace) {
    let disk = FaultyDisk::default();
    let space = PageSpace::on_disk(Arc::new(disk.clone()), 0).unwrap();
    (disk, space)
}

const ROWS: &str = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 500)";

async fn fill(client: &mut Client) {
    client.exec("CREATE TABLE t(i INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let rows = format!("INSERT INTO t {ROWS} SELECT i, randomblob(3000) FROM n");
    assert_eq!(client.exec(&rows).await, Ok((500, 500)));
}

// conformance: c-api 38
#[tokio::test(start_paused = true)]
async fn pages_come_from_the_file_and_the_log_and_snapshots_hold_them_all() {
    let disk = TestDisk::bootstrapped();
    let (faults, space) = faulty();
    let core = start_in(&disk, 1, space.clone()).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    fill(&mut client).await;
    for _ in 0..80 {
        // More than one snapshot.
        client.exec("UPDATE t SET b = randomblob(3000) WHERE i % 50 = 7").await.unwrap();
    }
    assert_eq!(client.exec("DELETE FROM t WHERE i > 400").await, Ok((500, 100)));
    client.exec("VACUUM").await.unwrap();
    assert!(faults.0.reads.load(Ordering::SeqCst) > 1000, "the file was not read");
    assert!(disk.lock().snapshot.is_some());
    drop(client);
    core.stop().await;

    for (seed, space) in [(2, faulty().1), (3, PageSpace::memory())] {
        let core = start_in(&disk, seed, space).await.unwrap();
        let mut client = Client::open(&core, "test.db").await;
        assert_eq!(client.number("SELECT sum(i) AS n FROM t WHERE length(b) = 3000").await, 400 * 401 / 2);
        client.query("PRAGMA integrity_check").await.unwrap();
        drop(client);
        core.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_read_fails_one_statement_and_the_node_goes_on() {
    let (faults, space) = faulty();
    let core = start_in(&TestDisk::bootstrapped(), 1, space).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    fill(&mut client).await;
    let mut other = Client::open(&core, "other.db").await;
    other.exec("CREATE TABLE t(a)").await.unwrap();
    let mut reader = Client::open(&core, "test.db").await;

    faults.0.read.store(libc::EIO, Ordering::SeqCst);
    let failed = reader.query("SELECT sum(length(b)) AS n FROM t").await.unwrap_err();
    assert_eq!(failed, (IOERR_READ, "disk I/O error".to_owned()));
    other.exec("INSERT INTO t VALUES(1)").await.unwrap();
    faults.0.read.store(0, Ordering::SeqCst);

    assert_eq!(reader.number("SELECT sum(length(b)) AS n FROM t").await, 1_500_000);
    assert_eq!(client.exec("DELETE FROM t WHERE i = 1").await, Ok((500, 1)));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_written_rolls_the_statement_back() {
    let (faults, space) = faulty();
    let core = start_in(&TestDisk::bootstrapped(), 1, space.clone()).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    fill(&mut client).await;
    let rows = format!("INSERT INTO t {ROWS} SELECT i + 500, randomblob(3000) FROM n");
    let used = space.file().unwrap().slots().0;

    for (error, code) in [(libc::ENOSPC, FULL), (libc::EIO, IOERR_WRITE)] {
        faults.0.write.store(error, Ordering::SeqCst);
        assert_eq!(client.exec(&rows).await.unwrap_err().0, code);
        client.exec("BEGIN").await.unwrap();
        assert_eq!(client.exec(&rows).await.unwrap_err().0, code);
        // SQLite has rolled the whole transaction back, as it does after these errors.
        assert_eq!(client.exec("COMMIT").await.unwrap_err().0, 1);
        assert_eq!(client.exec("VACUUM").await.unwrap_err().0, code);
        faults.0.write.store(0, Ordering::SeqCst);

        assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 500);
        assert_eq!(space.file().unwrap().slots().0, used, "pages of a failed transaction stay");
    }

    assert_eq!(client.exec(&rows).await, Ok((1000, 500)));
    client.query("PRAGMA integrity_check").await.unwrap();
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_applied_stops_the_node_unless_only_space_is_missing() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(a)").await.unwrap();
    client.exec("INSERT INTO t VALUES(1)").await.unwrap();
    drop(client);
    core.stop().await;

    let (faults, space) = faulty();
    faults.0.write.store(libc::EIO, Ordering::SeqCst);
    let failed = start_in(&disk, 2, space).await.unwrap_err().to_string();
    assert!(failed.contains("page 2") && failed.contains("Input/output error"), "{failed}");

    let (faults, space) = faulty();
    faults.0.write.store(libc::ENOSPC, Ordering::SeqCst);
    let starting = tokio::time::timeout(Duration::from_secs(60), start_in(&disk, 3, space));
    let core = starting.await.expect("a start that returns, whatever the disk does").unwrap();
    assert!(core.engine().serving().is_none());
    faults.0.write.store(0, Ordering::SeqCst);
    let mut status = core.engine().status();
    status.wait_for(|status| status.serving.is_some()).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 1);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dump_that_cannot_read_a_page_ends_its_connection_alone() {
    let (faults, space) = faulty();
    let core = start_in(&TestDisk::bootstrapped(), 1, space).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    fill(&mut client).await;

    let mut dumping = Client::connect(&core).await;
    faults.0.read.store(libc::EIO, Ordering::SeqCst);
    dumping.send(Request::Dump { name: Bytes::from_static(b"test.db") }).await;
    let mut answer = Vec::new();
    dumping.0.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() < 500 * 4096, "{} bytes of a dump with a page that cannot be read", answer.len());
    faults.0.read.store(0, Ordering::SeqCst);

    let mut dumping = Client::connect(&core).await;
    let (kind, body) = dumping.call(Request::Dump { name: Bytes::from_static(b"test.db") }).await;
    assert_eq!(kind, 9);
    assert!(body.len() > 500 * 4096);
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 500);
    core.stop().await;
}

// A full disk is an answer: after a while, and nothing has happened. Reads go on, also on the same connection.
#[tokio::test(start_paused = true)]
async fn a_write_that_finds_no_space_on_the_disk_is_refused_and_did_not_happen() {
    let disk = TestDisk::bootstrapped();
    let full = disk.lock().space.0.clone();
    let core = start_in(&disk, 1, PageSpace::memory()).await.unwrap();
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(a)").await.unwrap();
    client.exec("INSERT INTO t VALUES(1)").await.unwrap();

    full.store(true, Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    let refused = client.exec("INSERT INTO t VALUES(2)").await.unwrap_err();
    assert_eq!(refused, (FULL, "database or disk is full".to_owned()));
    let waited = began.elapsed();
    assert!(waited >= DISK_FULL_WAIT && waited < DISK_FULL_WAIT * 2, "{waited:?}");
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 1);
    // It has been full for long enough.
    let began = tokio::time::Instant::now();
    assert_eq!(client.exec("CREATE TABLE u(a)").await.unwrap_err().0, FULL);
    assert!(began.elapsed() < DISK_FULL_WAIT / 2, "{:?}", began.elapsed());
    // A transaction is rolled back by the COMMIT that finds no space.
    client.exec("BEGIN").await.unwrap();
    client.exec("INSERT INTO t VALUES(3)").await.unwrap();
    assert_eq!(client.exec("COMMIT").await.unwrap_err().0, FULL);
    client.exec("BEGIN").await.unwrap();
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, 1);
    // What gives up needs no space.
    client.exec("INSERT INTO t VALUES(4)").await.unwrap();
    client.exec("ROLLBACK").await.unwrap();

    full.store(false, Ordering::SeqCst);
    client.exec("INSERT INTO t VALUES(2)").await.unwrap();

    // A short want of space costs nothing but time.
    full.store(true, Ordering::SeqCst);
    let frees = tokio::spawn(async move {
        tokio::time::sleep(DISK_FULL_WAIT / 2).await;
        full.store(false, Ordering::SeqCst);
    });
    client.exec("INSERT INTO t VALUES(5)").await.unwrap();
    frees.await.unwrap();
    assert_eq!(client.number("SELECT sum(a) AS n FROM t").await, 8);
    drop(client);
    core.stop().await;
}
