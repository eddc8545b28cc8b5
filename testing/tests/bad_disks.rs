//! The short form of `make torture-disks`: the leader's disk is full, and fails, once each.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::process::Command;

use dqlite_testing::bed::Bed;
use dqlite_testing::disks::space;

/// Rows that are acknowledged in a run: those before the fault, and those after the nodes have started again.
const ROWS_MIN: u64 = 250;
/// Of these, while the disk is bad.
const ROWS_MEANWHILE_MIN: u64 = 20;

/// The lines of runs: what is told as NAME=VALUE.
fn runs(told: &str) -> Vec<HashMap<&str, &str>> {
    let lines = told.lines().filter(|line| line.contains(" run="));
    lines.map(|line| line.split_whitespace().filter_map(|word| word.split_once('=')).collect()).collect()
}

#[test]
fn a_cluster_goes_on_when_the_disk_of_its_leader_is_full_or_fails() {
    if let Some(reason) = space::impossible() {
        println!("skipped: {reason}");
        return;
    }
    let bed = Bed::new();

    let output = Command::new(env!("CARGO_BIN_EXE_bad_disks"))
        .arg(&bed.program)
        .arg(format!("this={}", bed.library.folders[0].display()))
        .args(["--runs", "1", "--seconds", "4", "--kinds", "full,eio", "--roles", "leader"])
        .arg("--folder")
        .arg(bed.folder.path())
        .output()
        .unwrap();

    let told = String::from_utf8_lossy(&output.stderr);
    println!("{}{told}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", output.status);
    let runs = runs(&told);
    assert_eq!(runs.iter().map(|run| run["kind"]).collect::<Vec<_>>(), ["full", "eio"]);
    for run in &runs {
        let number = |name: &str| run[name].parse::<u64>().unwrap();
        assert_eq!((number("bad"), number("wrong"), number("refused")), (1, 0, 0), "{run:?}");
        assert!(number("rows") >= ROWS_MEANWHILE_MIN && number("acknowledged") >= ROWS_MIN, "{run:?}");
    }
    // One cluster went on without a restart, the other was stopped while the disk failed.
    assert_eq!(runs.iter().map(|run| run["went_on"]).collect::<Vec<_>>(), ["true", "untried"]);
}
