//! Statements that take long, on a node with its threads: they hold up nobody else, and their own client is still heard.
//! architecture "Threads", spec: client-protocol 7.3 to 7.5.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::options::Options;
use super::running::Running;
use super::running_tests::{call, connect, deaf_for, dial, exec, number, start_with};
use crate::protocol::request::{Parameters, Request, Value};
use crate::types::NodeId;
use crate::types::config::{SQL_STOPS_WITHIN, SQL_WORKER_THREADS, STATEMENT_WITHOUT_CLIENT_MAX};

/// Longest wait for what should come at once.
const SOON: Duration = Duration::from_secs(20);

/// Counts up to its parameter, and yields one row at the end.
const COUNT: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) SELECT count(*) AS n FROM c";

fn start(directory: &Path, sql_threads: u32) -> (Running, String) {
    let options = Options { pool_thread_count: sql_threads, ..Options::default() };
    let (running, address) = start_with(NodeId(1), directory, options);
    (running.unwrap(), address)
}

fn client(address: &str) -> TcpStream {
    let stream = connect(address);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn count_to(last: i64) -> Request {
    let sql = Bytes::from_static(COUNT.as_bytes());
    Request::QuerySql { db: 0, sql, parameters: Parameters::encode(&[Value::Integer(last)]) }
}

fn send(stream: &mut TcpStream, requests: &[Request]) {
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.encode().unwrap()).collect();
    stream.write_all(&bytes).unwrap();
}

/// The type of the next answer.
fn receive(stream: &mut TcpStream) -> u8 {
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize * 8];
    stream.read_exact(&mut body).unwrap();
    header[4]
}

const INTERRUPT: Request = Request::Interrupt { db: 0 };

/// Starts a statement without end that was short so far, and is therefore begun on a worker of the runtime.
fn turn_long(stream: &mut TcpStream) {
    for _ in 0..20 {
        assert_eq!(call(stream, &count_to(1)).0, 7);
    }
    send(stream, &[count_to(i64::MAX)]);
}

#[test]
fn short_statements_that_turn_long_hold_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), SQL_WORKER_THREADS as u32 + 2);
    let mut other = client(&address);
    assert_eq!(exec(&mut other, "CREATE TABLE t(n)").0, 6);
    let mut longest = Duration::ZERO;
    for round in 1..=10 {
        let mut long: Vec<TcpStream> = (0..SQL_WORKER_THREADS).map(|_| client(&address)).collect();
        for stream in &mut long {
            turn_long(stream);
        }

        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(call(&mut other, &Request::Leader).0, 1);
            assert_eq!(exec(&mut other, "INSERT INTO t VALUES(1)").0, 6);
        }
        assert_eq!(number(&mut client(&address), "SELECT count(*) AS n FROM t"), round * 20);
        longest = longest.max(began.elapsed());

        for stream in &mut long {
            send(stream, &[INTERRUPT]);
            assert_eq!(receive(stream), 8);
            assert_eq!(call(stream, &count_to(3)).0, 7);
        }
    }
    println!("20 transactions beside {SQL_WORKER_THREADS} endless statements: {longest:?} at most");
    running.stop().unwrap();
}

// conformance: client-protocol Q6 (better: a statement without rows is stopped at once)
#[test]
fn an_interrupt_stops_a_long_statement_and_what_was_sent_behind_it_follows_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), 1);
    let mut stream = client(&address);
    for _ in 0..5 {
        send(&mut stream, &[count_to(i64::MAX)]);
        send(&mut stream, &[INTERRUPT, Request::Leader, count_to(2), INTERRUPT, Request::Client { id: 1 }]);

        let answers: Vec<u8> = (0..3).map(|_| receive(&mut stream)).collect();
        assert_eq!(answers[..2], [8, 1]);
        // The second count may be stopped or be done.
        let rest: Vec<u8> = if answers[2] == 7 { vec![receive(&mut stream)] } else { vec![answers[2]] };
        assert_eq!(rest, [8]);
        assert_eq!(receive(&mut stream), 2);
    }
    running.stop().unwrap();
}

// conformance: client-protocol X14
#[test]
fn more_requests_than_are_read_ahead_are_answered_in_order_behind_a_long_one() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), 1);
    let mut stream = client(&address);
    let mut requests = vec![count_to(300_000)];
    for _ in 0..30 {
        requests.extend([Request::Leader, count_to(1), Request::Client { id: 1 }]);
    }
    send(&mut stream, &requests);

    assert_eq!(receive(&mut stream), 7);
    for _ in 0..30 {
        assert_eq!([receive(&mut stream), receive(&mut stream), receive(&mut stream)], [1, 7, 2]);
    }
    running.stop().unwrap();
}

#[test]
fn a_statement_whose_client_is_gone_ends_and_frees_its_place() {
    let directory = tempfile::tempdir().unwrap();
    // One place: who gets an answer has got it.
    let (mut running, address) = start(directory.path(), 1);
    let mut other = client(&address);
    let mut leaving = client(&address);
    send(&mut leaving, &[count_to(i64::MAX)]);
    // The statement runs when the node has answered what came later.
    assert_eq!(call(&mut dial(&address), &Request::Leader).0, 1);
    let began = Instant::now();

    drop(leaving);

    assert_eq!(number(&mut other, "SELECT 5 AS n"), 5);
    let waited = began.elapsed();
    println!("freed after {waited:?}");
    assert!(waited < STATEMENT_WITHOUT_CLIENT_MAX + Duration::from_secs(10), "{waited:?}");
    running.stop().unwrap();
}

#[test]
fn a_client_that_sends_no_more_is_noticed_behind_requests_that_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), 1);
    let mut other = client(&address);
    other.set_read_timeout(Some(STATEMENT_WITHOUT_CLIENT_MAX * 2)).unwrap();
    let mut leaving = client(&address);
    send(&mut leaving, &vec![count_to(i64::MAX); 12]);
    assert_eq!(call(&mut dial(&address), &Request::Leader).0, 1);

    // Nothing is reset by this: there is more to be read.
    leaving.shutdown(std::net::Shutdown::Write).unwrap();

    assert_eq!(number(&mut other, "SELECT 5 AS n"), 5);
    running.stop().unwrap();
}

// conformance: client-protocol X15
#[test]
fn a_client_that_sends_no_more_gets_the_answer_to_a_statement_that_takes_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), 1);
    let mut stream = client(&address);
    send(&mut stream, &[count_to(50_000), Request::Leader]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();

    assert_eq!(receive(&mut stream), 7);
    assert_eq!(receive(&mut stream), 1);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    running.stop().unwrap();
}

#[test]
fn a_node_stops_at_once_beside_statements_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), 4);
    let mut long: Vec<TcpStream> = (0..3).map(|_| client(&address)).collect();
    send(&mut long[0], &[count_to(i64::MAX)]);
    turn_long(&mut long[1]);
    turn_long(&mut long[2]);
    assert_eq!(call(&mut dial(&address), &Request::Leader).0, 1);
    let began = Instant::now();

    running.stop().unwrap();

    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for stream in &mut long {
        // Nothing, or why the statement has ended.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[4] == 0, "{rest:?}");
    }
}

#[test]
fn statements_that_do_not_stop_when_they_are_told_to_leave_their_places_to_others() {
    const THREADS: usize = 2;
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path(), THREADS as u32);
    let mut other = client(&address);
    let deaf_statement = deaf_for(&mut other, SQL_STOPS_WITHIN * 4);

    let mut deaf: Vec<TcpStream> = (0..THREADS).map(|_| client(&address)).collect();
    for stream in &mut deaf {
        send(stream, std::slice::from_ref(&deaf_statement));
    }
    let usage = |running: &Running| running.core().unwrap().executor().usage().permits;
    let began = Instant::now();
    while usage(&running) < THREADS {
        assert!(began.elapsed() < SOON, "they are not inside");
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&mut deaf[0], &[INTERRUPT]);
    // The other one has gone.
    drop(deaf.pop());

    assert_eq!(exec(&mut other, "CREATE TABLE t(n)").0, 6);
    assert_eq!(number(&mut client(&address), "SELECT 7 AS n"), 7);
    assert!(running.core().unwrap().executor().permits().beside() > 0, "they have ended: nothing was shown");

    // On a busy machine it takes several times as long as was measured.
    deaf[0].set_read_timeout(Some(SOON * 12)).unwrap();
    assert_eq!(receive(&mut deaf[0]), 8, "INTERRUPT is answered once SQLite returns");
    running.stop().unwrap();
}
