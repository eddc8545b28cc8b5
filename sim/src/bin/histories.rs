//! `histories FIRST COUNT [FAULT]`: runs simulated histories and says what they showed; exit status 1 after a violation.
//! With DQLITE_SIM_MIXED=1 some nodes of each cluster are models of upstream's. DQLITE_SIM_DIGESTS=FILE writes the digest of each
//! history to a file: a change that decides nothing else leaves all of them as they are.

use std::fs;
use std::io::{self, Write, stderr};
use std::ops::Add;
use std::process::ExitCode;
use std::time::Duration;

use dqlite_sim::campaign;
use dqlite_sim::mixed::Mixed;
use dqlite_sim::scenario::{Plant, Report, history, mixed_history};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let fault = std::env::args().nth(3).map(|name| Plant::named(&name));
    let ([first, count], None | Some(Some(_))) = (&numbers[..], &fault) else {
        let _ = writeln!(stderr(), "usage: histories FIRST COUNT [FAULT]");
        return ExitCode::from(2);
    };
    let (first, count, fault) = (*first, *count, fault.flatten());
    campaign::log_as_asked();
    let mixed = std::env::var_os("DQLITE_SIM_MIXED").is_some_and(|value| value == "1");
    let history = if mixed { mixed_history } else { history };
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
    ExitCode::from(u8::from(reports.len() != results.len() || !replayed))
}

fn write_digests(reports: &[&Report]) -> io::Result<()> {
    let Some(path) = std::env::var_os("DQLITE_SIM_DIGESTS") else { return Ok(()) };
    let line = |report: &&Report| format!("{} {:016x}\n", report.seed, report.digest);
    fs::write(path, reports.iter().map(line).collect::<String>())
}
