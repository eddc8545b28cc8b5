//! Processes that are suspended for a few seconds and go on, as on a laptop that sleeps or a machine that is moved; and two
//! nodes whose timers are short.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dqlite::types::Role;
use dqlite_testing::bed::Bed;
use dqlite_testing::cluster::Cluster;
use dqlite_testing::outage::{DATABASE, finish, start_writers};
use dqlite_testing::writers::Writers;

/// Elections start after 750 ms.
const LATENCY: &str = "--latency-ms=50";
/// Several elections long.
const SUSPENDED: Duration = Duration::from_secs(4);
/// Longest time for a few rows: a writer that waits for an answer of a suspended node gives up after 30 s.
const ROWS_WAIT: Duration = Duration::from_secs(90);
/// Longest wait for a node to change its mind.
const CHANGE_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const WRITERS: u64 = 4;

fn write_more(writers: &Writers, count: usize) {
    writers.wait_acknowledged(writers.acknowledged() + count, ROWS_WAIT).unwrap();
}

/// No row may be missing, double or foreign, and all nodes hold the same; then the node leads as well as any.
fn assert_good_member(cluster: &Cluster, writers: Writers, id: u64) {
    cluster.wait_follow(&cluster.live()).unwrap();
    write_more(&writers, 20);
    assert_eq!(cluster.role(id).unwrap(), Some(Role::Voter));
    // Beside writers it may take the node longer to catch up than the leader waits.
    let transfer = |cluster: &Cluster| cluster.transfer(id).map_err(|error| error.to_string());
    cluster.wait("a transfer", CHANGE_WAIT, LOOK_AGAIN, transfer).unwrap();
    write_more(&writers, 20);
    let (record, verdict) = finish(cluster, writers).unwrap();
    println!("{verdict}; failed writes: {:?}", record.failures);
    assert!(verdict.is_sound(), "{verdict}");
}

#[test]
fn a_follower_that_was_suspended_comes_back_as_a_good_member() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[LATENCY]);
    let writers = start_writers(&cluster, WRITERS).unwrap();
    write_more(&writers, 20);
    let leader = cluster.leader().unwrap();
    let follower = cluster.live().into_iter().find(|id| *id != leader).unwrap();

    cluster.signal(follower, "STOP").unwrap();
    let begin = Instant::now();
    while begin.elapsed() < SUSPENDED {
        write_more(&writers, 10);
    }
    cluster.signal(follower, "CONT").unwrap();
    write_more(&writers, 20);

    assert_eq!(cluster.leader().unwrap(), leader, "who was suspended has disturbed the others");
    assert_good_member(&cluster, writers, follower);
}

#[test]
fn a_leader_that_was_suspended_follows_the_next_one() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[LATENCY]);
    let writers = start_writers(&cluster, WRITERS).unwrap();
    write_more(&writers, 20);
    let old = cluster.leader().unwrap();
    let others: Vec<u64> = cluster.live().into_iter().filter(|id| *id != old).collect();

    cluster.signal(old, "STOP").unwrap();
    let begin = Instant::now();
    let next = cluster.wait("another leader", CHANGE_WAIT, LOOK_AGAIN, |cluster| {
        let leads = |id: &&u64| matches!(cluster.asked_for_leader(**id), Ok((leader, _)) if leader == **id);
        others.iter().find(leads).copied().ok_or_else(|| "none".to_owned())
    });
    let next = next.unwrap();
    println!("node {next} leads after {:?}", begin.elapsed());
    let mut client = cluster.client(next).unwrap();
    client.open(DATABASE).unwrap();
    client.exec("CREATE TABLE beside(n)", &[]).unwrap();
    let mut rows = 0;
    while begin.elapsed() < SUSPENDED {
        client.exec("INSERT INTO beside VALUES(1)", &[]).unwrap();
        rows += 1;
    }
    cluster.signal(old, "CONT").unwrap();

    let follows = cluster.wait("the old leader to follow", CHANGE_WAIT, LOOK_AGAIN, |cluster| match cluster
        .asked_for_leader(old)
    {
        Ok((leader, _)) if leader != old && leader != 0 => Ok(leader),
        other => Err(format!("it says {other:?}")),
    });
    assert!(others.contains(&follows.unwrap()));
    let mut client = cluster.database(DATABASE).unwrap();
    assert_eq!(client.number("SELECT count(*) FROM beside").unwrap(), rows);
    assert_good_member(&cluster, writers, old);
}

#[test]
fn a_cluster_that_was_suspended_as_a_whole_goes_on() {
    let bed = Bed::new();
    let cluster = bed.own_cluster(3, &[LATENCY]);
    let writers = start_writers(&cluster, WRITERS).unwrap();
    write_more(&writers, 20);

    for id in cluster.live() {
        cluster.signal(id, "STOP").unwrap();
    }
    let begin = Instant::now();
    while begin.elapsed() < SUSPENDED {
        std::thread::sleep(LOOK_AGAIN);
    }
    for id in cluster.live() {
        cluster.signal(id, "CONT").unwrap();
    }

    write_more(&writers, 20);
    let last = *cluster.live().last().unwrap();
    assert_good_member(&cluster, writers, last);
}

// With 20 ms an election starts after 300 ms, without after 3 s.
// conformance: c-api 34
#[test]
fn two_nodes_elect_as_fast_as_their_latency_says() {
    let bed = Bed::new();
    let mut cluster = bed.own_cluster(2, &["--latency-ms=20"]);
    for id in [1, 2] {
        cluster.kill(id).unwrap();
    }

    for id in [1, 2] {
        cluster.start(id).unwrap();
    }
    let begin = Instant::now();
    let leader = cluster.leader().unwrap();

    println!("node {leader} leads after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
}
