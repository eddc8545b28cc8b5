//! A part of a running node fails: the node ends, and only that node. architecture "The C boundary".

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::node::running_tests;

/// Long enough for any machine; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The protocol word, then a LEADER request.
const ASK_LEADER: [u8; 24] = [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn start(directory: &Path) -> (Running, String) {
    let (running, address) = running_tests::start(directory);
    (running.unwrap(), address)
}

fn ask(address: &str) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&ASK_LEADER).unwrap();
    // Header, id, and an address of at most 15 characters.
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    (stream, answer[8])
}

#[test]
fn a_node_whose_part_has_failed_closes_its_connections_and_keeps_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let bystander = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path());
    let (mut other, other_address) = start(bystander.path());
    let (mut client, leader) = ask(&address);
    assert_eq!(leader, 1);
    let engine = running.core().unwrap().engine().clone();

    running.failure.report("log thread: broken invariant");
    running.failure.report("SQLite callback: a later one");

    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "the connection ends");
    assert_eq!(running.failure().as_deref(), Some("log thread: broken invariant"));
    let status = engine.status().borrow().clone();
    assert_eq!(status.failed.as_deref(), Some("log thread: broken invariant"));
    assert_eq!((status.serving, status.leader), (None, None), "it leads no more");
    assert_eq!(ask(&other_address).1, 1, "another node of the process goes on");

    running.stop().unwrap();
    other.stop().unwrap();
    let (mut again, address) = start(directory.path());
    assert_eq!(ask(&address).1, 1, "the directory is free and sound");
    again.stop().unwrap();
}
