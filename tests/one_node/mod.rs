//! A node in the test's own process, and requests to it over a plain socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dqlite::node::core::LiveSettings;
use dqlite::node::opening::open_directory;
use dqlite::node::options::Options;
use dqlite::node::run_parts::RunParts;
use dqlite::node::running::Running;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::transport::dial::IpConnector;
use dqlite::transport::listener::BoundSocket;
use dqlite::types::NodeId;

/// Longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request and takes its answer, type and body.
pub fn call(stream: &mut TcpStream, request: &Request) -> (u8, Vec<u8>) {
    stream.write_all(&request.encode().unwrap()).unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize * 8];
    stream.read_exact(&mut body).unwrap();
    (header[4], body)
}

/// A connection with an open database, whose answers come in time.
pub fn open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&1u64.to_le_bytes()).unwrap();
    let name = Bytes::from_static(b"test.db");
    assert_eq!(call(&mut stream, &Request::Open { name, flags: 0, vfs: Bytes::new() }).0, 4);
    stream
}

/// Runs statements that must not fail.
pub fn exec(stream: &mut TcpStream, sql: &str) {
    let sql = Bytes::copy_from_slice(sql.as_bytes());
    let (kind, body) = call(stream, &Request::ExecSql { db: 0, sql, parameters: Parameters::default() });
    assert_eq!(kind, 6, "{}", String::from_utf8_lossy(&body));
}

/// A node that is alone, and its address.
pub fn start(directory: &std::path::Path) -> (Running, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let directory = open_directory(directory).unwrap();
    let running = Running::start(RunParts {
        id: NodeId(1),
        address: address.clone().into_bytes(),
        lock: directory.lock().unwrap(),
        directory,
        options: Options::default(),
        live: Arc::new(LiveSettings::default()),
        listener: BoundSocket::bind(&address).unwrap(),
        connector: Arc::new(IpConnector),
    });
    (running.unwrap(), address)
}
