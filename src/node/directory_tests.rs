//! A node and its directory: which one it is, whatever becomes of the path; what others may ask meanwhile; what is told of it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::handle::{CallError, NodeHandle};
use super::running::Running;
use super::running_tests::{connect, exec, number, start};
use crate::protocol::request::{Parameters, Request};
use crate::types::{LogIndex, NodeId, Role, Server, Term};

/// Rows of 300 kB: a segment holds 27.
const INSERT: &str = "INSERT INTO t VALUES(randomblob(300000))";
/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn started(path: &Path) -> (Running, TcpStream) {
    let (running, address) = start(path);
    let running = running.unwrap();
    let mut client = connect(&address);
    exec(&mut client, "CREATE TABLE IF NOT EXISTS t(b)");
    (running, client)
}

fn rows_after_restart(path: &Path) -> u64 {
    let (mut running, mut client) = started(path);
    let rows = number(&mut client, "SELECT count(*) AS n FROM t");
    running.stop().unwrap();
    rows
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn handle(path: &Path) -> NodeHandle {
    let (handle, created) = NodeHandle::create(NodeId(1), b"1".to_vec(), path.to_owned());
    created.unwrap();
    handle
}

/// Removes a directory to which a node may still be adding files, as an operator does: again, until nothing is left.
fn remove_whole(path: &Path) {
    let began = Instant::now();
    while let Err(error) = fs::remove_dir_all(path) {
        assert!(began.elapsed() < PATIENCE && error.kind() == ErrorKind::DirectoryNotEmpty, "{error}");
    }
}

#[test]
fn a_node_keeps_the_directory_that_it_has_opened_whatever_the_path_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, link] = ["first", "second", "link"].map(|name| folder.path().join(name));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let (mut running, mut client) = started(&link);

    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&second, &link).unwrap();
    for _ in 0..60 {
        assert_eq!(exec(&mut client, INSERT).0, 6);
    }
    let moved = folder.path().join("moved");
    fs::rename(&first, &moved).unwrap();
    for _ in 0..60 {
        assert_eq!(exec(&mut client, INSERT).0, 6);
    }
    running.stop().unwrap();

    assert!(names(&second).is_empty());
    assert_eq!(rows_after_restart(&moved), 120);
}

#[test]
fn a_node_whose_directory_is_removed_stops_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    fs::create_dir(&path).unwrap();
    let (mut running, mut client) = started(&path);
    client.set_read_timeout(Some(PATIENCE)).unwrap();

    remove_whole(&path);
    let began = Instant::now();
    while running.failure().is_none() {
        assert!(began.elapsed() < PATIENCE, "nothing was noticed");
        std::thread::sleep(Duration::from_millis(20));
    }

    let reason = running.failure().unwrap();
    assert_eq!(
        reason,
        format!("the data directory '{}' was removed: nothing that is written to it is kept", path.display())
    );
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client, &mut rest).unwrap();
    running.stop().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_node_whose_lock_is_removed_writes_no_more_and_says_why() {
    for with_others in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (mut running, mut client) = started(folder.path());
        for _ in 0..10 {
            assert_eq!(exec(&mut client, INSERT).0, 6);
        }
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let removed = match with_others {
            true => names(folder.path()),
            false => vec!["dqlite-lock".to_owned()],
        };
        removed.iter().for_each(|name| fs::remove_file(folder.path().join(name)).unwrap());
        let (mut next, mut its_client) = started(folder.path());

        let write = Request::ExecSql { db: 0, sql: INSERT.into(), parameters: Parameters::default() };
        client.write_all(&write.encode().unwrap()).unwrap();
        let began = Instant::now();
        while running.failure().is_none() {
            assert!(began.elapsed() < PATIENCE, "nothing was noticed");
            std::thread::sleep(Duration::from_millis(20));
        }

        let how = "dqlite-lock was replaced by another: another node may use the directory";
        let text = format!("lost the lock of the data directory '{}': {how}", folder.path().display());
        assert_eq!(running.failure().unwrap(), text);
        let rows = if with_others { 0 } else { 10 };
        assert_eq!(number(&mut its_client, "SELECT count(*) AS n FROM t"), rows);
        running.stop().unwrap();
        next.stop().unwrap();
        assert_eq!(rows_after_restart(folder.path()), rows);
    }
}

#[test]
fn what_is_no_file_under_a_name_of_the_log_stops_a_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut running, mut client) = started(folder.path());
    assert_eq!(exec(&mut client, INSERT).0, 6);
    running.stop().unwrap();
    let last = names(folder.path()).into_iter().rfind(|name| name.starts_with("0000")).unwrap();
    let (path, moved) = (folder.path().join(&last), folder.path().join("moved"));
    fs::rename(&path, &moved).unwrap();
    let make_pipe = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    let link = |path: &Path| std::os::unix::fs::symlink(&moved, path).unwrap();
    let make_folder = |path: &Path| fs::create_dir(path).unwrap();
    let makes: [&dyn Fn(&Path); 3] = [&make_pipe, &link, &make_folder];
    for make in makes {
        make(&path);
        let before = names(folder.path());

        let text = start(folder.path()).0.err().unwrap().to_string();

        assert!(text.contains(&format!("{last} is no regular file")), "{text}");
        assert_eq!(names(folder.path()), before);
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
    fs::rename(&moved, &path).unwrap();
    assert_eq!(rows_after_restart(folder.path()), 1);
}

#[test]
fn a_directory_in_use_may_be_described_and_a_recovery_of_it_names_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut running, mut client) = started(folder.path());
    for _ in 0..40 {
        assert_eq!(exec(&mut client, INSERT).0, 6);
    }
    let before = names(folder.path());
    let other = handle(folder.path());

    let (last, term) = other.describe_last_entry().unwrap();
    let server = Server { id: NodeId(7), address: b"7".to_vec(), role: Role::Voter };
    assert_eq!(other.recover(vec![server]), Err(CallError::Error));

    let expected = "raft_recover(): couldn't lock the raft directory: it is held by this process";
    assert_eq!(other.error_text().to_text(), expected);
    assert_eq!((last, term), (LogIndex(42), Term(1)));
    assert_eq!(names(folder.path()), before);
    assert_eq!(exec(&mut client, INSERT).0, 6);
    running.stop().unwrap();
    assert_eq!(rows_after_restart(folder.path()), 41);
}

#[test]
fn what_a_start_sets_aside_is_told_by_the_text_of_the_last_call() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (mut running, mut client) = started(folder.path());
        assert_eq!(exec(&mut client, "INSERT INTO t VALUES(1)").0, 6);
        running.stop().unwrap();
    }
    let last = names(folder.path()).into_iter().rfind(|name| name.starts_with("0000")).unwrap();
    let mut content = fs::read(folder.path().join(&last)).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x5A;
    fs::write(folder.path().join(&last), content).unwrap();
    let node = handle(folder.path());
    node.set_bind_address("@").unwrap();

    node.start().unwrap();

    let text = node.error_text().to_text();
    assert!(text.starts_with("set aside: 1 entry of the log") && text.contains(&last), "{text}");
    node.stop().unwrap();
    assert_eq!(rows_after_restart(folder.path()), 1);
}
