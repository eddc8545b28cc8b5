//! `histories FIRST COUNT [FAULT]`: runs simulated histories and says what they showed; exit status 1 after a violation.
//! With DQLITE_SIM_MIXED=1 some nodes of each cluster are models of upstream's; with DQLITE_SIM_SIEGE=1 strangers besiege it; with
//! DQLITE_SIM_DISKS=1 disks go bad. DQLITE_SIM_DIGESTS=FILE writes the digest of each
//! history to a file: a change that decides nothing else leaves all of them as they are.

use std::fs;
use std::io::{self, Write, stderr};
use std::ops::Add;
use std::process::ExitCode;
use std::time::Duration;

use dqlite_sim::bad_disks::BadDisks;
use dqlite_sim::campaign;
use dqlite_sim::mixed::Mixed;
use dqlite_sim::scenario::{Plant, Report, besieged_history, disk_history, history, mixed_history};

/// While one disk is bad, 99 of a hundred clusters take writes again within this time.
const GAP_AIM: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let fault = std::env::args().nth(3).map(|name| Plant::named(&name));
    let ([first, count], None | Some(Some(_))) = (&numbers[..], &fault) else {
        let _ = writeln!(stderr(), "usage: histories FIRST COUNT [FAULT]");
        return ExitCode::from(2);
    };
    let (first, count, fault) = (*first, *count, fault.flatten());
    campaign::log_as_asked();
    let asked = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let mixed = asked("DQLITE_SIM_MIXED");
    let disks = asked("DQLITE_SIM_DISKS");
    let history = match (mixed, asked("DQLITE_SIM_SIEGE"), disks) {
        (true, _, _) => mixed_history,
        (false, true, _) => besieged_history,
        (false, false, true) => disk_history,
        (false, false, false) => history,
    };
    let results = campaign::run(first..first + count, fault, history, |result, done| {
        if let Err(error) = result {
            println!("\n{error}");
        }
        if done.is_multiple_of(50) {
            let _ = write!(stderr(), "\r{done} of {count} histories");
        }
    });
    let mut reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    reports.sort_by_key(|report| report.seed);
    if let Err(error) = write_digests(&reports) {
        let _ = writeln!(stderr(), "digests: {error}");
        return ExitCode::from(2);
    }
    let sum = |of: fn(&Report) -> usize| reports.iter().map(|report| of(report)).sum::<usize>();
    let mut healed: Vec<Duration> = reports.iter().map(|report| report.healed_in).collect();
    healed.sort_unstable();
    let at = |part: usize| healed.get((healed.len() * part / 100).min(healed.len().saturating_sub(1)));
    println!(
        "\r{} histories, {} violations; {} operations acknowledged, {} not; {} power cuts, {} of leaders, {} of them under 16 writers; \
         {} partitions, {} changes of roles",
        results.len(),
        results.len() - reports.len(),
        sum(|report| report.acknowledged),
        sum(|report| report.unknown),
        sum(|report| report.kills),
        sum(|report| report.leader_kills),
        sum(Report::crowded_leader_kills),
        sum(|report| report.partitions),
        sum(|report| report.changes),
    );
    if mixed {
        println!("{}", reports.iter().map(|report| report.mixed).fold(Mixed::default(), Mixed::add));
    }
    let bad = || reports.iter().map(|report| &report.disks);
    let p99 = BadDisks::gap_p99(bad());
    let is_slow = p99.is_some_and(|p99| p99 > GAP_AIM);
    if disks {
        println!("{}", BadDisks::summary(bad()));
    }
    if is_slow {
        println!("without a write while one disk was bad: p99 {p99:?}, aim {GAP_AIM:?}");
    }
    // What cannot be replayed cannot be mended: the first one again.
    let replayed = match history(first, fault) {
        Ok(report) => {
            let replays = history(first, fault).is_ok_and(|again| again.digest == report.digest);
            println!("seed {first} again: the same {:016x} over the network: {replays}", report.digest);
            replays
        }
        Err(_) => true,
    };
    println!("first write after healing: median {:?}, p99 {:?}, longest {:?}", at(50), at(99), healed.last());
    ExitCode::from(u8::from(reports.len() != results.len() || !replayed || is_slow))
}

fn write_digests(reports: &[&Report]) -> io::Result<()> {
    let Some(path) = std::env::var_os("DQLITE_SIM_DIGESTS") else { return Ok(()) };
    let line = |report: &&Report| format!("{} {:016x}\n", report.seed, report.digest);
    fs::write(path, reports.iter().map(line).collect::<String>())
}
