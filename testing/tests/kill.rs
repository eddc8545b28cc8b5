//! One node in a process of its own, killed again and again while clients write.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dqlite::protocol::request::Value;
use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::process::NodeProcess;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Writers at once.
const WRITERS: u64 = 4;
/// Kills; the floor of acknowledged rows follows from them.
const KILLS: u64 = 20;

/// Writes numbers of its own until told to stop; the last one that was acknowledged.
fn write(address: &str, writer: u64, from: u64, stop: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    let Ok(mut client) = Client::connect(address, TIMEOUT) else { return from };
    if client.open("test.db").is_err() {
        return from;
    }
    let mut next = from;
    while !stop.load(Ordering::Relaxed) {
        let values = [Value::Integer(writer as i64), Value::Integer(next as i64 + 1)];
        match client.exec("INSERT OR REPLACE INTO t(writer, n) VALUES(?, ?)", &values) {
            Ok(_) => next += 1,
            Err(_) => break,
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    next
}

// conformance: disk-format 11
#[test]
fn every_acknowledged_row_survives_twenty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut last = vec![0u64; WRITERS as usize];

    for round in 0..=KILLS {
        let mut node = NodeProcess::start(&options).unwrap();
        let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
        client.open("test.db").unwrap();
        if round == 0 {
            client.exec("CREATE TABLE t(writer INTEGER, n INTEGER, PRIMARY KEY(writer, n))", &[]).unwrap();
        }
        for (writer, acknowledged) in last.iter().enumerate() {
            let sql = format!("SELECT count(*) FROM t WHERE writer = {writer} AND n <= {acknowledged}");
            assert_eq!(client.number(&sql).unwrap() as u64, *acknowledged, "round {round}, writer {writer}");
        }
        if round == KILLS {
            let sound = client.query("PRAGMA integrity_check", &[]).unwrap();
            assert_eq!(sound.rows, vec![vec![Value::Text("ok".into())]]);
            assert!(node.stop().unwrap().success(), "{}", node.error_text());
            break;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (address, stop) = (node.address.clone(), Arc::clone(&stop));
                let (acknowledged, from) = (Arc::clone(&acknowledged), last[writer as usize]);
                std::thread::spawn(move || write(&address, writer, from, &stop, &acknowledged))
            })
            .collect();
        let wanted = acknowledged.load(Ordering::Relaxed) + 20 + 7 * round;
        while acknowledged.load(Ordering::Relaxed) < wanted {
            std::thread::yield_now();
        }
        node.kill().unwrap();
        stop.store(true, Ordering::Relaxed);
        last = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    }
    let total = acknowledged.load(Ordering::Relaxed);
    println!("{KILLS} kills, {total} acknowledged rows, 0 lost");
    assert!(total >= KILLS * 20);
}
