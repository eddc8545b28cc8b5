//! Texts of many statements: each is answered, all of its rows are there, and other clients' writes go on meanwhile and afterwards.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dqlite_testing::alone::{ANSWER_MAX, Alone, DONE, outcome};
use dqlite_testing::client::Client;

/// More statements than transactions of a node may be in flight.
const STATEMENTS: usize = 1100;
/// A value of more bytes than may be in flight.
const LARGE_BYTES: usize = 70 << 20;
/// Longest answer to a text of many statements: a node that hangs gives none.
const TEXT_MAX: Duration = Duration::from_secs(60);
const CLIENTS: usize = 100;
/// Statements of each of those clients' texts.
const STATEMENTS_OF_EACH: usize = 20;
/// SQLITE_BUSY: another client writes, which a node may say.
const LOCKED: &str = "5 database is locked";

/// Sends a text that adds `rows` rows, then another client's write.
fn assert_text_is_carried_out(sql: &str, rows: i64) {
    let alone = Alone::start(&[]);
    let mut client = alone.client(TEXT_MAX);
    client.exec("CREATE TABLE t(n)", &[]).unwrap();

    let answer = outcome(client.exec(sql, &[]));
    let other = alone.outcome_of("INSERT INTO t VALUES(2)", ANSWER_MAX);

    assert_eq!((&answer[..], &other[..]), (DONE, DONE), "the text, and another client's INSERT after it");
    assert_eq!(client.number("SELECT count(*) FROM t WHERE n IS NOT 2").unwrap(), rows);
}

#[test]
fn a_text_of_more_inserts_than_may_be_in_flight_is_carried_out() {
    assert_text_is_carried_out(&"INSERT INTO t VALUES(1);".repeat(STATEMENTS), STATEMENTS as i64);
}

#[test]
fn the_same_text_between_begin_and_commit_is_carried_out() {
    let sql = format!("BEGIN;{}COMMIT", "INSERT INTO t VALUES(1);".repeat(STATEMENTS));
    assert_text_is_carried_out(&sql, STATEMENTS as i64);
}

#[test]
fn a_text_of_more_bytes_than_may_be_in_flight_is_carried_out() {
    let sql = format!("INSERT INTO t VALUES(zeroblob({LARGE_BYTES})); INSERT INTO t VALUES(1)");
    assert_text_is_carried_out(&sql, 2);
}

#[test]
fn texts_of_many_clients_do_not_wait_for_each_other_for_ever() {
    let alone = Alone::start(&[]);
    alone.client(ANSWER_MAX).exec("CREATE TABLE t(n)", &[]).unwrap();
    let text = "INSERT INTO t VALUES(1);".repeat(STATEMENTS_OF_EACH);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| alone.client(TEXT_MAX)).collect();

    let mut answers = BTreeMap::new();
    for _ in 0..2 {
        let said: Vec<String> = std::thread::scope(|scope| {
            let ask = |client| scope.spawn(|| outcome(Client::exec(client, &text, &[])));
            let asked: Vec<_> = clients.iter_mut().map(ask).collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for answer in said {
            *answers.entry(answer).or_insert(0) += 1;
        }
        assert!(answers.keys().all(|answer| answer == DONE || answer == LOCKED), "{answers:?}");
    }

    assert_eq!(alone.outcome_of("INSERT INTO t VALUES(2)", ANSWER_MAX), DONE, "after {answers:?}");
    let rows = alone.client(ANSWER_MAX).number("SELECT count(*) FROM t WHERE n = 1").unwrap();
    let done = answers.get(DONE).copied().unwrap_or(0);
    assert!(rows >= (done * STATEMENTS_OF_EACH) as i64, "{rows} rows, {answers:?}");
}

#[test]
fn a_transaction_of_many_requests_is_carried_out() {
    let alone = Alone::start(&[]);
    let mut client = alone.client(TEXT_MAX);
    client.exec("CREATE TABLE t(n)", &[]).unwrap();

    client.exec("BEGIN", &[]).unwrap();
    for number in 0..STATEMENTS {
        let sql = format!("INSERT INTO t VALUES({number})");
        assert_eq!(outcome(client.exec(&sql, &[])), DONE, "statement {number}");
    }
    assert_eq!(outcome(client.exec("COMMIT", &[])), DONE);

    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), STATEMENTS as i64);
}

/// As go-dqlite's `tx.Exec` of one text: BEGIN and COMMIT are requests of their own.
#[test]
fn a_text_of_many_inserts_inside_a_transaction_is_carried_out() {
    let alone = Alone::start(&[]);
    let mut client = alone.client(TEXT_MAX);
    client.exec("CREATE TABLE t(n)", &[]).unwrap();

    client.exec("BEGIN", &[]).unwrap();
    let text = "INSERT INTO t VALUES(1);".repeat(STATEMENTS);
    let (_, changed) = client.exec(&text, &[]).unwrap_or_else(|error| panic!("{error}"));
    client.exec("COMMIT", &[]).unwrap();

    assert_eq!(changed, 1, "the changes of the last statement");
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), STATEMENTS as i64);
    assert_eq!(alone.outcome_of("INSERT INTO t VALUES(2)", ANSWER_MAX), DONE);
}

/// Ten times as many statements take about ten times as long: a copy of the rest of the text for each of them takes a hundred times.
#[test]
fn a_text_takes_time_in_proportion_to_its_statements() {
    const SHORT: usize = 2_000;
    const LONG: usize = 20_000;
    const RATIO_MAX: f64 = 20.0;
    let alone = Alone::start(&[]);
    let mut client = alone.client(3 * TEXT_MAX);
    let statement = format!("SELECT 1 WHERE 0;{}", " ".repeat(400));
    let mut took = |statements: usize, attempts: usize| {
        let text = statement.repeat(statements);
        let once = |_| {
            let begin = Instant::now();
            client.exec(&text, &[]).unwrap_or_else(|error| panic!("{statements} statements: {error}"));
            begin.elapsed().as_secs_f64()
        };
        (0..attempts).map(once).fold(f64::INFINITY, f64::min)
    };

    took(100, 1);
    let (short, long) = (took(SHORT, 5), took(LONG, 3));

    println!("{SHORT} statements {short:.3} s, {LONG} statements {long:.3} s");
    assert!(long / short <= RATIO_MAX, "{:.0} times as long", long / short);
}
