//! The host has put SQLite into single-thread mode, as go-dqlite does by default: its mutexes do nothing. All SQL of the
//! process is then serial. A program of its own, since the mode is the process's. spec: c-api 3.0.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dqlite::executor::sqlite::threading::{serial_guard, sqlite_is_serial};
use dqlite::node::core::LiveSettings;
use dqlite::node::options::Options;
use dqlite::node::run_parts::RunParts;
use dqlite::node::running::Running;
use dqlite::pages::PageStore;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::transport::dial::IpConnector;
use dqlite::transport::listener::BoundSocket;
use dqlite::types::NodeId;
use dqlite::vfs::{Vfs, VfsOptions};

fn call(stream: &mut TcpStream, request: &Request) -> (u8, Vec<u8>) {
    stream.write_all(&request.encode().unwrap()).unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize * 8];
    stream.read_exact(&mut body).unwrap();
    (header[4], body)
}

fn open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&1u64.to_le_bytes()).unwrap();
    let name = Bytes::from_static(b"test.db");
    assert_eq!(call(&mut stream, &Request::Open { name, flags: 0, vfs: Bytes::new() }).0, 4);
    stream
}

fn exec(stream: &mut TcpStream, sql: &str) {
    let sql = Bytes::copy_from_slice(sql.as_bytes());
    let (kind, body) = call(stream, &Request::ExecSql { db: 0, sql, parameters: Parameters::default() });
    assert_eq!(kind, 6, "{}", String::from_utf8_lossy(&body));
}

fn start(directory: &std::path::Path) -> (Running, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let running = Running::start(RunParts {
        id: NodeId(1),
        address: address.clone().into_bytes(),
        directory: directory.to_owned(),
        options: Options::default(),
        live: Arc::new(LiveSettings::default()),
        listener: BoundSocket::bind(&address).unwrap(),
        connector: Arc::new(IpConnector),
    });
    (running.unwrap(), address)
}

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
