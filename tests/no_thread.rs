//! A moment in which no thread can be created, as under a limit of tasks: requests are answered, and a stop returns. A program of
//! its own, since `pthread_create` is the process's.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::node::core::LiveSettings;
use dqlite::node::options::Options;
use dqlite::node::run_parts::RunParts;
use dqlite::node::running::Running;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::transport::dial::IpConnector;
use dqlite::transport::listener::BoundSocket;
use dqlite::types::NodeId;

/// Longest wait for an answer, and for idle threads to end.
const PATIENCE: Duration = Duration::from_secs(30);

static NO_THREAD: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    extern "C" fn(*mut c_void) -> *mut c_void,
    *mut c_void,
) -> c_int;

/// In the place of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> c_int {
    if NO_THREAD.load(Ordering::SeqCst) {
        REFUSED.fetch_add(1, Ordering::SeqCst);
        return libc::EAGAIN;
    }
    // SAFETY: a C string; the next definition is the C library's.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    // SAFETY: the C library's function has this type.
    let next: Create = unsafe { std::mem::transmute(next) };
    // SAFETY: the caller's arguments, unchanged.
    unsafe { next(thread, attributes, start, argument) }
}

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
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
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

fn count(address: &str) -> u64 {
    let sql = Bytes::from_static(b"SELECT count(*) AS n FROM t");
    let query = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
    u64::from_le_bytes(call(&mut open(address), &query).1[24..32].try_into().unwrap())
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

/// Threads of the runtime of SQL, its two workers included.
fn sql_threads() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("dqlite-sql")).count()
}

#[test]
fn without_new_threads_requests_are_answered_and_a_stop_returns() {
    let directory = tempfile::tempdir().unwrap();
    let (mut running, address) = start(directory.path());
    exec(&mut open(&address), "CREATE TABLE t(n, b)");
    let began = Instant::now();
    while sql_threads() > 2 {
        assert!(began.elapsed() < PATIENCE, "idle threads do not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (sent, stopped) = std::sync::mpsc::channel();
    let (stop, asked) = std::sync::mpsc::channel::<()>();
    // It needs none.
    std::thread::spawn(move || {
        asked.recv().unwrap();
        sent.send(running.stop()).unwrap();
    });

    NO_THREAD.store(true, Ordering::SeqCst);
    let mut clients: Vec<TcpStream> = (0..4).map(|_| open(&address)).collect();
    for client in &mut clients {
        // More than a segment, which is closed and prepared beside the writes.
        for _ in 0..4 {
            exec(client, "INSERT INTO t VALUES(1, randomblob(1000000))");
        }
    }
    assert_eq!(count(&address), 16);
    stop.send(()).unwrap();
    assert_eq!(stopped.recv_timeout(PATIENCE).expect("the stop does not return"), Ok(()));
    NO_THREAD.store(false, Ordering::SeqCst);

    assert!(REFUSED.load(Ordering::SeqCst) > 0, "no thread was asked for");
    let (mut running, address) = start(directory.path());
    assert_eq!(count(&address), 16);
    running.stop().unwrap();
}
