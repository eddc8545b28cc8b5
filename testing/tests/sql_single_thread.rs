//! SQLite in its single-thread mode, as hosts in Go use it: while one statement runs, no other enters SQLite, and everything that needs
//! no SQL is answered all the same, whatever clients do meanwhile.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::request::Request;
use dqlite::protocol::response::Kind;
use dqlite_testing::alone::{ANSWER_MAX, Alone, DATABASE, DONE, ENDLESS, query_sql};
use dqlite_testing::client::Client;

const ARGUMENTS: [&str; 1] = ["--single-thread"];
/// Longest answer to LEADER: a node whose threads wait gives none.
const LEADER_MAX: Duration = Duration::from_secs(8);

/// A client whose statement runs until it is interrupted.
fn busy(alone: &Alone) -> Client {
    let mut client = alone.client(ANSWER_MAX);
    client.send(&query_sql(ENDLESS)).unwrap();
    // Until it runs.
    std::thread::sleep(Duration::from_millis(500));
    client
}

fn interrupt(client: &mut Client) {
    client.send(&Request::Interrupt { db: 0 }).unwrap();
    while client.receive().unwrap().0 != Kind::Empty as u8 {}
}

/// LEADER on a new connection.
fn ask_leader(alone: &Alone) -> u64 {
    let asked = Client::connect(&alone.node.address, LEADER_MAX).and_then(|mut client| client.leader());
    asked.unwrap_or_else(|error| panic!("LEADER beside a statement, within {LEADER_MAX:?}: {error}")).0
}

/// Two clients, as many as threads serve connections, leave in this way while a statement runs.
fn assert_leaving_holds_nobody_up(leave: impl Fn(Client, u32)) {
    let alone = Alone::start(&ARGUMENTS);
    let mut leavers: Vec<(Client, u32)> = Vec::new();
    for _ in 0..2 {
        let mut client = alone.client(ANSWER_MAX);
        let statement = client.prepare("SELECT 1").unwrap();
        leavers.push((client, statement));
    }
    let mut busy = busy(&alone);

    for (client, statement) in leavers {
        leave(client, statement);
    }
    // Until the node has seen that.
    std::thread::sleep(Duration::from_millis(500));

    assert_eq!(ask_leader(&alone), alone.options.id);
    interrupt(&mut busy);
    assert_eq!(alone.outcome_of("CREATE TABLE t(n)", ANSWER_MAX), DONE);
}

#[test]
fn connections_that_close_beside_a_statement_hold_nobody_up() {
    assert_leaving_holds_nobody_up(|client, _| drop(client));
}

#[test]
fn connections_that_are_reset_beside_a_statement_hold_nobody_up() {
    assert_leaving_holds_nobody_up(|client, _| client.reset().unwrap());
}

#[test]
fn statements_that_are_finalized_beside_a_statement_hold_nobody_up() {
    // The connections stay, so that only FINALIZE is looked at.
    let kept = std::sync::Mutex::new(Vec::new());
    assert_leaving_holds_nobody_up(|mut client, stmt| {
        client.send(&Request::Finalize { db: 0, stmt }).unwrap();
        kept.lock().unwrap().push(client);
    });
}

/// Asks LEADER on one connection until told to stop: how long each answer took.
fn leader_times(alone: &Alone, over: &AtomicBool) -> Vec<Duration> {
    let mut client = Client::connect(&alone.node.address, LEADER_MAX).unwrap();
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let asked = client.leader();
        assert!(
            asked.is_ok(),
            "LEADER beside connections that come and go, within {LEADER_MAX:?}: {asked:?}"
        );
        times.push(begin.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    times
}

// What was measured is printed; the bounds are those that a busy machine keeps, too.
#[test]
fn connections_that_come_and_go_beside_a_long_statement_delay_no_other_request() {
    const CONNECTIONS: usize = 200;
    const STATEMENT: Duration = Duration::from_secs(10);
    const MEDIAN_MAX: Duration = Duration::from_millis(50);
    const LONGEST_MAX: Duration = Duration::from_secs(2);
    let alone = Alone::start(&ARGUMENTS);
    let mut there: Vec<Client> = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = alone.client(ANSWER_MAX);
        client.prepare("SELECT 1").unwrap();
        there.push(client);
    }
    let mut busy = busy(&alone);
    let begin = Instant::now();

    let over = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        let asked = scope.spawn(|| leader_times(&alone, &over));
        for gone in there {
            drop(gone);
            // It comes, asks for what has to wait for SQLite, and goes.
            let mut client = Client::connect(&alone.node.address, LEADER_MAX).unwrap();
            let name = Bytes::from_static(DATABASE.as_bytes());
            client.send(&Request::Open { name, flags: 0, vfs: Bytes::new() }).unwrap();
            client.send(&query_sql("SELECT 1")).unwrap();
            std::thread::sleep(STATEMENT / CONNECTIONS as u32);
        }
        over.store(true, Ordering::Relaxed);
        asked.join().unwrap()
    });
    let ran = begin.elapsed();
    interrupt(&mut busy);

    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{CONNECTIONS} connections came and went beside a statement of {ran:.1?}; {} LEADER: median {median:.1?}, longest {longest:.1?}",
        times.len()
    );
    assert!(median <= MEDIAN_MAX && longest <= LONGEST_MAX, "median {median:?}, longest {longest:?}");
    assert_eq!(alone.outcome_of("CREATE TABLE t(n)", ANSWER_MAX), DONE, "afterwards");
}
