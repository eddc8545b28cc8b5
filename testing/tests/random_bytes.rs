//! Random and mutated bytes on the client port of a node: the process lives, its memory is bounded, every connection gets
//! an answer or is closed, and afterwards the node serves as before. `RANDOM_BYTES_SECONDS` sets how long (20).

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request, Value};
use dqlite_testing::bed;
use dqlite_testing::client::Client;
use dqlite_testing::process::NodeProcess;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once.
const THREADS: u64 = 4;
/// Most resident memory of the node in bytes.
const MEMORY_MAX_BYTES: u64 = 400 << 20;
/// Longest wait for what a connection is answered before it is left.
const LISTEN: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    bytes: AtomicU64,
    answers: AtomicU64,
    closed: AtomicU64,
}

/// A request that makes sense.
fn sensible(random: &mut SmallRng) -> Vec<u8> {
    let sql = [
        "SELECT 1",
        "INSERT INTO t VALUES(1)",
        "SELECT n FROM t LIMIT 5",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "CREATE TABLE IF NOT EXISTS t(n)",
        "DELETE FROM t",
        "SELECT * FROM missing",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 2000) SELECT x FROM c",
        "INSERT INTO t VALUES(?) RETURNING n",
        "PRAGMA integrity_check",
        "",
    ];
    let sql = Bytes::from_static(sql[random.random_range(0..sql.len())].as_bytes());
    let values = [Value::Integer(random.random()), Value::Text(Bytes::from_static(b"text")), Value::Null];
    let parameters = Parameters::encode(&values[..random.random_range(0..values.len())]);
    let small = random.random_range(0..3);
    let request = match random.random_range(0..18) {
        0 => Request::Leader,
        1 => Request::Client { id: random.random() },
        2 | 3 => Request::Open { name: Bytes::from_static(b"test.db"), flags: 0, vfs: Bytes::new() },
        4 => Request::Prepare { schema: (small % 2) as u8, db: 0, sql },
        5 => Request::Exec { db: 0, stmt: small, parameters },
        6 => Request::Query { db: 0, stmt: small, parameters },
        7 => Request::Finalize { db: 0, stmt: small },
        8 | 9 => Request::ExecSql { db: 0, sql, parameters },
        10 | 11 => Request::QuerySql { db: 0, sql, parameters },
        12 => Request::Interrupt { db: 0 },
        13 => Request::Cluster { format: u64::from(small) },
        14 => Request::Dump { name: Bytes::from_static(b"test.db") },
        15 => Request::Describe { format: u64::from(small) },
        16 => Request::Weight { weight: random.random() },
        _ => Request::Assign { id: random.random(), role: u64::from(small) },
    };
    request.encode().unwrap()
}

/// What one connection sends.
fn conversation(random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = match random.random_range(0..10) {
        0 => random.random::<u64>().to_le_bytes().to_vec(),
        1 => 0x8610_4dd7_6043_3fe5_u64.to_le_bytes().to_vec(),
        _ => 1u64.to_le_bytes().to_vec(),
    };
    for _ in 0..random.random_range(1..40) {
        match random.random_range(0..12) {
            0 => {
                // A length that will never arrive.
                bytes.extend_from_slice(&random.random::<u32>().to_le_bytes());
                bytes.extend_from_slice(&[random.random_range(0..24), random.random_range(0..3), 0, 0]);
            }
            1 => bytes.extend((0..random.random_range(1..300)).map(|_| random.random::<u8>())),
            2 | 3 => {
                let mut message = sensible(random);
                let at = random.random_range(0..message.len());
                message[at] ^= 1 << random.random_range(0..8);
                bytes.extend(message);
            }
            _ => bytes.extend(sensible(random)),
        }
    }
    if random.random_range(0..4) == 0 {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    bytes
}

fn converse(address: &str, random: &mut SmallRng, counts: &Counts) {
    let mut stream = TcpStream::connect(address).unwrap();
    counts.connections.fetch_add(1, Ordering::Relaxed);
    stream.set_read_timeout(Some(LISTEN)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    let bytes = conversation(random);
    let mut sent = 0;
    let mut buffer = [0; 16 * 1024];
    // In pieces, listening only now and then.
    while sent < bytes.len() {
        let end = bytes.len().min(sent + random.random_range(1..4096));
        if stream.write_all(&bytes[sent..end]).is_err() {
            break;
        }
        sent = end;
    }
    counts.bytes.fetch_add(sent as u64, Ordering::Relaxed);
    if random.random() {
        // Gone without a word.
        return;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                counts.closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(count) => {
                counts.answers.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(_) => {
                counts.closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[test]
fn a_node_survives_whatever_clients_send() {
    let seconds = std::env::var("RANDOM_BYTES_SECONDS").map_or(20, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let mut node = NodeProcess::start(&options).unwrap();
    let counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut most = 0;

    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (address, counts) = (node.address.as_str(), &counts);
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(thread);
                while Instant::now() < end {
                    converse(address, &mut random, counts);
                }
            });
        }
        while Instant::now() < end {
            most = most.max(node.resident_bytes().unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    });

    assert!(node.is_running().unwrap(), "the node has ended: {}", node.error_text());
    let mut client = Client::connect(&node.address, TIMEOUT).unwrap();
    client.open("after.db").unwrap();
    client.exec("CREATE TABLE t(n)", &[]).unwrap();
    client.exec("INSERT INTO t VALUES(42)", &[]).unwrap();
    assert_eq!(client.number("SELECT n FROM t").unwrap(), 42);
    assert!(node.stop().unwrap().success(), "{}", node.error_text());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (connections, bytes) = (count(&counts.connections), count(&counts.bytes));
    println!(
        "{seconds} s: {connections} connections, {bytes} bytes sent, {} bytes of answers, {} closed by the node, \
         at most {} MiB resident",
        count(&counts.answers),
        count(&counts.closed),
        most >> 20
    );
    assert!(connections >= seconds * 20, "{connections} connections");
    assert!(count(&counts.answers) > 0 && count(&counts.closed) > 0);
    assert!(most < MEMORY_MAX_BYTES, "{most} bytes");
    assert!(Path::new(&options.directory).exists());
}
