//! `make slow-clients`: what slow and many clients cost the others. Usage:
//!
//! ```text
//! slow_clients PROGRAM LIBRARY [--rounds N] [--seconds S] [--slow N] [--connections N] [--node-option OPTION]...
//! ```
//!
//! 1. The rate of 16 writers alone, and beside clients that ask for a large result and read a byte a second, in turn; and the memory of the
//!    node before, beside and after them.
//! 2. The memory of the node with many connections, each with an open database and an answer, and after they have left.
//!
//! Exits with 1 if the writers lose more than a tenth, or if a connection leaves more than 40 KiB behind. The node writes to `target/`: a
//! sync must be one.

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dqlite_testing::alone::query_sql;
use dqlite_testing::client::Client;
use dqlite_testing::load::run::{self, Plan};
use dqlite_testing::load::workload::Workload;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, free_address};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: slow_clients PROGRAM LIBRARY [--rounds N] [--seconds S] [--slow N] [--connections N] [--node-option OPTION]...";
const DATABASE: &str = "test.db";
const WRITERS: usize = 16;
/// Size of the result that slow clients ask for.
const LARGE_MIB: usize = 64;
/// A row of it; a message holds many.
const LARGE_ROW_BYTES: usize = 2000;
/// What the writers must keep of their rate.
const SHARE_MIN: f64 = 0.9;
/// What a connection may leave behind.
const LEFT_MAX_BYTES: f64 = 40.0 * 1024.0;
/// Pause of a slow client before its next byte.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that wait unread on a slow client's side.
const RECEIVE_BUFFER_BYTES: usize = 4096;
/// Longest answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the node to give memory back.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

struct Settings {
    program: PathBuf,
    library: Library,
    rounds: usize,
    seconds: u64,
    slow: usize,
    connections: usize,
    node_options: Vec<String>,
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let mut next = move || arguments.next();
    let program = next().ok_or(USAGE)?.into();
    let library = Library::at(Path::new(&next().ok_or(USAGE)?));
    let (rounds, seconds, slow, connections) = (3, 10, 100, 10_000);
    let node_options = Vec::new();
    let mut settings = Settings { program, library, rounds, seconds, slow, connections, node_options };
    while let Some(argument) = next() {
        let value = next().ok_or(USAGE)?;
        match argument.as_str() {
            "--rounds" => settings.rounds = value.parse()?,
            "--seconds" => settings.seconds = value.parse()?,
            "--slow" => settings.slow = value.parse()?,
            "--connections" => settings.connections = value.parse()?,
            "--node-option" => settings.node_options.push(value),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(settings)
}

fn main() -> Result<ExitCode, Failure> {
    let settings = settings(std::env::args().skip(1))?;
    let folder = std::env::current_dir()?.join("target").join(format!("slow-clients-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("data"))?;
    let options = NodeOptions {
        program: settings.program.clone(),
        library: settings.library.clone(),
        id: 1,
        address: free_address()?,
        directory: folder.join("data"),
        arguments: settings.node_options.clone(),
    };
    let mut node = NodeProcess::start(&options)?;
    let measured = measure(&settings, &node);
    let stopped = node.stop();
    std::fs::remove_dir_all(&folder)?;
    let is_good = measured?;
    let stopped = stopped?;
    if !stopped.success() {
        println!("the node ended with {stopped}: {}", node.error_text());
    }
    Ok(if is_good && stopped.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(settings: &Settings, node: &NodeProcess) -> Result<bool, Failure> {
    let mut client = Client::of_sole_voter(&node.address, DATABASE, ANSWER_MAX)?;
    client.exec("CREATE TABLE large(id INTEGER PRIMARY KEY, b BLOB)", &[])?;
    let rows = (1 << 20) / LARGE_ROW_BYTES;
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         INSERT INTO large(b) SELECT randomblob({LARGE_ROW_BYTES}) FROM n"
    );
    for _ in 0..LARGE_MIB {
        client.exec(&sql, &[])?;
    }
    run::make_tables(&node.address, &[DATABASE.to_owned()])?;
    let share = slow_clients(settings, node)?;
    let left = many_connections(settings, node)?;
    let is_good = share >= SHARE_MIN && left <= LEFT_MAX_BYTES;
    println!("{}", if is_good { "within the bounds" } else { "beyond the bounds" });
    Ok(is_good)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Writes per second of the writers.
fn rate(settings: &Settings, node: &NodeProcess) -> Result<f64, Failure> {
    let plan = Plan {
        address: node.address.clone(),
        databases: vec![DATABASE.to_owned()],
        workload: Workload::Insert,
        clients: WRITERS,
        warm_up: Duration::from_secs(1),
        time: Duration::from_secs(settings.seconds),
        rate: None,
        rows: 0,
    };
    Ok(run::run(&plan, || {}, || {})?.per_second())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the writers keep of their rate beside slow clients.
fn slow_clients(settings: &Settings, node: &NodeProcess) -> Result<f64, Failure> {
    let (mut alone, mut beside, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let mut client = Client::of_sole_voter(&node.address, DATABASE, ANSWER_MAX)?;
    println!(
        "{} clients that read a byte a second of {LARGE_MIB} MiB each, {WRITERS} writers",
        settings.slow
    );
    println!(
        "round  writes/s alone  beside  share  memory before, MiB  beside  after  database  ended early"
    );
    for round in 1..=settings.rounds {
        let before = settled(node)?;
        // Before and after, so that a machine that slows down is not taken for an effect.
        let first = rate(settings, node)?;
        let (with, during, ended) = with_slow_clients(settings, node)?;
        let after = settled(node)?;
        let without = f64::midpoint(first, rate(settings, node)?);
        let database =
            client.number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?;
        println!(
            "{round:5}  {without:14.0}  {with:6.0}  {:5.2}  {:18.1}  {:6.1}  {:5.1}  {:8.1}  {ended:11}",
            with / without,
            mib(before),
            mib(during),
            mib(after),
            mib(database.unsigned_abs())
        );
        alone.push(without);
        beside.push(with);
        shares.push(with / without);
    }
    let share = median(&mut shares);
    println!(
        "median: {:.0} alone, {:.0} beside, share {share:.2}, at least {SHARE_MIN}",
        median(&mut alone),
        median(&mut beside)
    );
    Ok(share)
}

/// The writers' rate beside slow clients, the node's memory then, and how many of these were disconnected.
fn with_slow_clients(settings: &Settings, node: &NodeProcess) -> Result<(f64, u64, u64), Failure> {
    let mut streams = Vec::new();
    for _ in 0..settings.slow {
        let mut client = Client::connect(&node.address, ANSWER_MAX)?;
        client.set_receive_buffer(RECEIVE_BUFFER_BYTES)?;
        client.open(DATABASE)?;
        client.send(&query_sql("SELECT id, b FROM large"))?;
        streams.push(client.into_stream());
    }
    let (over, ended) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| read_slowly(&mut streams, &over, &ended));
        let measured = rate(settings, node);
        let during = node.resident_bytes();
        over.store(true, Ordering::Relaxed);
        Ok((measured?, during?, ended.load(Ordering::Relaxed)))
    })
}

/// Reads a byte of each stream, and again after the pause.
fn read_slowly(streams: &mut Vec<TcpStream>, over: &AtomicBool, ended: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let before = streams.len();
        streams.retain_mut(|stream| matches!(stream.read(&mut [0]), Ok(1)));
        ended.fetch_add((before - streams.len()) as u64, Ordering::Relaxed);
        std::thread::sleep(BYTE_PAUSE);
    }
}

/// The node's memory once it does not fall any more.
fn settled(node: &NodeProcess) -> Result<u64, Failure> {
    let end = Instant::now() + SETTLE_MAX;
    let (mut least, mut since) = (node.resident_bytes()?, Instant::now());
    while Instant::now() < end && since.elapsed() < 10 * LOOK_AGAIN {
        std::thread::sleep(LOOK_AGAIN);
        let bytes = node.resident_bytes()?;
        if bytes < least {
            (least, since) = (bytes, Instant::now());
        }
    }
    Ok(least)
}

/// Bytes that each of many connections leaves behind.
fn many_connections(settings: &Settings, node: &NodeProcess) -> Result<f64, Failure> {
    let before = settled(node)?;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for number in 0..settings.connections {
        let mut client = Client::connect(&node.address, ANSWER_MAX).map_err(|error| {
            format!("connection {number} (is the limit of open files high enough?): {error}")
        })?;
        client.open(DATABASE)?;
        client.query("SELECT id, length(b) FROM large WHERE id < 50", &[])?;
        clients.push(client);
    }
    let took = begin.elapsed();
    let during = node.resident_bytes()?;
    drop(clients);
    let after = settled(node)?;
    let of_each = |bytes: u64| bytes.saturating_sub(before) as f64 / settings.connections as f64;
    let left = of_each(after);
    println!(
        "{} connections, made in {took:.1?}: memory before {:.1} MiB, with them {:.1} ({:.1} KiB each), after them {:.1} ({:.1} KiB each, at most {:.0})",
        settings.connections,
        mib(before),
        mib(during),
        of_each(during) / 1024.0,
        mib(after),
        left / 1024.0,
        LEFT_MAX_BYTES / 1024.0
    );
    Ok(left)
}
