//! Transactions that are too large for members of the cluster: upstream's 1.18.7 closes the connection on an entry of more than
//! 500 MiB, each time, and nothing is ever committed again. docs/limits.md, "Large transactions".

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dqlite_testing::bed::Bed;
use dqlite_testing::client::{Client, ClientError};
use dqlite_testing::cluster::{Cluster, FIRST_ID};
use dqlite_testing::process::Library;
use dqlite_testing::upstream;

const DATABASE: &str = "test";
/// Elections start after 30 s: hundreds of MiB are on their way.
const LATENCY: &str = "--latency-ms=2000";
const PATIENCE: Duration = Duration::from_secs(300);
const BLOB: &str = "INSERT INTO t VALUES(zeroblob(104857600))";
/// SQLITE_FULL.
const FULL: u64 = 13;

fn client(cluster: &Cluster) -> Client {
    let mut client = cluster.database(DATABASE).unwrap();
    client.set_timeout(PATIENCE).unwrap();
    client
}

/// A transaction of so many blobs of 100 MiB.
fn transaction(client: &mut Client, blobs: usize) -> Result<(), ClientError> {
    client.exec("BEGIN", &[])?;
    for _ in 0..blobs {
        client.exec(BLOB, &[])?;
    }
    client.exec("COMMIT", &[]).map(drop)
}

/// What is too large is refused and rolled back, and the cluster goes on.
fn assert_refused(cluster: &Cluster) {
    let mut client = client(cluster);
    client.exec("CREATE TABLE t(b)", &[]).unwrap();
    let error = transaction(&mut client, 5).unwrap_err();
    assert_eq!(error.code(), Some(FULL), "{error}");
    client.exec("INSERT INTO t VALUES(1)", &[]).unwrap();
    assert_eq!(client.number("SELECT count(*) FROM t").unwrap(), 1);
}

#[test]
fn a_transaction_too_large_for_upstreams_newest_is_refused_while_there_are_other_members() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(2, &[LATENCY]);
    assert_refused(&cluster);
    cluster.wait_equal(&cluster.live(), DATABASE).unwrap();
}

#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn upstreams_newest_takes_what_is_not_refused() {
    let Some(root) = upstream::newest() else {
        println!("upstream's newest library could not be had: not tested");
        return;
    };
    let bed = Bed::new();
    let cluster = bed.cluster(&[LATENCY], &[bed.library.clone(), Library::of_root(&root)]);
    cluster.transfer(FIRST_ID).unwrap();
    assert_refused(&cluster);

    transaction(&mut client(&cluster), 4).unwrap();

    assert_eq!(client(&cluster).number("SELECT count(*) FROM t").unwrap(), 5);
}
