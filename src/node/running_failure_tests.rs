//! A part of a running node fails: the node ends, and only that node. architecture "The C boundary".

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::node::options::Options;
use crate::node::running_tests;
use crate::types::config::PAGE_SIZE;
use crate::types::{NodeId, PageNumber};

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

#[test]
fn a_node_fails_when_a_task_of_consensus_panics_that_nobody_awaits() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path());
    let (mut client, leader) = ask(&address);
    assert_eq!(leader, 1);

    drop(running.threads.as_ref().unwrap().consensus().spawn(async { panic!("broken invariant") }));

    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "the connection ends");
    assert_eq!(running.failure().as_deref(), Some("task of consensus: broken invariant"));
    running.stop().unwrap();
}

/// Writes other bytes over everything in the files without a name of a directory.
fn spoil_unnamed_files(directory: &Path) {
    for descriptor in std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap) {
        let path = descriptor.path();
        let target = std::fs::read_link(&path).unwrap_or_default();
        if !target.starts_with(directory) || !target.to_string_lossy().ends_with("(deleted)") {
            continue;
        }
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let pages = file.metadata().unwrap().len() / PAGE_SIZE as u64;
        (0..pages).for_each(|number| file.write_all_at(b"spoilt", number * PAGE_SIZE as u64 + 2000).unwrap());
    }
}

#[test]
fn a_node_whose_page_file_is_spoilt_ends_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { disk_mode: true, ..Options::default() };
    let (running, address) = running_tests::start_with(NodeId(1), directory.path(), options);
    let mut running = running.unwrap();
    let (mut client, leader) = ask(&address);
    assert_eq!(leader, 1);
    let space = running.core().unwrap().executor().store().space().clone();
    let page = |number| space.page(PageNumber(number), &[7; PAGE_SIZE]).unwrap();
    // The cache holds some of them.
    let pages: Vec<_> = (2..2 + 2 * config::PAGE_CACHE_BYTES as u32 / PAGE_SIZE as u32).map(page).collect();

    spoil_unnamed_files(directory.path());
    assert!(pages.iter().any(|page| page.with(|_| ()).is_err()));

    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "the connection ends");
    let reason = running.failure().unwrap();
    assert!(reason.starts_with("page file: slot ") && reason.ends_with("written to it"), "{reason}");
    running.stop().unwrap();
}
