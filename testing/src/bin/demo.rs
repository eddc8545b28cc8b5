//! `make demo`: three nodes of a C program that links the library. The leader is killed under writers, the writes go on, it
//! comes back, and every acknowledged row is looked for on every node. Usage: demo PROGRAM LIBRARY

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use dqlite_testing::cluster::Cluster;
use dqlite_testing::outage::{DATABASE, Outage, bring_back, finish, kill_leader, start_writers};
use dqlite_testing::process::Library;
use dqlite_testing::record::{Record, verify};
use dqlite_testing::writers::Writers;

type Failure = Box<dyn std::error::Error>;

const NODES: u64 = 3;
const WRITERS: u64 = 4;
/// Rows before the leader is killed, while it is away, and after it is back.
const ROWS_EACH: usize = 1000;
/// Longest time for them.
const ROWS_WAIT: Duration = Duration::from_secs(120);
/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, place] = arguments.as_slice() else {
        return Err("usage: demo PROGRAM LIBRARY".into());
    };
    let begin = Instant::now();
    println!("Three nodes start, each a process of a C program that links libdqlite.so.0 of {place}.");
    let folder = std::env::temp_dir().join(format!("dqlite-demo-{}", std::process::id()));
    let libraries = vec![Library::at(Path::new(place)); NODES as usize];
    let mut cluster = Cluster::of_voters(Path::new(program), &folder, &[], &libraries)?;
    let formed = begin.elapsed();
    for id in cluster.live() {
        let process = cluster.process(id).map_or(0, |process| process.id());
        println!("  Node {id} serves clients at {}, process {process}.", cluster.address(id)?);
    }
    println!("Node {} leads; it takes the writes and gives them to the other two.", cluster.leader()?);

    println!(
        "{WRITERS} clients insert rows, all the time. A row is acknowledged when two nodes have it on disk."
    );
    let writers = start_writers(&cluster, WRITERS)?;
    let (outage, back) = with_progress(&writers, || lose_and_return(&mut cluster, &writers))?;
    let (record, verdict) = finish(&cluster, writers)?;
    println!("The clients stop.");

    println!("All three nodes hold the same pages. Now each leads in turn and is asked for every row:");
    let mut sound = verdict.is_sound();
    for id in cluster.live() {
        sound &= ask(&cluster, id, &record)?;
    }
    if record.unknown.is_empty() {
        println!("No write was cut off by the kill.");
    } else {
        println!(
            "{} writes were cut off by the kill: their clients were told nothing. {} of them took place.",
            record.unknown.len(),
            verdict.unknown_found
        );
    }
    println!(
        "Timings: {formed:.1?} until the cluster stood, {:.1?} without writes after the kill, {back:.1?} until the killed node \
         had everything again, {:.1?} in all.",
        outage.lasted,
        begin.elapsed()
    );
    if sound { Ok(()) } else { Err(format!("rows are not as they should be: {verdict}").into()) }
}

/// Kills the leader, lets the others go on, starts it again: the outage, and how long it took to come back.
fn lose_and_return(cluster: &mut Cluster, writers: &Writers) -> Result<(Outage, Duration), Failure> {
    let more = |writers: &Writers| writers.wait_acknowledged(writers.acknowledged() + ROWS_EACH, ROWS_WAIT);
    more(writers)?;
    println!("The leader's process is killed with SIGKILL (kill -9), without a word of warning.");
    let outage = kill_leader(cluster, writers)?;
    let leader = cluster.leader()?;
    println!(
        "Node {} is dead. Node {leader} was elected; it acknowledged the next row {:.1?} after the kill.",
        outage.killed, outage.lasted
    );
    more(writers)?;
    println!("The writes go on with two nodes of three. Node {} starts again.", outage.killed);
    let back = bring_back(cluster, writers, outage.killed)?;
    println!("It has every row that it missed, {back:.1?} after its start.");
    more(writers)?;
    Ok((outage, back))
}

/// Makes a node the leader and asks it for every row that the clients know of.
fn ask(cluster: &Cluster, id: u64, record: &Record) -> Result<bool, Failure> {
    cluster.transfer(id)?;
    let verdict = verify(&mut cluster.database(DATABASE)?, record)?;
    let found = verdict.acknowledged - verdict.missing.len() as u64;
    println!(
        "  Node {id}: {found} of {} acknowledged rows are there, {} of them more than once.",
        verdict.acknowledged,
        verdict.duplicates.len()
    );
    Ok(verdict.is_sound())
}

/// Runs `work` and tells every second how many rows are acknowledged.
fn with_progress<T>(writers: &Writers, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        scope.spawn(move || {
            while wait.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
                println!("  ... {} rows acknowledged", writers.acknowledged());
            }
        });
        let result = work();
        drop(done);
        result
    })
}
