//! One node in a process of its own, stopped in good order again and again under load, in both modes of SQLite: each time the
//! directory starts again, sound, with every acknowledged row. DQLITE_STOP_ROUNDS says how often; `make torture-stops`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dqlite::protocol::request::Value;
use dqlite_testing::bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::process::{NodeOptions, NodeProcess};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Stops in each mode, unless DQLITE_STOP_ROUNDS says otherwise.
const ROUNDS: u64 = 15;
/// Writers of each kind.
const WRITERS: u64 = 2;
/// Statements of a text.
const STATEMENTS: u64 = 20;
/// Acknowledged rows in a round before the stop comes.
const ROWS_MIN: u64 = 30;
/// Longest time after that until the stop, in milliseconds.
const LATER_MAX_MS: u64 = 60;

/// Yields rows for a while, and writes as many.
const MANY_ROWS: &str = "INSERT INTO other(n) SELECT value FROM (WITH RECURSIVE c(value) AS \
    (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 3000) SELECT value FROM c) RETURNING n, hex(zeroblob(40))";
/// Cannot be interrupted; some tenths of a second.
const SEARCH: &str = "SELECT instr(zeroblob(120000), zeroblob(60000) || x'01')";
/// Reads until it is interrupted.
const COUNT: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c WHERE n < 0";

/// What the clients of one round share.
struct Round {
    address: String,
    /// Numbers of rows; none is used twice.
    next: Arc<AtomicU64>,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

/// One client: does the same again and again until its connection ends; the rows that were acknowledged.
type Work = fn(&mut Client, u64, u64) -> Result<(), ClientError>;

/// Row by row, each given back.
fn returning(client: &mut Client, from: u64, rows: u64) -> Result<(), ClientError> {
    assert_eq!(rows, 1);
    let written = client.query("INSERT INTO t(n) VALUES(?) RETURNING n", &[Value::Integer(from as i64)])?;
    assert_eq!(written.rows, [[Value::Integer(from as i64)]]);
    Ok(())
}

/// Several statements in a text, each a transaction of its own.
fn text(client: &mut Client, from: u64, rows: u64) -> Result<(), ClientError> {
    let statements: Vec<String> =
        (from..from + rows).map(|number| format!("INSERT INTO t(n) VALUES({number})")).collect();
    client.exec(&statements.join("; "), &[]).map(drop)
}

/// A transaction over several requests.
fn transaction(client: &mut Client, from: u64, rows: u64) -> Result<(), ClientError> {
    client.exec("BEGIN IMMEDIATE", &[])?;
    for number in from..from + rows {
        client.exec("INSERT INTO t(n) VALUES(?)", &[Value::Integer(number as i64)])?;
    }
    client.exec("COMMIT", &[]).map(drop)
}

fn write(round: &Round, rows: u64, work: Work) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let Ok(mut client) = Client::connect(&round.address, TIMEOUT) else { return acknowledged };
    if client.open("test.db").is_err() {
        return acknowledged;
    }
    while !round.over.load(Ordering::Relaxed) {
        let from = round.next.fetch_add(rows, Ordering::Relaxed);
        match work(&mut client, from, rows) {
            Ok(()) => {
                acknowledged.extend(from..from + rows);
                round.acknowledged.fetch_add(rows, Ordering::Relaxed);
            }
            // Another's transaction was in the way; nothing of this is acknowledged.
            Err(error) if error.code().is_some_and(|code| code & 0xff == 5) => {
                drop(client.exec("ROLLBACK", &[]));
            }
            Err(_) => break,
        }
    }
    acknowledged
}

/// A client that only gets in the way, until its connection ends.
fn disturb(round: &Round, sql: &str) -> BTreeSet<u64> {
    let Ok(mut client) = Client::connect(&round.address, TIMEOUT) else { return BTreeSet::new() };
    let mut answer = client.open("test.db");
    while !round.over.load(Ordering::Relaxed) && answer.is_ok() {
        answer = client.query(sql, &[]).map(drop);
    }
    BTreeSet::new()
}

/// Starts the clients of a round.
fn load(round: &Arc<Round>) -> Vec<JoinHandle<BTreeSet<u64>>> {
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        for (rows, work) in [(1, returning as Work), (STATEMENTS, text), (3, transaction)] {
            let round = Arc::clone(round);
            clients.push(std::thread::spawn(move || write(&round, rows, work)));
        }
    }
    clients.push(disturbed_by(round, MANY_ROWS));
    clients
}

fn disturbed_by(round: &Arc<Round>, sql: &'static str) -> JoinHandle<BTreeSet<u64>> {
    let round = Arc::clone(round);
    std::thread::spawn(move || disturb(&round, sql))
}

/// The node of the round before has every row that it acknowledged, and a sound database.
fn check(client: &mut Client, acknowledged: &BTreeSet<u64>, round: u64) {
    let sound = client.query("PRAGMA integrity_check", &[]).unwrap();
    assert_eq!(sound.rows, [[Value::Text("ok".into())]], "after stop {round}");
    let rows = client.query("SELECT n FROM t", &[]).unwrap().rows;
    let there: BTreeSet<u64> = rows
        .iter()
        .map(|row| match row[..] {
            [Value::Integer(number)] => number as u64,
            _ => panic!("{row:?}"),
        })
        .collect();
    let lost: Vec<&u64> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "after stop {round}: lost {lost:?}");
}

fn stop_under_load(options: &NodeOptions) {
    let rounds = std::env::var("DQLITE_STOP_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut random = SmallRng::seed_from_u64(rounds);
    let (next, mut acknowledged, mut total) = (Arc::new(AtomicU64::new(1)), BTreeSet::new(), 0);
    let mut longest = Duration::ZERO;
    for number in 0..=rounds {
        let mut node = NodeProcess::start(options).unwrap();
        let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
        client.open("test.db").unwrap();
        client.exec("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)", &[]).unwrap();
        client.exec("CREATE TABLE IF NOT EXISTS other(n, b DEFAULT (zeroblob(300)))", &[]).unwrap();
        check(&mut client, &acknowledged, number);
        if number == rounds {
            assert!(node.stop().unwrap().success(), "{}", node.error_text());
            break;
        }
        client.exec("DELETE FROM t; DELETE FROM other", &[]).unwrap();
        let (address, next) = (node.address.clone(), Arc::clone(&next));
        let round =
            Arc::new(Round { address, next, acknowledged: AtomicU64::new(0), over: AtomicBool::new(false) });
        let mut clients = load(&round);
        let patience = Instant::now();
        while round.acknowledged.load(Ordering::Relaxed) < ROWS_MIN {
            assert!(patience.elapsed() < TIMEOUT, "round {number}: nobody can write");
            std::thread::yield_now();
        }
        // In single-thread mode nobody else gets on beside these.
        clients.push(disturbed_by(&round, if number.is_multiple_of(3) { SEARCH } else { COUNT }));
        std::thread::sleep(Duration::from_millis(random.random_range(0..=LATER_MAX_MS)));
        let began = Instant::now();
        let stopped = node.stop().unwrap();
        longest = longest.max(began.elapsed());
        assert!(stopped.success(), "round {number}: {}", node.error_text());
        round.over.store(true, Ordering::Relaxed);
        acknowledged = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        total += acknowledged.len();
    }
    println!("{rounds} stops under load, {total} acknowledged rows, 0 lost, longest stop {longest:?}");
    assert!(total as u64 >= rounds * ROWS_MIN);
}

#[test]
fn every_stop_under_load_leaves_a_sound_log() {
    let folder = tempfile::tempdir().unwrap();
    stop_under_load(&bed::options(folder.path()));
}

// conformance: c-api 72
#[test]
fn every_stop_under_load_leaves_a_sound_log_in_single_thread_mode() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = bed::options(folder.path());
    options.arguments.push("--single-thread".into());
    stop_under_load(&options);
}
