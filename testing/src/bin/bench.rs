//! `make bench`: this library and upstream's on one machine in one run, the same C program as the node and the same client.
//! Usage: bench PROGRAM LIBRARY_FOLDER UPSTREAM_FOLDER [ROUNDS]. UPSTREAM_FOLDER holds what `tests/upstream/fetch.sh` unpacked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dqlite::protocol::request::Value;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, free_address};

type Failure = Box<dyn std::error::Error>;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Inserts that are timed, after `WARM_UP` that are not.
const INSERTS: usize = 2000;
const WARM_UP: usize = 200;
/// Writers at once, and how long they write.
const WRITERS: usize = 32;
const WRITE_TIME: Duration = Duration::from_secs(3);
/// Rows of 4000 bytes in the large database: 200 MB.
const LARGE_ROWS: usize = 50_000;
const LARGE_ROWS_AT_ONCE: usize = 500;

/// One library and what was measured with it, a number for each round.
struct Contender {
    name: String,
    library: Library,
    median_us: Vec<f64>,
    p99_us: Vec<f64>,
    writes_per_second: Vec<f64>,
    resident: Vec<f64>,
    resident_restarted: Vec<f64>,
    restart_ms: Vec<f64>,
}

impl Contender {
    fn new(name: String, library: Library) -> Contender {
        Contender {
            name,
            library,
            median_us: Vec::new(),
            p99_us: Vec::new(),
            writes_per_second: Vec::new(),
            resident: Vec::new(),
            resident_restarted: Vec::new(),
            restart_ms: Vec::new(),
        }
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, library, upstream, rest @ ..] = arguments.as_slice() else {
        return Err("usage: bench PROGRAM LIBRARY_FOLDER UPSTREAM_FOLDER [ROUNDS]".into());
    };
    let rounds: usize = rest.first().map_or(Ok(5), |text| text.parse())?;
    let mut contenders = vec![Contender::new("this library".into(), Library::new(Path::new(library)))];
    for root in versions(Path::new(upstream))? {
        let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        contenders.push(Contender::new(format!("upstream {name}"), Library::of_root(&root)));
    }
    // Not /tmp, which may be memory: a sync must be one.
    let work = Path::new("target").join(format!("bench-{}", std::process::id()));
    for round in 1..=rounds {
        for contender in &mut contenders {
            eprintln!("round {round} of {rounds}: {}", contender.name);
            std::fs::create_dir_all(&work)?;
            let measured = measure(Path::new(program), &work, contender);
            std::fs::remove_dir_all(&work)?;
            measured?;
        }
    }
    print(&contenders);
    Ok(())
}

fn versions(upstream: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(upstream)? {
        let path = entry?.path();
        if path.join(".complete").exists() {
            roots.push(path);
        }
    }
    roots.sort();
    Ok(roots)
}

fn measure(program: &Path, work: &Path, contender: &mut Contender) -> Result<(), Failure> {
    let options = |name: &str| -> Result<NodeOptions, Failure> {
        let directory = work.join(name);
        std::fs::create_dir_all(&directory)?;
        let (program, library) = (program.to_owned(), contender.library.clone());
        Ok(NodeOptions {
            program,
            library,
            id: 1,
            address: free_address()?,
            directory,
            arguments: Vec::new(),
        })
    };
    let (small, large) = (options("small")?, options("large")?);

    let mut node = NodeProcess::start(&small)?;
    let mut client = open(&node)?;
    client.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT)", &[])?;
    let times = insert(&mut client)?;
    contender.median_us.push(times[times.len() / 2].as_secs_f64() * 1e6);
    contender.p99_us.push(times[times.len() * 99 / 100].as_secs_f64() * 1e6);
    contender.writes_per_second.push(write_together(&node)?);
    node.stop()?;

    let mut node = NodeProcess::start(&large)?;
    let bytes = fill(&mut open(&node)?)? as f64;
    contender.resident.push(node.resident_bytes()? as f64 / bytes);
    node.stop()?;
    let begin = Instant::now();
    let mut node = NodeProcess::start(&large)?;
    open(&node)?.number("SELECT max(id) FROM t")?;
    contender.restart_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    contender.resident_restarted.push(node.resident_bytes()? as f64 / bytes);
    node.stop()?;
    Ok(())
}

fn open(node: &NodeProcess) -> Result<Client, ClientError> {
    // Upstream's leader answers before it serves.
    let end = Instant::now() + TIMEOUT;
    loop {
        let mut client = Client::connect(&node.address, TIMEOUT)?;
        match client.open("bench.db") {
            Err(ClientError::Failure { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1))
            }
            opened => return opened.map(|()| client),
        }
    }
}

/// Sorted times of small inserts, one after the other.
fn insert(client: &mut Client) -> Result<Vec<Duration>, ClientError> {
    let stmt = client.prepare("INSERT INTO t(s) VALUES(?)")?;
    let value = [Value::Text(Bytes::from_static(&[b'x'; 63]))];
    let mut times = Vec::with_capacity(INSERTS);
    for number in 0..WARM_UP + INSERTS {
        let begin = Instant::now();
        client.exec_prepared(stmt, &value)?;
        if number >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// Acknowledged transactions a second of many writers. One that finds the database busy tries again.
fn write_together(node: &NodeProcess) -> Result<f64, ClientError> {
    let begin = Instant::now();
    let work = |_| {
        let mut client = open(node)?;
        let stmt = client.prepare("INSERT INTO t(s) VALUES(?)")?;
        let value = [Value::Text(Bytes::from_static(&[b'x'; 63]))];
        let mut count = 0u64;
        while begin.elapsed() < WRITE_TIME {
            match client.exec_prepared(stmt, &value) {
                Ok(_) => count += 1,
                Err(error) if error.code() == Some(5) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    };
    let count = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || work(writer))).collect();
        writers.into_iter().try_fold(0, |sum, writer| {
            let failed = || ClientError::Io(std::io::Error::other("a writer panicked"));
            Ok::<u64, ClientError>(sum + writer.join().map_err(|_| failed())??)
        })
    })?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// Writes the large database; its size in bytes.
fn fill(client: &mut Client) -> Result<i64, ClientError> {
    client.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)", &[])?;
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LARGE_ROWS_AT_ONCE}) \
         INSERT INTO t(b) SELECT randomblob(4000) FROM n"
    );
    for _ in 0..LARGE_ROWS / LARGE_ROWS_AT_ONCE {
        client.exec(&rows, &[])?;
    }
    // Past the threshold of a snapshot.
    for _ in 0..1100 {
        client.exec("UPDATE t SET b = randomblob(10) WHERE id = 1", &[])?;
    }
    client.number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One measurement of a contender, a number for each round.
type Column = (&'static str, fn(&Contender) -> &[f64]);

fn print(contenders: &[Contender]) {
    let columns: [Column; 6] = [
        ("insert, 1 client, median us", |contender| &contender.median_us),
        ("insert, 1 client, p99 us", |contender| &contender.p99_us),
        ("inserts/s, 32 clients", |contender| &contender.writes_per_second),
        ("memory / database of 200 MB", |contender| &contender.resident),
        ("the same after a restart", |contender| &contender.resident_restarted),
        ("restart with 200 MB, ms", |contender| &contender.restart_ms),
    ];
    print!("{:30}", "median (lowest..highest)");
    for contender in contenders {
        print!("{:>26}", contender.name);
    }
    println!();
    for (title, values) in columns {
        print!("{title:30}");
        for contender in contenders {
            let values = values(contender);
            let (low, high) = values
                .iter()
                .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
            let digits = if median(values) < 10.0 { 2 } else { 0 };
            print!("{:>26}", format!("{:.digits$} ({low:.digits$}..{high:.digits$})", median(values)));
        }
        println!();
        if let [ours, upstream @ ..] = contenders {
            print!("{:30}{:>26}", "  ours / theirs", "");
            for contender in upstream {
                print!("{:>26}", format!("{:.2}", median(values(ours)) / median(values(contender))));
            }
            println!();
        }
    }
}
