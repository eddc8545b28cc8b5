//! `make failover`: how long a cluster of three takes no writes when its leader is killed with SIGKILL, and whether a row is
//! lost. One library after the other in every round. Usage: failover PROGRAM LABEL=LIBRARY... [--kills N], where LIBRARY is a
//! folder with libdqlite.so.0 or a root of `tests/upstream/fetch.sh`, and N is the number of kills for each figure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dqlite_testing::cluster::Cluster;
use dqlite_testing::outage::{bring_back, finish, kill_leader, percentile, start_writers};
use dqlite_testing::process::Library;
use dqlite_testing::writers::WRITERS_DEFAULT;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: failover PROGRAM LABEL=LIBRARY... [--kills N]";
/// Kills for each figure, if nothing else is said.
const KILLS_DEFAULT: usize = 20;
/// Kills of one cluster before the next library's turn.
const KILLS_AT_ONCE: usize = 5;
const NODES: usize = 3;
/// Numbers of writers that are measured.
const WRITERS: [u64; 2] = [WRITERS_DEFAULT, 1];

/// A library with a number of writers, and what was seen.
struct Contender {
    label: String,
    library: Library,
    writers: u64,
    outages: Vec<Duration>,
    returns: Vec<Duration>,
    acknowledged: u64,
    unknown: u64,
    missing: usize,
    duplicates: usize,
    foreign: usize,
}

struct Plan {
    program: PathBuf,
    contenders: Vec<Contender>,
    kills: usize,
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, Failure> {
    let program = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let (mut libraries, mut kills) = (Vec::new(), KILLS_DEFAULT);
    while let Some(argument) = arguments.next() {
        if argument == "--kills" {
            kills = arguments.next().ok_or(USAGE)?.parse()?;
        } else {
            let (label, place) = argument.split_once('=').ok_or(USAGE)?;
            libraries.push((label.to_owned(), Library::at(Path::new(place))));
        }
    }
    if libraries.is_empty() || kills == 0 {
        return Err(USAGE.into());
    }
    let contender = |writers, (label, library): &(String, Library)| Contender {
        label: label.clone(),
        library: library.clone(),
        writers,
        outages: Vec::new(),
        returns: Vec::new(),
        acknowledged: 0,
        unknown: 0,
        missing: 0,
        duplicates: 0,
        foreign: 0,
    };
    let contenders = WRITERS
        .iter()
        .flat_map(|writers| libraries.iter().map(|library| contender(*writers, library)))
        .collect();
    Ok(Plan { program, contenders, kills })
}

fn main() -> Result<(), Failure> {
    let Plan { program, mut contenders, kills } = plan(std::env::args().skip(1))?;
    // Not /tmp, which may be memory: a sync must be one.
    let folder = Path::new("target").join(format!("failover-{}", std::process::id()));
    let begin = Instant::now();
    let rounds = kills.div_ceil(KILLS_AT_ONCE);
    for round in 0..rounds {
        let in_round = KILLS_AT_ONCE.min(kills - round * KILLS_AT_ONCE);
        for contender in &mut contenders {
            measure(&program, &folder, contender, in_round, &|contender| {
                eprintln!(
                    "{:5.0?} round {} of {rounds}: {} with {} writers, kill {} of {kills}: {:.2?} without writes",
                    begin.elapsed(),
                    round + 1,
                    contender.label,
                    contender.writers,
                    contender.outages.len(),
                    contender.outages.last().copied().unwrap_or_default(),
                );
            })?;
        }
    }
    print(&contenders);
    if contenders.iter().any(|contender| contender.missing + contender.duplicates + contender.foreign > 0) {
        return Err("rows are missing, double or foreign".into());
    }
    Ok(())
}

fn measure(
    program: &Path,
    folder: &Path,
    contender: &mut Contender,
    kills: usize,
    progress: &dyn Fn(&Contender),
) -> Result<(), Failure> {
    let libraries = vec![contender.library.clone(); NODES];
    let mut cluster = Cluster::of_voters(program, folder, &[], &libraries)?;
    let writers = start_writers(&cluster, contender.writers)?;
    for _ in 0..kills {
        let outage = kill_leader(&mut cluster, &writers)?;
        contender.outages.push(outage.lasted);
        progress(contender);
        contender.returns.push(bring_back(&mut cluster, &writers, outage.killed)?);
    }
    let (_, verdict) = finish(&cluster, writers)?;
    if !verdict.is_sound() {
        eprintln!("{}: {verdict}", contender.label);
    }
    contender.acknowledged += verdict.acknowledged;
    contender.unknown += verdict.unknown;
    contender.missing += verdict.missing.len();
    contender.duplicates += verdict.duplicates.len();
    contender.foreign += verdict.foreign.len();
    Ok(())
}

fn print(contenders: &[Contender]) {
    println!(
        "Time from the SIGKILL of the leader to the next acknowledged row, {NODES} nodes, and back with every row."
    );
    println!(
        "{:20} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>12} {:>8} {:>8} {:>10} {:>7}",
        "library",
        "writers",
        "kills",
        "median ms",
        "p99 ms",
        "max ms",
        "back ms",
        "acknowledged",
        "unknown",
        "missing",
        "duplicates",
        "foreign"
    );
    for contender in contenders {
        println!(
            "{:20} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>12} {:>8} {:>8} {:>10} {:>7}",
            contender.label,
            contender.writers,
            contender.outages.len(),
            percentile(&contender.outages, 50).as_millis(),
            percentile(&contender.outages, 99).as_millis(),
            percentile(&contender.outages, 100).as_millis(),
            percentile(&contender.returns, 50).as_millis(),
            contender.acknowledged,
            contender.unknown,
            contender.missing,
            contender.duplicates,
            contender.foreign,
        );
    }
}
