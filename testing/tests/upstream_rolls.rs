//! Clusters of upstream's real nodes that are replaced one by one by this library's on the same directories, and back, under
//! writers, with kills in between. `make check-upstream` fetches the versions and sets `UPSTREAM` to their folder. `make rolls`
//! does the same many times and measures it.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use dqlite_testing::bed;
use dqlite_testing::process::Library;
use dqlite_testing::roll::Roll;
use dqlite_testing::upstream;

/// Elections start after 750 ms; a snapshot is taken every 40 entries, so that nodes start from those of the other library.
const ARGUMENTS: [&str; 3] = ["--latency-ms=50", "--snapshot-threshold=40", "--snapshot-trailing=40"];
const WRITERS: u64 = 3;
/// A roll waits for 100 rows before and after each step, and while a killed node is away.
const ROWS_MIN: u64 = 1600;
fn assert_rolls_lossless(root: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let version = upstream::version_of(root);
    let roll = Roll {
        program: &options.program,
        folder: &folder.path().join("nodes"),
        arguments: &ARGUMENTS,
        from: &Library::of_root(root),
        to: &options.library,
        writers: WRITERS,
        seed: 1,
    };

    let outcome = roll.run().unwrap_or_else(|error| panic!("{version}: {error}"));

    println!(
        "{version}: rolled forth and back in {:.1?}, {} nodes replaced, {} of them after a kill, {} killed in between, without writes {:.2?} forth and {:.2?} \
         back; {}, all nodes equal",
        outcome.lasted,
        outcome.replaced,
        outcome.replaced_by_kill,
        outcome.crashes,
        outcome.forth,
        outcome.back,
        outcome.verdict
    );
    let verdict = &outcome.verdict;
    assert!(verdict.is_sound(), "{version}: {verdict}; failed writes: {:?}", outcome.record.failures);
    assert!(verdict.acknowledged >= ROWS_MIN, "{version}: {verdict}");
    assert_eq!((outcome.replaced, outcome.crashes), (6, 4));
    assert!((2..=4).contains(&outcome.replaced_by_kill), "{}", outcome.replaced_by_kill);
}

// conformance: c-api 73
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_cluster_of_1_11_1_is_replaced_by_this_library_and_back_without_loss() {
    assert_rolls_lossless(&upstream::root("1.11.1"));
}

// conformance: c-api 73
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_cluster_of_1_18_1_is_replaced_by_this_library_and_back_without_loss() {
    assert_rolls_lossless(&upstream::root("1.18.1"));
}

// conformance: c-api 73
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_cluster_of_the_newest_version_is_replaced_by_this_library_and_back_without_loss() {
    match upstream::newest() {
        Some(root) => assert_rolls_lossless(&root),
        None => println!("no newer version than {:?} could be had", upstream::NAMED),
    }
}
