//! `sessions [--single-thread] FIRST COUNT [FAULT]`: runs histories of the machine of sessions and says what they showed; exit
//! status 1 after a violation. `sessions --plants COUNT`: plants each fault in turn; exit status 1 if one is not found.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::Instant;

use dqlite::types::fault::Fault;
use dqlite_sim::campaign::log_as_asked;
use dqlite_sim::sessions::campaign::Campaign;
use dqlite_sim::sessions::plain::use_single_thread_mode;
use dqlite_sim::sessions::{Report, history};

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, most] = &words[..]
        && flag == "--plants"
        && let Ok(most) = most.parse()
    {
        return plant_all(most);
    }
    let is_serial = words.first().is_some_and(|word| word == "--single-thread");
    if is_serial {
        words.remove(0);
    }
    let numbers: Vec<u64> = words.iter().take(2).filter_map(|word| word.parse().ok()).collect();
    let planted = words.get(2).map(|name| Fault::named(name));
    let ([first, count], None | Some(Some(_))) = (&numbers[..], planted) else {
        let _ = writeln!(
            stderr(),
            "usage: sessions [--single-thread] FIRST COUNT [FAULT] | --plants COUNT; faults: {:?}",
            Fault::OF_SESSIONS
        );
        return ExitCode::from(2);
    };
    if is_serial && let Err(code) = use_single_thread_mode() {
        let _ = writeln!(stderr(), "SQLite refuses its single-thread mode: {code}");
        return ExitCode::from(2);
    }
    let (first, count, planted) = (*first, *count, planted.flatten());
    log_as_asked();
    let begin = Instant::now();
    let mut campaign = Campaign { planted, ..Campaign::new(first..first + count) };
    if is_serial {
        // SQLite is one for the whole process.
        campaign.threads = 1;
    }
    let results = campaign.run(|result, done| {
        if let Err(error) = result {
            println!("\n{error}");
        }
        if done.is_multiple_of(20) {
            let _ = write!(stderr(), "\r{done} of {count} histories");
        }
    });
    let reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    print(&reports, results.len(), begin);
    // What cannot be replayed cannot be mended: the first one again.
    let replayed = match history(first, planted) {
        Ok(report) => {
            let again = history(first, planted).map(|again| again.digest);
            let replays = again.as_ref() == Ok(&report.digest);
            println!("seed {first} again: the same {:016x}: {replays}", report.digest);
            replays
        }
        Err(_) => true,
    };
    ExitCode::from(u8::from(reports.len() != results.len() || !replayed))
}

/// Plants each fault and looks after how many histories it is found.
fn plant_all(most: u64) -> ExitCode {
    let mut found = 0;
    for fault in Fault::OF_SESSIONS {
        let campaign = Campaign { planted: Some(fault), until_found: true, ..Campaign::new(1..most + 1) };
        let results = campaign.run(|_, _| ());
        match results.iter().find_map(|result| result.as_ref().err()) {
            Some(error) => {
                found += 1;
                println!("{fault:?}, after {} histories: {error:.200}", results.len());
            }
            None => println!("{fault:?}: NOT FOUND in {} histories", results.len()),
        }
    }
    println!("{found} of {} planted faults found", Fault::OF_SESSIONS.len());
    ExitCode::from(u8::from(found != Fault::OF_SESSIONS.len()))
}

fn print(reports: &[&Report], histories: usize, begin: Instant) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    println!(
        "\r{histories} histories in {:?}, {} violations; {} clients, {} requests; {} writes acknowledged, {} unknown; {} reads checked",
        begin.elapsed(),
        histories - reports.len(),
        sum(|report| report.clients),
        sum(|report| report.counts.requests),
        sum(|report| report.counts.acknowledged),
        sum(|report| report.counts.unknown),
        sum(|report| report.counts.reads),
    );
    println!(
        "{} changes of the leader, {} stops, {} power cuts, {} partitions; {} pauses inside SQLite; {} requests without an answer",
        sum(|report| report.troubles.leaders),
        sum(|report| report.troubles.stops),
        sum(|report| report.troubles.crashes),
        sum(|report| report.troubles.partitions),
        sum(|report| report.pauses),
        sum(|report| report.counts.unanswered),
    );
    let (mut ends, mut failures) = (BTreeMap::new(), BTreeMap::new());
    for report in reports {
        for (end, count) in &report.counts.ends {
            *ends.entry(*end).or_insert(0) += count;
        }
        for (code, count) in &report.counts.failures {
            *failures.entry(*code).or_insert(0) += count;
        }
    }
    println!("ends: {ends:?}\nfailures by code: {failures:?}");
}
