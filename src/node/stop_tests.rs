//! What a stop leaves behind, whoever is in the middle of something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;

use super::core_testing::{Client, exec_sql, start};
use super::running_tests;

use crate::raft::testing::TestDisk;
use crate::raft::{LogPhase, Proposed};
use crate::storage::directory::Directory;
use crate::storage::file_disk::FileDisk;
use crate::types::EntryData;
use crate::types::config::{STOP_INSIDE_MAX, STOP_LEFT_MAX};

#[test]
fn a_proposer_that_is_dropped_with_its_runtime_ends_the_wait_for_all_versions() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let disk = TestDisk::bootstrapped();
    let (database, epoch, handed_on, queued) = runtime.block_on(async {
        let core = start(&disk, 1).await;
        let mut first = Client::open(&core, "test.db").await;
        first.exec("CREATE TABLE t(a)").await.unwrap();
        let database = core.executor().store().get(b"test.db").unwrap();
        let mut second = Client::open(&core, "test.db").await;
        // In the log, and not durable.
        disk.lock().held = true;
        first.send(exec_sql("INSERT INTO t VALUES(1)")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let handed_on = database.head().root.version();
        // Still in the queue.
        let phase = disk.lock().phase.clone();
        phase.send_replace(LogPhase::Busy);
        second.send(exec_sql("INSERT INTO t VALUES(2)")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        (Arc::clone(&database), core.executor().store().epoch(), handed_on, database.head().root.version())
    });
    assert!(handed_on < queued);
    let waits = [handed_on, queued].map(|version| database.when_applied(epoch, version));

    drop(runtime);

    for wait in waits {
        let ended = wait.now_or_never().expect("somebody waits for ever");
        ended.expect_err("it is not applied");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_began_nothing_is_proposed_and_no_epoch_begins() {
    let disk = TestDisk::bootstrapped();
    let core = start(&disk, 1).await;
    let mut client = Client::open(&core, "test.db").await;
    client.exec("CREATE TABLE t(a)").await.unwrap();
    client.exec("BEGIN").await.unwrap();
    client.exec("INSERT INTO t VALUES(1)").await.unwrap();
    let (engine, epoch) = (core.engine().clone(), core.executor().store().epoch());
    let logged = disk.lock().entries.len();

    engine.end_proposals();

    let nothing = || Proposed { data: EntryData::from_bytes(Bytes::from_static(&[0; 8])), merges: false };
    assert!(engine.propose(epoch, nothing(), |_| true).is_err());
    assert_eq!(client.exec("COMMIT").await.unwrap_err().0, 10250);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(engine.serving(), None);
    assert_eq!(core.executor().store().epoch(), epoch + 1);
    assert_eq!(disk.lock().entries.len(), logged);
    assert!(core.stop().await.is_quiet);
}

#[test]
fn the_directory_is_free_before_a_statement_that_nothing_interrupts_ends_and_the_stop_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (running, address) = running_tests::start(folder.path());
    let mut running = running.unwrap();
    let mut client = running_tests::connect(&address);
    assert_eq!(running_tests::exec(&mut client, "CREATE TABLE t(n)").0, 6);
    let long = running_tests::deaf_for(&mut client, STOP_INSIDE_MAX * 2);
    std::io::Write::write_all(&mut client, &long.encode().unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(300));

    let began = Instant::now();
    let stopping = std::thread::spawn(move || {
        let stopped = running.stop();
        (stopped, Instant::now())
    });
    let directory = Directory::open(&FileDisk, folder.path()).unwrap();
    let free = loop {
        match directory.lock() {
            Ok(lock) => break (lock, Instant::now()).1,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(began.elapsed() < STOP_LEFT_MAX, "the directory is never given up");
    };
    let (stopped, returned) = stopping.join().unwrap();

    println!("the directory is free after {:?}, the stop returns after {:?}", free - began, returned - began);
    assert_eq!(stopped, Ok(()));
    assert!(free - began < STOP_INSIDE_MAX + Duration::from_secs(3));
    assert!(returned > free + Duration::from_secs(1), "nobody was inside SQLite");
    let (again, address) = running_tests::start(folder.path());
    let mut client = running_tests::connect(&address);
    assert_eq!(running_tests::exec(&mut client, "INSERT INTO t VALUES(1)").0, 6);
    again.unwrap().stop().unwrap();
}
