//! The writer's turn is given back: a client that has not written, or is gone, keeps nobody from writing.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dqlite::protocol::response::Kind;
use dqlite::types::config::STATEMENT_WITHOUT_CLIENT_MAX;
use dqlite_testing::alone::{ANSWER_MAX, Alone, DATABASE, DONE, ENDLESS, exec_sql, outcome, query_sql};
use dqlite_testing::bed::Bed;
use dqlite_testing::client::Client;

/// A write that takes a while inside SQLite.
const LONG_WRITE: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000000) INSERT INTO t SELECT count(*) FROM c";
const LOOK_AGAIN: Duration = Duration::from_millis(100);

// A write in an old snapshot that first had to wait for another's.
#[test]
fn a_transaction_that_got_517_after_waiting_keeps_nobody_from_writing() {
    const ATTEMPTS: u32 = 20;
    let alone = Alone::start(&[]);
    let (mut reader, mut writer) = (alone.client(ANSWER_MAX), alone.client(ANSWER_MAX));
    reader.exec("CREATE TABLE t(n)", &[]).unwrap();

    let refused = (1..=ATTEMPTS).find_map(|attempt| {
        reader.exec("BEGIN", &[]).unwrap();
        reader.query("SELECT * FROM t", &[]).unwrap();
        writer.send(&exec_sql(LONG_WRITE)).unwrap();
        // Nothing shows when the other has its turn: too early, and this write comes first.
        std::thread::sleep(attempt * LOOK_AGAIN);
        let refused = outcome(reader.exec("INSERT INTO t VALUES(2)", &[]));
        if refused == DONE {
            reader.exec("COMMIT", &[]).unwrap();
        }
        writer.receive().unwrap();
        (refused != DONE).then_some(refused)
    });

    let refused = refused.expect("the write in an old snapshot was never refused");
    assert!(refused.starts_with("517 ") || refused.starts_with("5 "), "{refused}");
    let answer = alone.outcome_of("INSERT INTO t VALUES(3)", ANSWER_MAX);
    assert_eq!(answer, DONE, "another client's INSERT after {refused}, the transaction being open");
    reader.exec("ROLLBACK", &[]).unwrap();
    reader.exec("INSERT INTO t VALUES(4)", &[]).unwrap();
}

// FTS4's optimize() writes though it is called by a SELECT; its rows take two messages.
#[test]
fn a_select_whose_function_writes_ends_and_others_write_after_it() {
    let alone = Alone::start(&[]);
    let mut client = alone.client(ANSWER_MAX);
    client.exec("CREATE TABLE t(n); CREATE VIRTUAL TABLE f USING fts4(x)", &[]).unwrap();
    for number in 0..6 {
        client.exec(&format!("INSERT INTO f VALUES('word{number} common')"), &[]).unwrap();
    }

    let answer = outcome(client.query("SELECT optimize(f), zeroblob(3000) FROM f", &[]));
    let other = alone.outcome_of("INSERT INTO t VALUES(1)", ANSWER_MAX);

    assert_eq!(other, DONE, "another client's INSERT after SELECT optimize(f): {answer}");
    assert_ne!(answer, "no answer");
    // Whatever became of it, the connection goes on.
    assert_eq!(outcome(client.exec("INSERT INTO t VALUES(2)", &[])), DONE, "after {answer}");
    let matched = client.number("SELECT count(*) FROM f WHERE f MATCH 'common'").unwrap();
    assert_eq!(matched, 6);
}

#[test]
fn the_turn_of_a_client_that_does_not_read_ends_with_the_leadership() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &["--latency-ms=100"]);
    let first = cluster.leader().unwrap();
    let second = cluster.live().into_iter().find(|id| *id != first).unwrap();
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
    let mut slow = cluster.database(DATABASE).unwrap();
    slow.set_receive_buffer(4096).unwrap();
    slow.exec("BEGIN IMMEDIATE", &[]).unwrap();
    slow.send(&query_sql(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n, zeroblob(2000) FROM c",
    ))
    .unwrap();
    // Until the node has written all that the connection takes.
    std::thread::sleep(Duration::from_secs(2));

    cluster.transfer(second).unwrap();
    cluster.database(DATABASE).unwrap().exec("INSERT INTO t VALUES(1)", &[]).unwrap();
    cluster.transfer(first).unwrap();

    let end = Instant::now() + ANSWER_MAX;
    let address = cluster.address(first).unwrap().to_owned();
    let write = || {
        let mut client = Client::connect(&address, ANSWER_MAX)?;
        client.open(DATABASE)?;
        client.exec("INSERT INTO t VALUES(2)", &[])
    };
    let mut answer = outcome(write());
    while answer != DONE && Instant::now() < end {
        std::thread::sleep(LOOK_AGAIN);
        answer = outcome(write());
    }
    assert_eq!(answer, DONE, "an INSERT on the node that leads again, for {ANSWER_MAX:?}");
    let rows = cluster.database(DATABASE).unwrap().number("SELECT count(*) FROM t").unwrap();
    assert_eq!(rows, 2);
}

// Each would run for so long after its client is gone, if it began only then.
#[test]
fn endless_queries_of_clients_that_are_gone_end_together() {
    const CLIENTS: usize = 16;
    let write_max = STATEMENT_WITHOUT_CLIENT_MAX * 2;
    let alone = Alone::start(&[]);
    alone.client(ANSWER_MAX).exec("CREATE TABLE t(n)", &[]).unwrap();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| alone.client(ANSWER_MAX)).collect();
    for client in &mut clients {
        client.send(&query_sql(ENDLESS)).unwrap();
    }
    // Until those that can run do.
    std::thread::sleep(Duration::from_secs(1));

    drop(clients);
    let begin = Instant::now();
    let answer = alone.outcome_of("INSERT INTO t VALUES(1)", write_max);

    println!("{CLIENTS} clients with an endless query each have gone; a write took {:.1?}", begin.elapsed());
    assert_eq!(answer, DONE, "a write, within {write_max:?}");
}

#[test]
fn a_waiting_write_of_a_client_that_is_gone_does_not_take_place() {
    let alone = Alone::start(&["--busy-timeout=15000"]);
    let mut holder = alone.client(ANSWER_MAX);
    holder.exec("CREATE TABLE t(a)", &[]).unwrap();
    holder.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES('holder')", &[]).unwrap();
    let mut gone = alone.client(ANSWER_MAX);
    gone.send(&exec_sql("INSERT INTO t VALUES('gone')")).unwrap();
    // Until it waits.
    std::thread::sleep(Duration::from_secs(1));

    gone.reset().unwrap();
    // Until the node has seen that.
    std::thread::sleep(Duration::from_secs(2));
    holder.exec("COMMIT", &[]).unwrap();

    // Writes take their turns in order: this one comes after the other would have.
    holder.exec("INSERT INTO t VALUES('last')", &[]).unwrap();
    let mut reader = alone.client(ANSWER_MAX);
    assert_eq!(reader.number("SELECT count(*) FROM t WHERE a = 'gone'").unwrap(), 0);
    assert_eq!(reader.number("SELECT count(*) FROM t").unwrap(), 2);
}

/// An INTERRUPT ends it, and the connection is as good as before.
fn interrupt(client: &mut Client) {
    client.send(&dqlite::protocol::request::Request::Interrupt { db: 0 }).unwrap();
    while client.receive().unwrap().0 != Kind::Empty as u8 {}
}

#[test]
fn a_client_in_a_write_transaction_that_interrupts_its_query_keeps_its_transaction() {
    let alone = Alone::start(&[]);
    let mut client = alone.client(ANSWER_MAX);
    client.exec("CREATE TABLE t(n); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)", &[]).unwrap();
    client
        .send(&query_sql("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"))
        .unwrap();
    assert_eq!(client.receive().unwrap().0, Kind::Rows as u8);

    interrupt(&mut client);

    assert_eq!(alone.outcome_of("INSERT INTO t VALUES(2)", ANSWER_MAX), "5 database is locked");
    client.exec("COMMIT", &[]).unwrap();
    assert_eq!(alone.outcome_of("INSERT INTO t VALUES(3)", ANSWER_MAX), DONE);
    assert_eq!(client.number("SELECT sum(n) FROM t").unwrap(), 4);
}
