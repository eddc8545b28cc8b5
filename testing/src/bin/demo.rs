//! `make demo`: a C program that links the library is killed in the middle of its work and comes back with everything.
//! Usage: demo PROGRAM LIBRARY_FOLDER

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dqlite_testing::client::Client;
use dqlite_testing::process::{Library, NodeOptions, NodeProcess, free_address};

type Failure = Box<dyn std::error::Error>;

/// Rows that are written.
const ROWS: u32 = 1000;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, library] = arguments.as_slice() else {
        return Err("usage: demo PROGRAM LIBRARY_FOLDER".into());
    };
    let directory = std::env::temp_dir().join(format!("dqlite-demo-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let result = run(Path::new(program), Path::new(library), &directory);
    std::fs::remove_dir_all(&directory)?;
    result
}

fn run(program: &Path, library: &Path, directory: &Path) -> Result<(), Failure> {
    let options = NodeOptions {
        program: program.to_owned(),
        library: Library::new(library),
        id: 1,
        address: free_address()?,
        directory: PathBuf::from(directory),
        arguments: Vec::new(),
    };
    println!("Starting a node: a C program that links {}/libdqlite.so.0.", library.display());
    let mut node = NodeProcess::start(&options)?;
    println!("It serves clients at {} after {:.0?}, process {}.", node.address, node.started_in, node.id());

    let mut client = Client::connect(&node.address, TIMEOUT)?;
    client.open("demo.db")?;
    client.exec("CREATE TABLE city(id INTEGER PRIMARY KEY, name TEXT, people INTEGER)", &[])?;
    let begin = Instant::now();
    for number in 1..=ROWS {
        client
            .exec(&format!("INSERT INTO city(name, people) VALUES('City {number}', {number} * 1000)"), &[])?;
    }
    let each = begin.elapsed() / ROWS;
    println!(
        "{ROWS} rows are written, each its own transaction and on the disk before its answer: {each:.0?} each."
    );

    node.kill()?;
    println!("The process is killed with SIGKILL, without a word of warning.");
    let node = NodeProcess::start(&options)?;
    println!("It is started again and serves clients after {:.0?}.", node.started_in);

    let mut client = Client::connect(&node.address, TIMEOUT)?;
    client.open("demo.db")?;
    let count = client.number("SELECT count(*) FROM city")?;
    let table = client.query("SELECT id, name, people FROM city ORDER BY id DESC LIMIT 3", &[])?;
    println!("{count} rows are there. The last three: {:?}", table.rows);
    let sound = client.query("PRAGMA integrity_check", &[])?;
    println!("SQLite's integrity check says: {:?}", sound.rows);
    if count != i64::from(ROWS) {
        return Err(format!("{count} rows of {ROWS} are there").into());
    }
    Ok(())
}
