//! `make rolls`: clusters of three nodes of each of upstream's versions, replaced node by node by this library and back under
//! writers, beside the same roll from upstream's version to itself. How long no write was acknowledged, and whether a row is
//! lost. Usage: rolls PROGRAM LIBRARY VERSION=ROOT... [--rolls N] [--writers N] [--latency-ms N] [--seed N] [--steps], where
//! LIBRARY is the folder of this library and ROOT one of `tests/upstream/fetch.sh`. Roll N of every kind has the seed SEED + N;
//! --steps tells how long each step took.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use dqlite_testing::outage::percentile;
use dqlite_testing::process::Library;
use dqlite_testing::roll::{NODES, Outcome, Roll};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: rolls PROGRAM LIBRARY VERSION=ROOT... [--rolls N] [--writers N] [--latency-ms N] [--seed N] [--steps]";
/// Rolls of each kind, if nothing else is said.
const ROLLS_DEFAULT: u64 = 20;
/// Clients that write, if nothing else is said.
const WRITERS_DEFAULT: u64 = 4;

struct Options {
    program: PathBuf,
    ours: Library,
    upstream: Vec<(String, Library)>,
    rolls: u64,
    writers: u64,
    /// The library's own, if absent.
    latency_ms: Option<u64>,
    seed: u64,
    /// Whether each step is told.
    steps: bool,
}

/// From a version of upstream's to a library and back, and what was seen.
struct Kind {
    version: String,
    to: &'static str,
    from_library: Library,
    to_library: Library,
    outcomes: Vec<Outcome>,
}

fn number<T: FromStr>(option: &str, value: Option<String>) -> Result<T, Failure> {
    let value = value.ok_or(USAGE)?;
    value.parse().map_err(|_| format!("{option} {value} is no number\n{USAGE}").into())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let program = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let ours = Library::at(Path::new(&arguments.next().ok_or(USAGE)?));
    let mut options = Options {
        program,
        ours,
        upstream: Vec::new(),
        rolls: ROLLS_DEFAULT,
        writers: WRITERS_DEFAULT,
        latency_ms: None,
        seed: 0,
        steps: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rolls" => options.rolls = number(&argument, arguments.next())?,
            "--writers" => options.writers = number(&argument, arguments.next())?,
            "--latency-ms" => options.latency_ms = Some(number(&argument, arguments.next())?),
            "--seed" => options.seed = number(&argument, arguments.next())?,
            "--steps" => options.steps = true,
            _ => {
                let (version, root) = argument.split_once('=').ok_or(USAGE)?;
                options.upstream.push((version.to_owned(), Library::at(Path::new(root))));
            }
        }
    }
    if options.upstream.is_empty() || options.rolls == 0 || options.writers == 0 {
        return Err(USAGE.into());
    }
    Ok(options)
}

fn kinds(options: &Options) -> Vec<Kind> {
    let kind = |(version, library): &(String, Library), to, to_library: &Library| Kind {
        version: version.clone(),
        to,
        from_library: library.clone(),
        to_library: to_library.clone(),
        outcomes: Vec::new(),
    };
    let both = |upstream: &(String, Library)| {
        [kind(upstream, "this library", &options.ours), kind(upstream, "itself", &upstream.1)]
    };
    options.upstream.iter().flat_map(both).collect()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rolls: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let options = options(std::env::args().skip(1))?;
    let mut kinds = kinds(&options);
    let latency = options.latency_ms.map(|latency_ms| format!("--latency-ms={latency_ms}"));
    let arguments: Vec<&str> = latency.iter().map(String::as_str).collect();
    // Not /tmp, which may be memory: a sync must be one.
    let folder = Path::new("target").join(format!("rolls-{}", std::process::id()));
    let begin = Instant::now();
    for roll in 0..options.rolls {
        let seed = options.seed + roll;
        for kind in &mut kinds {
            let what = format!("{} to {} and back, seed {seed}", kind.version, kind.to);
            let roll = Roll {
                program: &options.program,
                folder: &folder,
                arguments: &arguments,
                from: &kind.from_library,
                to: &kind.to_library,
                writers: options.writers,
                seed,
            };
            let outcome = roll.run().map_err(|error| format!("{what}: {error}"))?;
            let Outcome { forth, back, lasted, verdict, .. } = &outcome;
            println!(
                "{:5.0?} {what}: {lasted:.1?}, without writes {forth:.2?} forth, {back:.2?} back; {verdict}",
                begin.elapsed()
            );
            for step in outcome.taken.iter().filter(|_| options.steps) {
                println!("      {step}");
            }
            if !verdict.is_sound() {
                println!("failed writes: {:?}", outcome.record.failures);
            }
            kind.outcomes.push(outcome);
        }
    }
    print(&kinds, &options);
    let unsound = kinds.iter().flat_map(|kind| &kind.outcomes).filter(|outcome| !outcome.verdict.is_sound());
    match unsound.count() {
        0 => Ok(()),
        count => Err(format!("rows are missing, double or foreign after {count} rolls").into()),
    }
}

fn print(kinds: &[Kind], options: &Options) {
    println!(
        "Longest time without an acknowledged write in a roll, {NODES} nodes, {} writers, {}: median and longest of all rolls.",
        options.writers,
        options.latency_ms.map_or("default timers".into(), |latency| format!("latency {latency} ms"))
    );
    println!(
        "{:8} {:13} {:>5} {:>15} {:>15} {:>8} {:>7} {:>12} {:>8} {:>8} {:>10} {:>7}",
        "version",
        "rolled to",
        "rolls",
        "forth ms",
        "back ms",
        "replaced",
        "crashes",
        "acknowledged",
        "unknown",
        "lost",
        "duplicates",
        "foreign"
    );
    for Kind { version, to, outcomes, .. } in kinds {
        let both = |of: fn(&Outcome) -> Duration| {
            let values: Vec<Duration> = outcomes.iter().map(of).collect();
            let [median, longest] = [50, 100].map(|percent| percentile(&values, percent).as_millis());
            format!("{median} / {longest}")
        };
        let sum = |of: &dyn Fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
        println!(
            "{version:8} {to:13} {:>5} {:>15} {:>15} {:>8} {:>7} {:>12} {:>8} {:>8} {:>10} {:>7}",
            outcomes.len(),
            both(|outcome| outcome.forth),
            both(|outcome| outcome.back),
            sum(&|outcome| outcome.replaced as u64),
            sum(&|outcome| outcome.crashes as u64),
            sum(&|outcome| outcome.verdict.acknowledged),
            sum(&|outcome| outcome.verdict.unknown),
            sum(&|outcome| outcome.verdict.missing.len() as u64),
            sum(&|outcome| outcome.verdict.duplicates.len() as u64),
            sum(&|outcome| outcome.verdict.foreign.len() as u64),
        );
    }
}
