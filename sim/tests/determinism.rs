//! A whole node, SQL included, on one current-thread runtime: the same seed gives the same run, operation by operation.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite_sim::disk::SimDisk;
use dqlite_sim::node::{DIRECTORY, NodeSettings, SimClient, start};

/// Every file operation with a digest of its bytes, every answer, and the times of the node's own clock.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    operations: Vec<(String, u64)>,
    answers: Vec<(u8, Vec<u8>)>,
    times: Vec<Duration>,
    terms: Vec<u64>,
}

fn run(seed: u64) -> Trace {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new(Path::new(DIRECTORY));
        let policy =
            SnapshotPolicy { threshold_entries: 20, trailing_entries: 5, pace: SnapshotPace::Entries };
        let settings = NodeSettings { seed, policy, compress: true, segment_bytes: 64 * 1024 };
        let begin = tokio::time::Instant::now();
        let (mut answers, mut times, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        let core = start(&disk, settings).await.unwrap();
        for round in 0..4 {
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(SimClient::open(&core, "test.db").await.unwrap());
            }
            if round == 0 {
                assert!(clients[0].exec("CREATE TABLE t(id INTEGER PRIMARY KEY, n, r)").await);
            }
            for number in 0..5 {
                let [one, two, three] = clients.as_mut_slice() else { unreachable!("three clients") };
                let insert =
                    format!("INSERT INTO t(n, r) VALUES({round} * 100 + {number}, hex(zeroblob(300)))");
                let (first, second, _) = tokio::join!(
                    one.exec(&insert),
                    two.exec(&insert),
                    three.number("SELECT count(*) AS n FROM t")
                );
                assert!(first && second);
                times.push(begin.elapsed());
            }
            answers.extend(clients.into_iter().flat_map(|client| client.answers));
            // The next term begins when a random election timer says so.
            let mut status = core.engine().status();
            core.engine().step_down().await;
            let term =
                status.wait_for(|now| now.serving.is_some() && now.term.0 > 2 * round as u64 + 1).await;
            terms.push(term.unwrap().term.0);
            times.push(begin.elapsed());
        }
        core.stop().await;
        Trace { operations: disk.trace(), answers, times, terms }
    })
}

#[test]
fn one_seed_gives_one_run_of_a_whole_node() {
    let (first, again, other) = (run(7), run(7), run(8));

    println!(
        "{} file operations, {} answers, in {:?}",
        first.operations.len(),
        first.answers.len(),
        first.times.last()
    );
    assert!(first.operations.len() > 150 && first.answers.len() >= 60);
    assert_eq!(first, again);
    assert_ne!(first.times, other.times, "the timers do not depend on the seed");
}
