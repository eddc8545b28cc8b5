//! What the cluster tests rely on, with one node: a wrong table is found, and a wait that fails tells why.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dqlite_testing::bed;
use dqlite_testing::cluster::Cluster;
use dqlite_testing::outage::{DATABASE, start_writers};
use dqlite_testing::record::verify;
use tempfile::TempDir;

const ROWS_WAIT: Duration = Duration::from_secs(30);

/// One node that leads, and the folder to keep as long.
fn one_node() -> (TempDir, Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let libraries = [options.library];
    let cluster =
        Cluster::of_voters(&options.program, &folder.path().join("nodes"), &[], &libraries).unwrap();
    (folder, cluster)
}

#[test]
fn lost_double_and_foreign_rows_are_found() {
    let (_folder, cluster) = one_node();
    let writers = start_writers(&cluster, 2).unwrap();
    writers.wait_acknowledged(50, ROWS_WAIT).unwrap();
    let record = writers.stop().unwrap();
    let mut client = cluster.database(DATABASE).unwrap();
    assert!(verify(&mut client, &record).unwrap().is_sound());

    let (lost, double) = (record.acknowledged[3].key, record.acknowledged[7].key);
    client.exec(&format!("DELETE FROM test WHERE key = {lost}"), &[]).unwrap();
    client.exec(&format!("INSERT INTO test(key) VALUES({double}), (-1)"), &[]).unwrap();

    let verdict = verify(&mut client, &record).unwrap();
    assert!(!verdict.is_sound());
    assert_eq!(
        (verdict.missing, verdict.duplicates, verdict.foreign),
        (vec![lost], vec![double], vec![u64::MAX])
    );
}

#[test]
fn writers_stand_still_while_they_are_told_to() {
    let (_folder, cluster) = one_node();
    let writers = start_writers(&cluster, 4).unwrap();
    for _ in 0..20 {
        writers.wait_acknowledged(writers.acknowledged() + 5, ROWS_WAIT).unwrap();
        writers.pause().unwrap();
        let before = cluster.image(1, DATABASE).unwrap();
        let acknowledged = writers.acknowledged();

        let rows = cluster.database(DATABASE).unwrap().number("SELECT count(*) FROM test").unwrap();

        assert_eq!(rows as usize, acknowledged);
        assert_eq!(cluster.image(1, DATABASE).unwrap(), before);
        writers.resume();
    }
}

#[test]
fn writers_go_on_when_the_only_node_comes_back() {
    let (_folder, mut cluster) = one_node();
    let writers = start_writers(&cluster, 4).unwrap();
    for _ in 0..3 {
        writers.wait_acknowledged(writers.acknowledged() + 20, ROWS_WAIT).unwrap();
        cluster.kill(1).unwrap();
        cluster.start(1).unwrap();
    }
    writers.wait_acknowledged(writers.acknowledged() + 20, ROWS_WAIT).unwrap();

    let record = writers.stop().unwrap();

    let verdict = verify(&mut cluster.database(DATABASE).unwrap(), &record).unwrap();
    assert!(verdict.is_sound(), "{verdict}");
    assert!(verdict.acknowledged >= 80);
}

#[test]
fn a_wait_that_fails_says_for_what_and_shows_the_nodes() {
    let (_folder, mut cluster) = one_node();
    cluster.stop(1).unwrap();
    let (bound, pause) = (Duration::from_millis(20), Duration::from_millis(5));

    let error = cluster.wait("the moon", bound, pause, |_| Err::<(), _>("the sun".into())).unwrap_err();

    let text = format!("{error:?}");
    for part in ["for the moon", "last seen: the sun", "node 1 at 127.", "does not run", "Its stderr:"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_node_that_does_not_start_shows_its_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let nodes = folder.path().join("nodes");

    let error = Cluster::of_voters(&options.program, &nodes, &["--no-such-option"], &[options.library]);

    assert!(error.unwrap_err().to_string().contains("usage: dqlite-node"));
    assert!(!nodes.exists(), "the folder of a cluster that is gone stays");
}
