//! Transactions of several requests in contention: 16 clients with LXD's rules for a retry and 16 that give up at the first
//! error, on a cluster of three. A transaction whose COMMIT was answered is there once, one that failed is not, and with
//! LXD's rules every one is made. On this library in every run, on upstream's by `make check-upstream`, which sets
//! `UPSTREAM` to the folder of its versions. spec: client-protocol 15.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use dqlite::protocol::request::Value;
use dqlite_testing::bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::cluster::Cluster;
use dqlite_testing::process::Library;
use dqlite_testing::upstream;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const DATABASE: &str = "test.db";
/// Clients of each kind.
const CLIENTS: u64 = 16;
/// Transactions that each client makes.
const TRANSACTIONS: u64 = 8;
const TIMEOUT: Duration = Duration::from_secs(60);
/// LXD's number of retries and the pause between two.
const RETRIES_MAX: u64 = 250;
const RETRY_PAUSE_MS: std::ops::RangeInclusive<u64> = 20..=180;
/// SQLITE_BUSY, the code that LXD retries; the texts that it retries whatever the code.
const BUSY: u64 = 5;
const WITHIN: &str = "cannot start a transaction within a transaction";
const RETRIED: [&str; 4] = ["database is locked", WITHIN, "bad connection", "checkpoint in progress"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Lxd,
    None,
}

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    committed: Vec<u64>,
    given_up: u64,
    retries: u64,
    retries_of_one: u64,
}

fn is_retried(error: &ClientError) -> bool {
    let text = error.to_string();
    error.code() == Some(BUSY) || RETRIED.iter().any(|part| text.contains(part))
}

/// Reads, then writes: the order in which two transactions get into each other's way.
fn transaction(client: &mut Client, key: u64) -> Result<(), ClientError> {
    client.exec("BEGIN", &[])?;
    client.number("SELECT n FROM counter")?;
    client.exec("INSERT INTO t(key) VALUES(?)", &[Value::Integer(key.cast_signed())])?;
    client.exec("UPDATE counter SET n = n + 1", &[])?;
    client.exec("COMMIT", &[]).map(drop)
}

fn run(address: &str, rules: Rules, number: u64) -> Seen {
    let mut random = SmallRng::seed_from_u64(number);
    let mut client = Client::connect(address, TIMEOUT).unwrap();
    client.open(DATABASE).unwrap();
    let mut seen = Seen::default();
    for key in number * TRANSACTIONS..(number + 1) * TRANSACTIONS {
        let mut retries = 0;
        loop {
            let Err(error) = transaction(&mut client, key) else {
                seen.committed.push(key);
                break;
            };
            // Whatever went wrong, it must be one of the refusals that say that nothing happened.
            assert!(is_retried(&error), "{rules:?}: {error}");
            // There may be no transaction any more.
            let _ = client.exec("ROLLBACK", &[]);
            if rules == Rules::None {
                seen.given_up += 1;
                break;
            }
            retries += 1;
            assert!(retries <= RETRIES_MAX, "a transaction was not made in {RETRIES_MAX} attempts: {error}");
            std::thread::sleep(Duration::from_millis(random.random_range(RETRY_PAUSE_MS)));
        }
        seen.retries += retries;
        seen.retries_of_one = seen.retries_of_one.max(retries);
    }
    seen
}

/// Clients of both kinds at once; no transaction may be lost, double, or half done.
fn contend(program: &Path, folder: &Path, library: &Library, label: &str) {
    let cluster =
        Cluster::of_voters(program, folder, &["--latency-ms=50"], &vec![library.clone(); 3]).unwrap();
    let mut client = cluster.database(DATABASE).unwrap();
    client.exec("CREATE TABLE t(key INTEGER NOT NULL)", &[]).unwrap();
    client.exec("CREATE TABLE counter(n INTEGER NOT NULL)", &[]).unwrap();
    client.exec("INSERT INTO counter VALUES(0)", &[]).unwrap();
    let address = cluster.address(cluster.leader().unwrap()).unwrap().to_owned();
    let begin = Instant::now();

    let threads: Vec<_> = (0..2 * CLIENTS)
        .map(|number| {
            let rules = if number < CLIENTS { Rules::Lxd } else { Rules::None };
            let address = address.clone();
            (rules, std::thread::spawn(move || run(&address, rules, number)))
        })
        .collect();
    let all: Vec<(Rules, Seen)> =
        threads.into_iter().map(|(rules, thread)| (rules, thread.join().unwrap())).collect();
    let took = begin.elapsed();

    let mut committed: Vec<i64> =
        all.iter().flat_map(|(_, seen)| seen.committed.iter().map(|key| key.cast_signed())).collect();
    committed.sort_unstable();
    let rows = client.query("SELECT key FROM t ORDER BY key", &[]).unwrap().rows;
    let found: Vec<Value> = rows.into_iter().flatten().collect();
    assert_eq!(found, committed.iter().map(|key| Value::Integer(*key)).collect::<Vec<_>>(), "{label}");
    assert_eq!(client.number("SELECT n FROM counter").unwrap(), committed.len() as i64, "{label}");
    let of = |wanted: Rules| all.iter().filter(move |(rules, _)| *rules == wanted).map(|(_, seen)| seen);
    let made = of(Rules::Lxd).map(|seen| seen.committed.len() as u64).sum::<u64>();
    assert_eq!(made, CLIENTS * TRANSACTIONS, "{label}");
    println!(
        "{label}: {made} transactions with LXD's rules, {} retries, at most {} of one; without rules {} made and {} given up; \
         0 lost; {took:.1?}",
        of(Rules::Lxd).map(|seen| seen.retries).sum::<u64>(),
        of(Rules::Lxd).map(|seen| seen.retries_of_one).max().unwrap(),
        of(Rules::None).map(|seen| seen.committed.len()).sum::<usize>(),
        of(Rules::None).map(|seen| seen.given_up).sum::<u64>(),
    );
}

#[test]
fn no_transaction_is_lost_in_contention_and_lxd_makes_every_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    contend(&options.program, &folder.path().join("nodes"), &options.library, "this library");
}

#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn the_same_clients_on_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    for root in upstream::roots() {
        let label = upstream::version_of(&root);
        contend(&options.program, &folder.path().join(&label), &Library::of_root(&root), &label);
    }
}
