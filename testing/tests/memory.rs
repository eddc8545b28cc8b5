//! A node that may have little more address space than it has, as `ulimit -v` sets it, and one request that asks for more: the request
//! fails or its connection is closed, and the node goes on. Needs `prlimit` of util-linux.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use dqlite::protocol::request::Value;
use dqlite_testing::bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::process::NodeProcess;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Address space that a node may have beside what it has when it is ready. The least is too little for any of the requests, the
/// most enough for some.
const MORE_MIB: [u64; 5] = [40, 90, 170, 300, 500];

fn address_space_bytes(node: &NodeProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What the request got under each of the bounds; the node takes a small write after it each time.
fn under_bounds(request: impl Fn(&mut Client) -> Result<(), ClientError>) -> Vec<Result<(), ClientError>> {
    let mut answers = Vec::new();
    for more_mib in MORE_MIB {
        let folder = tempfile::tempdir().unwrap();
        let mut options = bed::options(folder.path());
        options.library = options.library.with_variable("MALLOC_ARENA_MAX", "1");
        let mut node = NodeProcess::start(&options).unwrap();
        let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
        client.open("test.db").unwrap();
        client.exec("CREATE TABLE t(b)", &[]).unwrap();
        let bound = address_space_bytes(&node) + (more_mib << 20);
        let set = Command::new("prlimit")
            .args([format!("--pid={}", node.id()), format!("--as={bound}:{bound}")])
            .status();
        assert!(set.unwrap().success());

        answers.push(request(&mut client));

        drop(client);
        assert!(node.is_running().unwrap(), "{more_mib} MiB: {answers:?}: {}", node.error_text());
        let mut other = Client::connect(&node.address, TIMEOUT).unwrap();
        other.open("other.db").unwrap();
        other.exec("CREATE TABLE u(n)", &[]).unwrap();
        assert!(node.stop().unwrap().success(), "{more_mib} MiB: {}", node.error_text());
    }
    answers
}

fn is_no_memory(answer: &Result<(), ClientError>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some(7))
}

#[test]
fn rows_that_there_is_no_memory_for_are_7() {
    let answers = under_bounds(|client| {
        client.query("SELECT zeroblob(100000000), zeroblob(100000000)", &[]).map(|_| ())
    });

    assert!(is_no_memory(&answers[0]), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.is_ok() || is_no_memory(answer)), "{answers:?}");
}

#[test]
fn a_transaction_that_there_is_no_memory_for_is_7() {
    let answers =
        under_bounds(|client| client.exec("INSERT INTO t VALUES(randomblob(90000000))", &[]).map(|_| ()));

    assert!(is_no_memory(&answers[0]) && is_no_memory(&answers[2]), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.is_ok() || is_no_memory(answer)), "{answers:?}");
    assert!(answers[MORE_MIB.len() - 1].is_ok(), "{answers:?}");
}

#[test]
fn a_message_that_there_is_no_memory_for_closes_its_connection_or_is_7() {
    let value = Value::Blob(vec![7; 100_000_000].into());
    let answers = under_bounds(|client| {
        client.exec("INSERT INTO t VALUES(?)", std::slice::from_ref(&value)).map(|_| ())
    });

    assert!(matches!(answers[0], Err(ClientError::Io(_))), "{answers:?}");
    let expected = |answer: &Result<(), ClientError>| {
        is_no_memory(answer) || matches!(answer, Ok(()) | Err(ClientError::Io(_)))
    };
    assert!(answers.iter().all(expected), "{answers:?}");
    assert!(answers.iter().any(is_no_memory), "{answers:?}");
}
