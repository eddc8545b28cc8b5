//! A whole node, SQL included, whose power is cut at every file operation of its life: what it acknowledged is there
//! afterwards, and it starts.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite_sim::disk::{Fault, SimDisk};
use dqlite_sim::node::{DIRECTORY, NodeSettings, SimClient, start};

/// Transactions of a run.
const WRITES: u64 = 40;
/// Longest time without an answer, on the node's own clock.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(seed: u64) -> NodeSettings {
    NodeSettings {
        seed,
        policy: SnapshotPolicy { threshold_entries: 9, trailing_entries: 5, pace: SnapshotPace::Entries },
        compress: seed.is_multiple_of(2),
        segment_bytes: 32 * 1024,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Writes half of the rows; how many were acknowledged in all.
async fn write(disk: &SimDisk, seed: u64, half: u64, acknowledged: u64) -> u64 {
    let started = tokio::time::timeout(PATIENCE, start(disk, settings(seed + half))).await;
    let Ok(Ok(core)) = started else { return acknowledged };
    let mut done = acknowledged;
    let work = async {
        let Some(mut client) = SimClient::open(&core, "test.db").await else { return };
        if half == 0 && !client.exec("CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)").await {
            return;
        }
        while done < (half + 1) * WRITES / 2 {
            let next = done + 1;
            let sql = format!("INSERT INTO t VALUES({next}, hex(zeroblob({})))", (next % 7) * 700);
            if !client.exec(&sql).await {
                return;
            }
            done = next;
        }
    };
    // A node without power or space does not answer.
    let _ = tokio::time::timeout(PATIENCE, work).await;
    let _ = tokio::time::timeout(PATIENCE, core.stop()).await;
    done
}

/// Writes `WRITES` rows, with a clean stop in the middle; how many were acknowledged.
fn run(disk: &SimDisk, seed: u64) -> u64 {
    let mut acknowledged = 0;
    for half in 0..2 {
        acknowledged = runtime().block_on(write(disk, seed, half, acknowledged));
        if disk.is_off() || acknowledged < (half + 1) * WRITES / 2 {
            break;
        }
    }
    acknowledged
}

/// Starts on what is left and counts the rows.
fn check(disk: &SimDisk, acknowledged: u64, what: &str) {
    runtime().block_on(async {
        let started = tokio::time::timeout(PATIENCE, start(disk, settings(1000))).await;
        let core = match started {
            Ok(Ok(core)) => core,
            Ok(Err(error)) => panic!("{what}: {error:?}"),
            Err(_) => panic!("{what}: no start"),
        };
        let mut client =
            SimClient::open(&core, "test.db").await.unwrap_or_else(|| panic!("{what}: not opened"));
        assert!(client.exec("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, s TEXT)").await, "{what}");
        let count = client.number("SELECT count(*) AS n FROM t").await.unwrap();
        let last = client.number("SELECT coalesce(max(n), 0) AS n FROM t").await.unwrap();
        assert_eq!(count, last, "{what}: a gap");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&count),
            "{what}: {count} rows, {acknowledged} acknowledged"
        );
        let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
        assert_eq!(client.number(sound).await, Some(1), "{what}");
        assert!(client.exec("INSERT INTO t VALUES(1000000, 'after')").await, "{what}");
        core.stop().await;
    });
}

fn disk() -> SimDisk {
    SimDisk::new(Path::new(DIRECTORY))
}

// conformance: disk-format 8, 15
#[test]
fn the_power_may_be_cut_at_every_file_operation() {
    let mut cuts = 0;
    for seed in [2, 3] {
        let whole = disk();
        assert_eq!(run(&whole, seed), WRITES);
        let operations = whole.operations();
        check(&whole, WRITES, "no cut");
        for operation in 1..=operations {
            let cut = disk();
            cut.plan(operation, Fault::Cut);
            let acknowledged = run(&cut, seed);
            assert!(cut.is_off(), "operation {operation} was not reached");
            cuts += 1;
            for outcome in 0..2 {
                let what = format!("seed {seed}, cut at operation {operation}, outcome {outcome}");
                check(&cut.after_power_cut(operation * 10 + outcome), acknowledged, &what);
            }
        }
    }
    println!("{cuts} cut points, 2 outcomes each, 0 acknowledged rows lost, 0 starts refused");
    assert!(cuts >= 500, "{cuts} cut points");
}

// conformance: disk-format 18
#[test]
fn an_operation_may_fail_or_find_no_space() {
    let whole = disk();
    assert_eq!(run(&whole, 2), WRITES);
    let mut faults = 0;
    for operation in 1..=whole.operations() {
        for fault in [Fault::Error, Fault::NoSpace { operations: 3 }] {
            let failing = disk();
            failing.plan(operation, fault);
            let acknowledged = run(&failing, 2);
            faults += 1;
            let what = format!("{fault:?} at operation {operation}");
            check(&failing.after_power_cut(operation), acknowledged, &what);
        }
    }
    println!("{faults} faults, 0 acknowledged rows lost, 0 starts refused");
    assert!(faults >= 500, "{faults} faults");
}
