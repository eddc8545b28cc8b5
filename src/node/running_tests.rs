//! A node with its threads, its directory and a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::LiveSettings;
use super::opening::open_directory;
use super::options::Options;
use super::run_parts::RunParts;
use super::running::Running;
use super::start::StartError;
use crate::protocol::request::{Parameters, Request, Value};
use crate::transport::dial::IpConnector;
use crate::transport::listener::BoundSocket;
use crate::types::NodeId;

pub(super) fn start(directory: &Path) -> (Result<Running, StartError>, String) {
    start_with(NodeId(1), directory, Options::default())
}

pub(super) fn start_with(
    id: NodeId,
    directory: &Path,
    options: Options,
) -> (Result<Running, StartError>, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let directory = open_directory(directory).unwrap();
    let running = directory.lock().map_err(|error| StartError(error.to_string())).and_then(|lock| {
        Running::start(RunParts {
            id,
            address: address.clone().into_bytes(),
            directory,
            lock,
            options,
            live: Arc::new(LiveSettings::default()),
            listener: BoundSocket::bind(&address).unwrap(),
            connector: Arc::new(IpConnector),
        })
    });
    (running, address)
}

pub(super) fn call(stream: &mut TcpStream, request: &Request) -> (u8, Vec<u8>) {
    stream.write_all(&request.encode().unwrap()).unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize * 8];
    stream.read_exact(&mut body).unwrap();
    (header[4], body)
}

pub(super) fn dial(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&1u64.to_le_bytes()).unwrap();
    stream
}

pub(super) fn connect(address: &str) -> TcpStream {
    connect_to(address, "test.db")
}

pub(super) fn connect_to(address: &str, database: &str) -> TcpStream {
    let mut stream = dial(address);
    let name = Bytes::copy_from_slice(database.as_bytes());
    let (kind, body) = call(&mut stream, &Request::Open { name, flags: 0, vfs: Bytes::new() });
    assert_eq!(kind, 4, "{}", String::from_utf8_lossy(&body));
    stream
}

/// The one integer of `SELECT ... AS n`.
pub(super) fn number(stream: &mut TcpStream, sql: &str) -> u64 {
    let sql = Bytes::copy_from_slice(sql.as_bytes());
    let (kind, body) = call(stream, &Request::QuerySql { db: 0, sql, parameters: Parameters::default() });
    assert_eq!(kind, 7, "{}", String::from_utf8_lossy(&body));
    u64::from_le_bytes(body[24..32].try_into().unwrap())
}

/// A statement that nothing interrupts and that needs `size` squared steps of a comparison of memory.
fn deaf(size: i64) -> Request {
    let sql = Bytes::from_static(b"SELECT instr(zeroblob(?), zeroblob(?) || x'01') AS n");
    let parameters = Parameters::encode(&[Value::Integer(2 * size), Value::Integer(size)]);
    Request::QuerySql { db: 0, sql, parameters }
}

/// One that takes at least about so long on this machine, also when others leave it alone.
pub(super) fn deaf_for(stream: &mut TcpStream, time: Duration) -> Request {
    let mut size = 10_000;
    loop {
        let mut run = || {
            let began = Instant::now();
            assert_eq!(call(stream, &deaf(size)).0, 7);
            began.elapsed()
        };
        if run() > time / 40 {
            // The shortest of them: others use the machine, too.
            let shortest = (0..3).map(|_| run()).min().unwrap_or(time);
            let factor = time.as_secs_f64() / shortest.as_secs_f64();
            return deaf((size as f64 * factor.sqrt()) as i64);
        }
        size *= 2;
    }
}

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fixtures");

/// A copy of a directory that upstream wrote.
pub(super) fn fixture(version: &str, name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let source = format!("{FIXTURES}/datadir-{version}/{name}");
    let archive = format!("{source}/data.tar.gz");
    if Path::new(&archive).exists() {
        let unpacked = std::process::Command::new("tar")
            .args(["-xzf", &archive, "--strip-components=1", "-C"])
            .arg(copy.path())
            .status();
        assert!(unpacked.unwrap().success());
        return copy;
    }
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let to = copy.path().join(path.file_name().unwrap());
        std::fs::write(to, std::fs::read(path).unwrap()).unwrap();
    }
    copy
}

const VERSIONS: [&str; 3] = ["1.11.1", "1.18.1", "1.18.6"];

// conformance: disk-format 2, 13, 16
#[test]
fn directories_of_upstream_open_and_hold_their_rows_and_take_more() {
    for version in VERSIONS {
        for (name, rows) in
            [("single", 2), ("unclean", 8), ("recovered", 3), ("snapshot-lz4", 23), ("snapshot-raw", 23)]
        {
            let directory = fixture(version, name);
            for round in 0..2 {
                let (running, address) = start(directory.path());
                let mut running = running.unwrap_or_else(|error| panic!("{version} {name}: {error}"));
                let mut client = connect_to(&address, "test");
                let count = number(&mut client, "SELECT count(*) AS n FROM kv");
                assert_eq!(count, rows + round, "{version} {name} round {round}");
                let sound = "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'";
                assert_eq!(number(&mut client, sound), 1, "{version} {name}");
                assert_eq!(exec(&mut client, "INSERT INTO kv VALUES(hex(randomblob(8)), 'more')").0, 6);
                if name == "single" {
                    assert_eq!(number(&mut client, "SELECT count(*) AS n FROM kv WHERE v = 'TWO'"), 1);
                    let mut other = connect_to(&address, "other");
                    assert_eq!(number(&mut other, "SELECT sum(id * x) AS n FROM n"), 140);
                }
                running.stop().unwrap();
            }
        }
    }
}

// conformance: disk-format 2
// Directories of a member of a cluster show their log and state without the others.
#[test]
fn a_followers_directory_opens_and_shows_its_configuration() {
    for version in VERSIONS {
        for name in ["installed", "follower"] {
            let directory = fixture(version, name);
            let (running, address) = start_with(NodeId(3), directory.path(), Options::default());
            let mut running = running.unwrap_or_else(|error| panic!("{version} {name}: {error}"));
            let mut client = dial(&address);

            let (kind, body) = call(&mut client, &Request::Cluster { format: 1 });
            assert_eq!((kind, body[0]), (3, 3), "{version} {name}");
            let (kind, body) = call(&mut client, &Request::Leader);
            assert_eq!((kind, &body[..]), (1, &[0; 16][..]), "{version} {name}");
            running.stop().unwrap();
        }
    }
}

pub(super) fn exec(stream: &mut TcpStream, sql: &'static str) -> (u8, Vec<u8>) {
    let sql = Bytes::from_static(sql.as_bytes());
    call(stream, &Request::ExecSql { db: 0, sql, parameters: Parameters::default() })
}

// conformance: c-api 40, 42, 46
// conformance: disk-format 10, 17
#[test]
fn a_node_writes_to_its_directory_and_comes_back_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (running, address) = start(directory.path());
    let mut running = running.unwrap();
    let mut stream = connect(&address);
    let (kind, body) = call(&mut stream, &Request::Leader);
    assert_eq!((kind, &body[..8]), (1, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(exec(&mut stream, "CREATE TABLE t(n)").0, 6);
    for _ in 0..10 {
        assert_eq!(exec(&mut stream, "INSERT INTO t VALUES(1)").0, 6);
    }
    assert_eq!(start(directory.path()).0.unwrap_err().0, "couldn't lock the raft directory");

    running.stop().unwrap();

    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("open-"))
        .collect();
    names.sort();
    assert_eq!(names, Vec::<String>::new(), "a clean stop leaves no open segment");

    let (running, address) = start(directory.path());
    let mut running = running.unwrap();
    let mut stream = connect(&address);
    let sql = Bytes::from_static(b"SELECT count(*) AS n FROM t");
    let (kind, body) =
        call(&mut stream, &Request::QuerySql { db: 0, sql, parameters: Parameters::default() });
    assert_eq!((kind, body[24]), (7, 10));
    running.stop().unwrap();
}

// Writers follow each other without waiting for the disk: many transactions share one sync.
#[test]
fn thirty_two_writers_share_syncs() {
    // Not in /tmp, which may be memory: a sync must cost something.
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let (running, address) = start(directory.path());
    let mut running = running.unwrap();
    assert_eq!(exec(&mut connect(&address), "CREATE TABLE t(n)").0, 6);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let before = (count(&running.log_statistics().entries), count(&running.log_statistics().syncs));

    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut client = connect(&address);
                for _ in 0..100 {
                    assert_eq!(exec(&mut client, "INSERT INTO t VALUES(1)").0, 6);
                }
            });
        }
    });

    let entries = count(&running.log_statistics().entries) - before.0;
    let syncs = count(&running.log_statistics().syncs) - before.1;
    let ratio = syncs as f64 / 3200.0;
    println!("3200 transactions, {entries} entries, {syncs} syncs, ratio {ratio:.3}");
    assert_eq!(number(&mut connect(&address), "SELECT count(*) AS n FROM t"), 3200);
    assert!(entries < 3200, "{entries} entries");
    assert!(ratio <= 0.2, "{ratio}");
    running.stop().unwrap();
}

/// Blocks every dial until it is released, then refuses.
struct Hanging(std::sync::Mutex<std::sync::mpsc::Receiver<()>>, std::sync::atomic::AtomicUsize);

impl crate::transport::dial::Connector for Hanging {
    fn connect(&self, address: &str) -> std::io::Result<crate::transport::dial::Socket> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Ends when the sender goes.
        let _ = self.0.lock().unwrap().recv();
        Err(std::io::Error::other(format!("no way to {address}")))
    }
}

// issue 3: a connect callback that hangs: the node lives, serves, and stops when the callback has returned
#[test]
fn a_connect_function_that_hangs_holds_up_nobody_but_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (release, hanging) = std::sync::mpsc::channel();
    let connector = Arc::new(Hanging(std::sync::Mutex::new(hanging), 0.into()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let directory = open_directory(folder.path()).unwrap();
    let mut running = Running::start(RunParts {
        id: NodeId(1),
        address: address.clone().into_bytes(),
        lock: directory.lock().unwrap(),
        directory,
        options: Options::default(),
        live: Arc::new(LiveSettings::default()),
        listener: BoundSocket::bind(&address).unwrap(),
        connector: connector.clone(),
    })
    .unwrap();
    let mut admin = dial(&address);
    assert_eq!(call(&mut admin, &Request::Add { id: 2, address: Bytes::from_static(b"nowhere") }).0, 8);
    // To be promoted the node has to be dialled.
    admin.write_all(&Request::Assign { id: 2, role: 0 }.encode().unwrap()).unwrap();
    while connector.1.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }

    let mut client = dial(&address);
    let open = Request::Open { name: Bytes::from_static(b"test"), flags: 0, vfs: Bytes::new() };
    assert_eq!(call(&mut client, &open).0, 4);
    for sql in ["CREATE TABLE t(n)", "INSERT INTO t VALUES(1)"] {
        let sql = Bytes::copy_from_slice(sql.as_bytes());
        assert_eq!(
            call(&mut client, &Request::ExecSql { db: 0, sql, parameters: Parameters::default() }).0,
            6
        );
    }

    let stopping = std::thread::spawn(move || {
        running.stop().unwrap();
        running.failure()
    });
    drop(release);
    assert_eq!(stopping.join().unwrap(), None);
}
