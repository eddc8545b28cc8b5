//! `make torture-disks`: three nodes under 16 writers, and disks that are full, read-only, fail, are slow or hang. Usage:
//!
//! ```text
//! bad_disks PROGRAM LABEL=LIBRARY... [--runs N] [--seconds S] [--kinds NAME,...] [--roles NAME,...] [--folder FOLDER]
//! ```
//!
//! LIBRARY is a folder with libdqlite.so.0 or a root of `tests/upstream/fetch.sh`; the first one is judged, the others are there to
//! compare. Everything happens in namespaces of the program's own. Every run tells one line on standard error, and at the end there
//! is one table. Exits with 1 if with the first library a row is lost, double or foreign, a start is refused, a stop takes longer
//! than 12 s, a follower with a full disk does not vote, or the cluster does not work once the disks are good again; with 77 and a
//! reason if bad disks cannot be had here. A time without writes is never a failure.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dqlite_testing::disks::run::{Plan, Seen};
use dqlite_testing::disks::{Kind, Role, space};
use dqlite_testing::outage::percentile;
use dqlite_testing::process::Library;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: bad_disks PROGRAM LABEL=LIBRARY... [--runs N] [--seconds S] [--kinds NAME,...] [--roles NAME,...] [--folder FOLDER]";
/// Runs of each kind and role.
const RUNS_DEFAULT: usize = 20;
/// How long disks are bad.
const SECONDS_DEFAULT: u64 = 8;
/// Exit status where bad disks cannot be had.
const IMPOSSIBLE: u8 = 77;

struct Settings {
    program: PathBuf,
    libraries: Vec<(String, Library)>,
    runs: usize,
    lasts: Duration,
    kinds: Vec<Kind>,
    roles: Vec<Role>,
    folder: PathBuf,
}

/// All runs of a library with one kind and role.
#[derive(Default)]
struct Cell {
    seen: Vec<Seen>,
    errors: Vec<String>,
}

fn chosen<T: Copy>(names: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>, Failure> {
    let one = |wanted: &str| {
        let found = all.iter().copied().find(|one| name(*one) == wanted);
        found.ok_or_else(|| {
            format!("'{wanted}' is none of {:?}", all.iter().map(|one| name(*one)).collect::<Vec<_>>()).into()
        })
    };
    names.split(',').map(one).collect()
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let mut settings = Settings {
        program: arguments.next().ok_or(USAGE)?.into(),
        libraries: Vec::new(),
        runs: RUNS_DEFAULT,
        lasts: Duration::from_secs(SECONDS_DEFAULT),
        kinds: Kind::ALL.to_vec(),
        roles: Role::ALL.to_vec(),
        // Not /tmp, which may be memory: a sync must be one.
        folder: std::env::current_dir()?.join("target"),
    };
    while let Some(argument) = arguments.next() {
        if let Some((label, place)) = argument.split_once('=') {
            settings.libraries.push((label.to_owned(), Library::at(Path::new(place))));
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        match argument.as_str() {
            "--runs" => settings.runs = value.parse()?,
            "--seconds" => settings.lasts = Duration::from_secs(value.parse()?),
            "--kinds" => settings.kinds = chosen(&value, &Kind::ALL, Kind::name)?,
            "--roles" => settings.roles = chosen(&value, &Role::ALL, Role::name)?,
            "--folder" => settings.folder = value.into(),
            _ => return Err(USAGE.into()),
        }
    }
    if settings.libraries.is_empty() || settings.runs == 0 {
        return Err(USAGE.into());
    }
    Ok(settings)
}

fn main() -> Result<ExitCode, Failure> {
    let settings = settings(std::env::args().skip(1))?;
    if !space::is_inside()
        && let Some(reason) = space::impossible()
    {
        eprintln!("bad disks cannot be had here: {reason}");
        return Ok(ExitCode::from(IMPOSSIBLE));
    }
    space::enter()?;
    let rows: Vec<(Kind, Role)> =
        settings.kinds.iter().flat_map(|kind| settings.roles.iter().map(|role| (*kind, *role))).collect();
    let new_row = || settings.libraries.iter().map(|_| Cell::default()).collect::<Vec<Cell>>();
    let mut table: Vec<Vec<Cell>> = rows.iter().map(|_| new_row()).collect();
    // Numbers of processes are no names here: others in namespaces of their own have the same.
    let folder = tempfile::Builder::new().prefix("bad-disks-").tempdir_in(&settings.folder)?;
    let begin = Instant::now();
    for number in 0..settings.runs {
        for (position, ((kind, role), cells)) in rows.iter().zip(&mut table).enumerate() {
            for ((label, library), cell) in settings.libraries.iter().zip(cells) {
                let plan = Plan {
                    program: settings.program.clone(),
                    library: library.clone(),
                    kind: *kind,
                    role: *role,
                    lasts: settings.lasts,
                    stops_under_fault: (number + position) % 2 == 1,
                };
                let told = cell.run(&plan, &folder.path().join("run"));
                eprintln!(
                    "{:5.0?} run={} library={label} kind={} role={} {told}",
                    begin.elapsed(),
                    number + 1,
                    kind.name(),
                    role.name()
                );
            }
        }
    }
    print(&settings, &rows, &table);
    let judged = table.iter().filter_map(|cells| cells.first());
    Ok(if judged.filter(|cell| cell.is_bad()).count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Cell {
    /// One more run, in a line.
    fn run(&mut self, plan: &Plan, folder: &Path) -> String {
        match plan.run(folder) {
            Ok(seen) => {
                let told = line(&seen);
                self.seen.push(seen);
                told
            }
            Err(error) => {
                self.errors.push(error.to_string());
                format!("error={error}")
            }
        }
    }

    fn sum(&self, of: fn(&Seen) -> usize) -> usize {
        self.seen.iter().map(of).sum()
    }

    fn is_bad(&self) -> bool {
        let of_each = |seen: &Seen| {
            wrong_rows(seen) + seen.late_stops() + seen.refused.len() + usize::from(seen.voted == Some(false))
        };
        !self.errors.is_empty() || self.sum(of_each) > 0
    }

    /// The columns of one library.
    fn columns(&self) -> String {
        let silences: Vec<Duration> = self.seen.iter().map(|seen| seen.silence).collect();
        let medians: Vec<Duration> = self.seen.iter().filter_map(|seen| seen.median).collect();
        let median = percentile(&medians, 50).as_secs_f64() * 1e3;
        let stops: Vec<Duration> = self.seen.iter().flat_map(|seen| seen.stops.iter().copied()).collect();
        let tried = |of: fn(&Seen) -> Option<bool>| {
            let tried: Vec<bool> = self.seen.iter().filter_map(of).collect();
            let good = tried.iter().filter(|is_good| **is_good).count();
            if tried.is_empty() { "-".to_owned() } else { format!("{good}/{}", tried.len()) }
        };
        let median = if medians.is_empty() { "-".to_owned() } else { format!("{median:.1}") };
        let slowest = stops.iter().max().map_or("-".to_owned(), |took| format!("{:.1}", took.as_secs_f64()));
        format!(
            "{:6.2} {:6.2} {median:>7} {:>5} {slowest:>5} {:>5} {:>5} {:>6} {:>6} {:>6}",
            percentile(&silences, 50).as_secs_f64(),
            percentile(&silences, 99).as_secs_f64(),
            self.sum(wrong_rows),
            self.sum(Seen::late_stops),
            self.sum(|seen| seen.refused.len()),
            tried(|seen| seen.went_on),
            tried(|seen| seen.voted),
            self.errors.len()
        )
    }
}

/// Rows that are missing, double or of nobody.
fn wrong_rows(seen: &Seen) -> usize {
    seen.verdict.missing.len() + seen.verdict.duplicates.len() + seen.verdict.foreign.len()
}

fn line(seen: &Seen) -> String {
    let median = seen.median.map_or("none".to_owned(), |median| format!("{median:.1?}"));
    let tried = |tried: Option<bool>| tried.map_or("untried".to_owned(), |is_good| is_good.to_string());
    let mut told = format!(
        "bad={} silence={:.2?} rows={} median={median} moved={} wrong={} stops={:.1?} after={:.1?} refused={} went_on={} voted={} acknowledged={}",
        seen.bad,
        seen.silence,
        seen.acknowledged,
        seen.moved,
        wrong_rows(seen),
        seen.stops,
        seen.stops_after,
        seen.refused.len(),
        tried(seen.went_on),
        tried(seen.voted),
        seen.verdict.acknowledged
    );
    for text in &seen.refused {
        told += &format!("\n    refused: {text}");
    }
    if !seen.verdict.is_sound() {
        told += &format!("\n    {}", seen.verdict);
    }
    told += &seen.words;
    for (text, count) in &seen.failures {
        told += &format!("\n    {count} times: {text}");
    }
    told
}

fn print(settings: &Settings, rows: &[(Kind, Role)], table: &[Vec<Cell>]) {
    println!(
        "{} runs of each, disks bad for {:?}, full ones half as long again",
        settings.runs, settings.lasts
    );
    println!(
        "gap: longest time without an acknowledged write while disks are bad, median and 99th percentile of the runs, s"
    );
    println!(
        "write: median time of a write that is acknowledged meanwhile, ms; lost: rows that are missing, double or foreign"
    );
    println!(
        "stop: the longest while disks are bad, s; late: stops of more than 12 s; ref.: starts that were refused afterwards"
    );
    println!(
        "on: runs that wrote again without a restart when disks were good again (read-only ones are mounted anew)"
    );
    println!(
        "votes: elections won with the vote of a node with a full disk; errors: runs that came to no end"
    );
    print!("{:23}", "");
    for (label, _) in &settings.libraries {
        print!("| {label:<68}");
    }
    print!("\n{:9} {:13}", "disk", "whose");
    for _ in &settings.libraries {
        print!("|    gap    p99   write  lost  stop  late  ref.     on  votes errors ");
    }
    println!();
    for ((kind, role), cells) in rows.iter().zip(table) {
        print!("{:9} {:13}", kind.name(), role.name());
        for cell in cells {
            print!("| {} ", cell.columns());
        }
        println!();
    }
    for (cells, (kind, role)) in table.iter().zip(rows) {
        for (cell, (label, _)) in cells.iter().zip(&settings.libraries) {
            for error in &cell.errors {
                println!("{label}, {} of {}: {error}", kind.name(), role.name());
            }
        }
    }
}
