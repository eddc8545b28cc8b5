//! Clusters whose disks go bad: nothing acknowledged is lost, and they go on when disks are good again; and what once lost something is
//! found. The number of histories is DQLITE_SIM_HISTORIES, the first seed DQLITE_SIM_SEED; `make sim-disks` runs many. With
//! DQLITE_SIM_SEARCH=COUNT, faults are looked for in so many histories like the stated one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use dqlite_sim::bad_disks::BadDisks;
use dqlite_sim::campaign::{self, setting};
use dqlite_sim::scenario::{Plant, Report, disk_history};

/// A fault, a history that may show it, and how many further the next one like it is.
const SEEDS: [(Plant, u64, u64); 3] =
    [(Plant::AckOnVoteFlush, 5, 2), (Plant::StandsUndurable, 70, 80), (Plant::VoteBehindAppend, 72, 80)];

#[test]
fn bad_disks_lose_nothing_that_was_acknowledged() {
    let (first, count) = (setting("DQLITE_SIM_SEED", 1), setting("DQLITE_SIM_HISTORIES", 30));
    let results = campaign::run(first..first + count, None, disk_history, |_, _| ());
    let failed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let disks = || reports.iter().map(|report| &report.disks);
    println!("{} histories; {}", results.len(), BadDisks::summary(disks()));

    assert!(failed.is_empty(), "{failed:#?}");
    // What makes the histories worth something: each trouble was met in one of forty, of rot any.
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for (what, histories) in BadDisks::histories_with(disks()) {
        let what = if what.starts_with("Rotten") { "Rotten".to_owned() } else { what };
        *met.entry(what).or_default() += histories;
    }
    let rare: Vec<_> = met.iter().filter(|(_, histories)| **histories * 40 < results.len()).collect();
    // In few histories some are missing.
    let may_be_rare = if results.len() < 80 { met.len() / 3 } else { 0 };
    assert!(rare.len() <= may_be_rare, "of {} histories: {rare:?}", results.len());
    let acknowledged = reports.iter().map(|report| report.acknowledged).sum::<usize>();
    assert!(acknowledged > results.len() * 60, "{acknowledged} operations were acknowledged");
}

#[test]
fn planted_faults_are_found() {
    let search = setting("DQLITE_SIM_SEARCH", 40);
    let like = |(plant, seed, step)| (plant, (0..search).map(move |at| seed + at * step));
    let missing = campaign::unfound(SEEDS.map(like), disk_history);
    assert!(missing.is_empty(), "not found: {missing:?}");
}

// Without the seeded runtime of `make sim-disks` a seed gives similar histories.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_replays() {
    let once = |seed| disk_history(seed, None).map(|report| (report.digest, report.acknowledged)).unwrap();

    assert_eq!(once(3), once(3));
    assert_eq!(once(4), once(4));
}
