//! The files of a DUMP open with a stock SQLite. spec: client-protocol 13.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use dqlite::node::core::LiveSettings;
use dqlite::node::opening::open_directory;
use dqlite::node::options::Options;
use dqlite::node::run_parts::RunParts;
use dqlite::node::running::Running;
use dqlite::protocol::decode;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::transport::dial::IpConnector;
use dqlite::transport::listener::BoundSocket;
use dqlite::types::NodeId;
use libsqlite3_sys as sqlite;

fn call(stream: &mut TcpStream, request: &Request) -> (u8, Bytes) {
    stream.write_all(&request.encode().unwrap()).unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize * 8];
    stream.read_exact(&mut body).unwrap();
    (header[4], body.into())
}

/// Appends the first column of a row to a vector of texts.
unsafe extern "C" fn take(
    rows: *mut c_void,
    _: c_int,
    values: *mut *mut c_char,
    _: *mut *mut c_char,
) -> c_int {
    // SAFETY: `rows` is the vector given to sqlite3_exec; a row has at least one column, which is not NULL here.
    unsafe { (*rows.cast::<Vec<String>>()).push(CStr::from_ptr(*values).to_string_lossy().into_owned()) };
    0
}

/// What a stock SQLite reads in a file.
fn stock(file: &Path, sql: &CStr) -> Vec<String> {
    let name = CString::new(file.to_str().unwrap()).unwrap();
    let mut connection = ptr::null_mut();
    let mut rows: Vec<String> = Vec::new();
    // SAFETY: the texts are NUL-terminated, `rows` outlives the call, the connection is closed and not used any more.
    unsafe {
        assert_eq!(sqlite::sqlite3_open(name.as_ptr(), &raw mut connection), 0);
        let code = sqlite::sqlite3_exec(
            connection,
            sql.as_ptr(),
            Some(take),
            (&raw mut rows).cast(),
            ptr::null_mut(),
        );
        assert_eq!(code, 0, "{sql:?}");
        sqlite::sqlite3_close(connection);
    }
    rows
}

// conformance: client-protocol D1
#[test]
fn a_stock_sqlite_opens_what_dump_gives() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!(
        "127.0.0.1:{}",
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    let directory = open_directory(folder.path()).unwrap();
    let mut running = Running::start(RunParts {
        id: NodeId(1),
        address: address.clone().into_bytes(),
        lock: directory.lock().unwrap(),
        directory,
        options: Options::default(),
        live: Arc::new(LiveSettings::default()),
        listener: BoundSocket::bind(&address).unwrap(),
        connector: Arc::new(IpConnector),
    })
    .unwrap();
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(&1u64.to_le_bytes()).unwrap();
    let name = Bytes::from_static(b"test.db");
    assert_eq!(call(&mut client, &Request::Open { name: name.clone(), flags: 0, vfs: Bytes::new() }).0, 4);
    for sql in [
        "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB)",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 500) INSERT INTO t(b) SELECT zeroblob(1000) FROM c",
        "CREATE INDEX i ON t(b)",
        "DELETE FROM t WHERE n % 2",
    ] {
        let sql = Bytes::from_static(sql.as_bytes());
        let parameters = Parameters::default();
        assert_eq!(call(&mut client, &Request::ExecSql { db: 0, sql, parameters }).0, 6);
    }

    let (kind, body) = call(&mut client, &Request::Dump { name });

    assert_eq!(kind, 9);
    let files = decode::files(&body).unwrap();
    let names: Vec<&[u8]> = files.iter().map(|file| &file.name[..]).collect();
    assert_eq!(names, [&b"test.db"[..], b"test.db-wal"]);
    let copy = tempfile::tempdir().unwrap();
    for file in &files {
        std::fs::write(copy.path().join(std::str::from_utf8(&file.name).unwrap()), &file.content).unwrap();
    }
    let file = copy.path().join("test.db");
    assert_eq!(stock(&file, c"PRAGMA integrity_check"), ["ok"]);
    assert_eq!(stock(&file, c"SELECT count(*) || ' ' || sum(n) FROM t"), ["250 62750"]);
    running.stop().unwrap();
}
