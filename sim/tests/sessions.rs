//! The machine of sessions in its short form. The number of histories is DQLITE_SESSIONS_HISTORIES, the first seed
//! DQLITE_SESSIONS_SEED; `make torture-sessions` runs many.

// Only then do the runtime's own random numbers have a seed: `make sim-sessions`.
#![cfg(tokio_unstable)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use dqlite::types::fault::Fault;
use dqlite_sim::campaign::setting;
use dqlite_sim::sessions::campaign::Campaign;
use dqlite_sim::sessions::{Report, history};

/// Faults, each with a seed from which on it is found soon: `sessions --plants` begins with the first for all of them.
const PLANTS: [(Fault, u64); 10] = [
    (Fault::VersionTwice, 39),
    (Fault::ReplyBeforeApply, 1),
    (Fault::SeenOnce, 1),
    (Fault::TurnKept, 7),
    (Fault::ReadKeepsTurn, 1),
    (Fault::WaitsForEver, 37),
    (Fault::ClientGoneUnseen, 37),
    (Fault::StallUnseen, 27),
    (Fault::RoomKept, 11),
    (Fault::CommitDropped, 19),
];
/// What histories of this length find too seldom for CI: an epoch has to end while a statement of its own pauses inside SQLite,
/// and the next one has to begin before that goes on.
const SELDOM: [Fault; 1] = [Fault::SnapshotOfNextEpoch];
/// Histories from there on in which each is found.
const MOST: u64 = 80;

#[test]
fn whatever_clients_do_nothing_is_held_and_plain_sqlite_agrees() {
    let (first, count) = (setting("DQLITE_SESSIONS_SEED", 1), setting("DQLITE_SESSIONS_HISTORIES", 50));
    let results = Campaign::new(first..first + count).run(|_, _| ());
    let failed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let reports: Vec<&Report> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for (end, number) in reports.iter().flat_map(|report| &report.counts.ends) {
        *ends.entry(end).or_default() += number;
    }
    println!(
        "{} histories, {} requests, {} writes acknowledged, {} reads checked, {} changes of the leader, {} pauses inside SQLite; ends: {ends:?}",
        results.len(),
        sum(|report| report.counts.requests),
        sum(|report| report.counts.acknowledged),
        sum(|report| report.counts.reads),
        sum(|report| report.troubles.leaders),
        sum(|report| report.pauses),
    );
    assert!(failed.is_empty(), "{failed:#?}");
    // What makes the histories worth something.
    assert!(reports.iter().all(|report| report.clients >= 20), "few clients");
    assert!(sum(|report| report.counts.requests) > count * 300, "few requests");
    assert!(sum(|report| report.counts.acknowledged) > count * 60, "few writes");
    assert!(sum(|report| report.counts.reads) > count * 30, "few reads");
    assert!(sum(|report| report.troubles.leaders) > count / 2, "few changes of the leader");
    assert!(sum(|report| report.pauses) > count * 20, "few pauses inside SQLite");
    for end in [
        "the request was being sent",
        "answers were being read",
        "the node polled",
        "somebody is inside SQLite",
        "somebody waits for a permit",
        "somebody waits for a turn",
        "entries are on their way",
        "nothing is waited for",
    ] {
        assert!(ends.contains_key(end), "no connection ended when {end}");
    }
}

#[test]
fn a_seed_gives_one_history() {
    for seed in [3, 4] {
        let (first, again) = (history(seed, None).unwrap(), history(seed, None).unwrap());
        assert_eq!(first.digest, again.digest, "seed {seed}");
    }
    assert_ne!(history(3, None).unwrap().digest, history(4, None).unwrap().digest);
}

#[test]
fn planted_faults_are_found() {
    let planted = PLANTS.map(|(fault, _)| fault);
    assert!(Fault::OF_SESSIONS.into_iter().eq(planted.into_iter().chain(SELDOM)), "a fault is not planted");
    for (fault, first) in PLANTS {
        let campaign =
            Campaign { planted: Some(fault), until_found: true, ..Campaign::new(first..first + MOST) };
        let results = campaign.run(|_, _| ());
        let found = results.iter().find_map(|result| result.as_ref().err());
        println!("{fault:?}, after {} histories: {:.200}", results.len(), found.cloned().unwrap_or_default());
        assert!(found.is_some(), "{fault:?} was not found in {MOST} histories");
    }
}
