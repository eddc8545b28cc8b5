//! Simulated histories of whole clusters: clients, power cuts, partitions, bad weather, changes of roles. The number of
//! histories is DQLITE_SIM_HISTORIES, the first seed DQLITE_SIM_SEED; `make sim` runs many.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dqlite_sim::campaign::{self, setting};
use dqlite_sim::scenario::{Plant, Report, history};

fn all(seeds: std::ops::Range<u64>, plant: Option<Plant>) -> Vec<Result<Report, String>> {
    campaign::run(seeds, plant, history, |_, _| ())
}

// conformance: disk-format 15
// conformance: state-machine 22
// conformance: state-machine 24 (better: upstream may read the past)
#[test]
fn no_history_violates_anything() {
    let (first, count) = (setting("DQLITE_SIM_SEED", 1), setting("DQLITE_SIM_HISTORIES", 120));
    let results = all(first..first + count, None);
    let failed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(|report| of(report)).sum::<usize>();
    let mut healed: Vec<Duration> = reports.iter().map(|report| report.healed_in).collect();
    healed.sort_unstable();
    println!(
        "{} histories, {} acknowledged operations, {} power cuts, {} of leaders, {} partitions, {} changes of roles; \
         first write after healing: median {:?}, longest {:?}",
        results.len(),
        sum(|report| report.acknowledged),
        sum(|report| report.kills),
        sum(|report| report.leader_kills),
        sum(|report| report.partitions),
        sum(|report| report.changes),
        healed.get(healed.len() / 2),
        healed.last(),
    );
    assert!(failed.is_empty(), "{failed:#?}");
    // What makes the histories worth something.
    let count = count as usize;
    assert!(sum(|report| report.acknowledged) > count * 60, "few operations");
    assert!(sum(|report| report.leader_kills) > count / 2, "few leaders killed");
    assert!(sum(|report| report.partitions) > count / 2, "few partitions");
    // Two election timeouts, each of up to twice its setting.
    let within = healed.iter().filter(|time| **time <= Duration::from_secs(12)).count();
    assert!(within * 100 >= healed.len() * 99, "{healed:?}");
}

// conformance: state-machine 23, 24
#[test]
fn planted_faults_are_found() {
    for (plant, most) in [
        (Plant::LostWrite, 100),
        (Plant::StaleRead, 100),
        (Plant::ForgottenVote, 1500),
        (Plant::Gap, 100),
        (Plant::EarlyReply, 400),
        (Plant::VersionTwice, 100),
    ] {
        // What the checks say, not that a node notices by itself.
        let is_violation = |text: &&String| {
            let stuck = plant == Plant::ForgottenVote && text.contains("no write");
            stuck
                || ["register", "list", "rows", "other pages", "contradict"]
                    .iter()
                    .any(|word| text.contains(word))
        };
        let mut first = 1;
        let found = loop {
            let results = all(first..first + 10, Some(plant));
            let found = results.iter().filter_map(|result| result.as_ref().err()).find(is_violation).cloned();
            first += 10;
            if found.is_some() || first > most {
                break found;
            }
        };
        println!(
            "{plant:?}, after at most {} histories: {:.300}",
            first - 1,
            found.clone().unwrap_or_default()
        );
        assert!(found.is_some(), "{plant:?} was not found in {most} histories");
    }
}
