//! The host has put SQLite into single-thread mode, as go-dqlite does by default: its mutexes do nothing. All SQL of the
//! process is then serial. A program of its own, since the mode is the process's. spec: c-api 3.0.

#![allow(clippy::unwrap_used, unsafe_code)]

mod one_node;

use std::time::Duration;

use bytes::Bytes;
use dqlite::executor::sqlite::threading::{serial_guard, sqlite_is_serial};
use dqlite::node::running::Running;
use dqlite::pages::PageStore;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::vfs::{Vfs, VfsOptions};
use one_node::{call, exec, open, start};

// conformance: c-api 72
#[test]
fn two_nodes_serve_many_clients_in_single_thread_mode() {
    // SAFETY: nothing has used SQLite in this process yet.
    let code = unsafe { libsqlite3_sys::sqlite3_config(libsqlite3_sys::SQLITE_CONFIG_SINGLETHREAD) };
    assert_eq!(code, 0);
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut nodes: Vec<(Running, String)> =
        directories.iter().map(|directory| start(directory.path())).collect();
    assert!(sqlite_is_serial());

    for (_, address) in &nodes {
        exec(&mut open(address), "CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)");
    }
    std::thread::scope(|scope| {
        for (_, address) in &nodes {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = open(address);
                    for _ in 0..50 {
                        exec(&mut client, "INSERT INTO t(s) VALUES(hex(randomblob(200)))");
                        let sql = Bytes::from_static(b"SELECT count(*), max(s) FROM t");
                        let query = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
                        assert_eq!(call(&mut client, &query).0, 7);
                    }
                });
            }
        }
    });

    for (running, address) in &mut nodes {
        let sql = Bytes::from_static(b"SELECT count(*) AS n FROM t");
        let query = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
        let (_, body) = call(&mut open(address), &query);
        assert_eq!(u64::from_le_bytes(body[24..32].try_into().unwrap()), 400);
        running.stop().unwrap();
    }
    registering_waits_for_whoever_is_inside_sqlite();
}

/// SQLite's list of VFSes has no mutex in this mode.
fn registering_waits_for_whoever_is_inside_sqlite() {
    let (steps, step) = std::sync::mpsc::channel();
    let patience = Duration::from_millis(100);
    let inside = serial_guard(true);
    let (vfses, vfs) = std::sync::mpsc::channel();
    let registering = std::thread::spawn(move || {
        let report = Box::new(|text: &str| panic!("{text}"));
        vfses.send(Vfs::register(PageStore::new(), VfsOptions::default(), report).unwrap()).unwrap();
    });
    assert!(vfs.recv_timeout(patience).is_err(), "registered beside a thread that is inside SQLite");
    drop(inside);
    let vfs = vfs.recv().unwrap();
    registering.join().unwrap();

    let inside = serial_guard(true);
    let unregistering = std::thread::spawn(move || {
        vfs.unregister();
        steps.send(()).unwrap();
    });
    assert!(step.recv_timeout(patience).is_err(), "unregistered beside a thread that is inside SQLite");
    drop(inside);
    unregistering.join().unwrap();
}
