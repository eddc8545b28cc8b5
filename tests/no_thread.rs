//! A moment in which no thread can be created, as under a limit of tasks: requests are answered, and a stop returns. A program of
//! its own, since `pthread_create` is the process's.

#![allow(clippy::unwrap_used, unsafe_code)]

mod one_node;

use std::ffi::{c_int, c_void};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request};
use one_node::{PATIENCE, call, exec, open, start};

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

/// Rows of the table `t`.
fn count(address: &str) -> u64 {
    let sql = Bytes::from_static(b"SELECT count(*) AS n FROM t");
    let query = Request::QuerySql { db: 0, sql, parameters: Parameters::default() };
    u64::from_le_bytes(call(&mut open(address), &query).1[24..32].try_into().unwrap())
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
