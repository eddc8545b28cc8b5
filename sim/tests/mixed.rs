//! Simulated histories of clusters in which some nodes are models of upstream's. DQLITE_SIM_MIXED_HISTORIES and
//! DQLITE_SIM_SEED choose them; `make sim-mixed` runs many.

#![allow(clippy::unwrap_used)]

use std::ops::Add;

use dqlite_sim::campaign::{self, setting};
use dqlite_sim::mixed::Mixed;
use dqlite_sim::scenario::{Plant, Report, mixed_history};

fn all(seeds: std::ops::Range<u64>, plant: Option<Plant>) -> Vec<Result<Report, String>> {
    campaign::run(seeds, plant, mixed_history, |_, _| ())
}

#[test]
fn no_history_of_a_mixed_cluster_violates_anything() {
    let (first, count) = (setting("DQLITE_SIM_SEED", 1), setting("DQLITE_SIM_MIXED_HISTORIES", 24));
    let results = all(first..first + count, None);
    let failed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(|report| of(report)).sum::<usize>();
    let seen = reports.iter().map(|report| report.mixed).fold(Mixed::default(), Mixed::add);
    let acknowledged = sum(|report| report.acknowledged);
    println!(
        "{} histories, {acknowledged} acknowledged operations, {} power cuts, {} of leaders, {} partitions; {seen}",
        results.len(),
        sum(|report| report.kills),
        sum(|report| report.leader_kills),
        sum(|report| report.partitions),
    );
    assert!(failed.is_empty(), "{failed:#?}");
    // What makes the histories worth something.
    let count = count as usize;
    assert!(acknowledged > count * 60, "few operations");
    assert!(seen.elections_of_c > count && seen.returns > count / 2, "{seen}");
    assert!(seen.transfers_by_c > count / 4 && seen.changes_by_c > 0, "{seen}");
    assert!(seen.snapshots_to_c + seen.snapshots_to_ours > 1, "{seen}");
    assert!(seen.entries_to_c > count * 50 && seen.entries_to_ours > count * 50, "{seen}");
}

/// What the checks say of the first history that shows a fault.
fn found(plant: Plant, most: u64) -> Option<String> {
    let mut first = 1;
    while first <= most {
        let results = all(first..first + 4, Some(plant));
        if let Some(found) = results.into_iter().find_map(Result::err) {
            println!("{plant:?}, after at most {} histories: {found:.300}", first + 3);
            return Some(found);
        }
        first += 4;
    }
    None
}

#[test]
fn a_c_node_that_skips_entries_is_found() {
    let found = found(Plant::GapOfC, 40).unwrap();
    assert!(found.contains("other pages"), "{found}");
}
