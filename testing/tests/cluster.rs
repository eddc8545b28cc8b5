//! Clusters of three and five nodes, each a process of the C program over this library. Nodes are compared by the pages of
//! their DUMP. `DQLITE_TEST_ROOT` runs the same on other libraries: a folder with libdqlite.so.0 or a root of
//! `tests/upstream/fetch.sh`, or several with colons between, which the nodes get in turn. `DQLITE_TEST_KILLS` is the number
//! of kills of the longest test.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dqlite::types::{NodeId, Role};
use dqlite_testing::bed;
use dqlite_testing::cluster::{Cluster, FIRST_ID};
use dqlite_testing::outage::{DATABASE, bring_back, finish, kill_leader, start_writers};
use dqlite_testing::process::Library;
use dqlite_testing::writers::{WRITERS_DEFAULT, Writers};
use tempfile::TempDir;

/// Kills of the leader, if the environment says nothing.
const KILLS_DEFAULT: usize = 10;
/// Elections start after 750 ms.
const LATENCY: &str = "--latency-ms=50";
/// Longest time for a few rows.
const ROWS_WAIT: Duration = Duration::from_secs(60);
/// Writers where their number does not matter.
const FEW: u64 = 4;
/// FAILURE codes of a write that no majority takes.
const NO_MAJORITY: [&str; 2] = ["(10250)", "(10506)"];

/// A folder with the compiled program, and the libraries that the nodes get in turn.
struct Bed {
    folder: TempDir,
    program: PathBuf,
    libraries: Vec<Library>,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let options = bed::options(folder.path());
    let libraries = match std::env::var_os("DQLITE_TEST_ROOT") {
        Some(places) => std::env::split_paths(&places).map(|place| Library::at(&place)).collect(),
        None => vec![options.library],
    };
    Bed { folder, program: options.program, libraries }
}

impl Bed {
    fn cluster(&self, nodes: u64, arguments: &[&str]) -> Cluster {
        let arguments = [&[LATENCY], arguments].concat();
        let libraries: Vec<Library> = (FIRST_ID..).take(nodes as usize).map(|id| self.library(id)).collect();
        Cluster::of_voters(&self.program, &self.folder.path().join("nodes"), &arguments, &libraries).unwrap()
    }

    /// The library of the node with this id.
    fn library(&self, id: u64) -> Library {
        self.libraries[(id - FIRST_ID) as usize % self.libraries.len()].clone()
    }
}

/// Waits until `count` more rows are acknowledged.
fn write_more(writers: &Writers, count: usize) {
    writers.wait_acknowledged(writers.acknowledged() + count, ROWS_WAIT).unwrap();
}

/// Ends the writers; no row may be missing, double or foreign, and all nodes that run must hold the same.
fn assert_sound(cluster: &Cluster, writers: Writers) {
    let (record, verdict) = finish(cluster, writers).unwrap();
    println!("{verdict}; failed writes: {:?}", record.failures);
    assert!(verdict.is_sound(), "{verdict}");
}

/// A voter that does not lead.
fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().unwrap();
    cluster.live().into_iter().find(|id| *id != leader).unwrap()
}

#[test]
fn no_row_is_lost_when_the_leader_is_killed_again_and_again() {
    let kills = std::env::var("DQLITE_TEST_KILLS").map_or(KILLS_DEFAULT, |kills| kills.parse().unwrap());
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, WRITERS_DEFAULT).unwrap();

    for kill in 1..=kills {
        write_more(&writers, 50);
        let outage = kill_leader(&mut cluster, &writers).unwrap();
        let back = bring_back(&mut cluster, &writers, outage.killed).unwrap();
        println!("kill {kill} of {kills}: {:?} without writes, {back:?} to come back", outage.lasted);
    }

    assert_sound(&cluster, writers);
}

#[test]
fn five_nodes_go_on_with_two_dead() {
    let bed = bed();
    let mut cluster = bed.cluster(5, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();

    let first = kill_leader(&mut cluster, &writers).unwrap().killed;
    let second = kill_leader(&mut cluster, &writers).unwrap().killed;
    write_more(&writers, 50);

    assert_eq!(cluster.live().len(), 3);
    for id in [first, second] {
        bring_back(&mut cluster, &writers, id).unwrap();
    }
    assert_sound(&cluster, writers);
}

#[test]
fn every_node_can_be_made_the_leader_under_writers() {
    let bed = bed();
    let cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();

    for id in [2, 3, 1] {
        write_more(&writers, 20);
        cluster.transfer(id).unwrap();
        assert_eq!(cluster.leader().unwrap(), id);
    }

    write_more(&writers, 20);
    assert_sound(&cluster, writers);
}

#[test]
fn a_follower_that_stops_cleanly_comes_back_with_every_row() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    let follower = follower(&cluster);

    cluster.stop(follower).unwrap();
    write_more(&writers, 100);
    bring_back(&mut cluster, &writers, follower).unwrap();

    assert_sound(&cluster, writers);
}

#[test]
fn a_whole_cluster_stops_and_starts_with_every_row() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    write_more(&writers, 50);
    writers.pause().unwrap();

    for id in [1, 2, 3] {
        cluster.stop(id).unwrap();
    }
    for id in [3, 2, 1] {
        cluster.start(id).unwrap();
    }

    writers.resume();
    write_more(&writers, 50);
    assert_sound(&cluster, writers);
}

// conformance: raft-wire 27
#[test]
fn a_removed_node_is_no_member_and_the_others_go_on() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    let follower = follower(&cluster);

    cluster.remove(follower).unwrap();
    cluster.forget(follower).unwrap();

    write_more(&writers, 50);
    let members = cluster.members().unwrap();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|member| member.id != NodeId(follower)), "{members:?}");
    assert_sound(&cluster, writers);
}

#[test]
fn a_leader_can_be_removed() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    write_more(&writers, 20);
    let leader = cluster.leader().unwrap();

    cluster.remove(leader).unwrap();
    cluster.kill(leader).unwrap();

    write_more(&writers, 50);
    assert_ne!(cluster.leader().unwrap(), leader);
    assert_eq!(cluster.role(leader).unwrap(), None);
    assert_sound(&cluster, writers);
}

// conformance: raft-wire 27
#[test]
fn a_stand_by_gets_every_row() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();

    cluster.join(4, &bed.library(4), Role::StandBy).unwrap();
    write_more(&writers, 50);

    assert_eq!(cluster.role(4).unwrap(), Some(Role::StandBy));
    assert_sound(&cluster, writers);
}

// conformance: raft-wire 27
#[test]
fn a_spare_gets_nothing_and_every_row_as_a_voter() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();

    cluster.join(4, &bed.library(4), Role::Spare).unwrap();
    write_more(&writers, 200);
    assert_eq!(cluster.role(4).unwrap(), Some(Role::Spare));
    assert!(!cluster.image(4, DATABASE).is_ok_and(|image| image.page_count() > 0));
    cluster.assign(4, Role::Voter).unwrap();

    assert_eq!(cluster.role(4).unwrap(), Some(Role::Voter));
    write_more(&writers, 20);
    assert_sound(&cluster, writers);
}

#[test]
fn a_voter_becomes_a_stand_by_and_a_voter_again() {
    let bed = bed();
    let cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    let follower = follower(&cluster);

    for role in [Role::StandBy, Role::Voter] {
        cluster.assign(follower, role).unwrap();
        write_more(&writers, 20);
        assert_eq!(cluster.role(follower).unwrap(), Some(role));
    }

    assert_sound(&cluster, writers);
}

/// Whether the closed segments in the data directory of a node hold this entry.
fn has_entry(directory: &Path, index: u64) -> bool {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).any(|name| {
        let range = name.split_once('-').map(|(first, last)| (first.parse::<u64>(), last.parse::<u64>()));
        matches!(range, Some((Ok(first), Ok(last))) if (first..=last).contains(&index))
    })
}

// conformance: raft-wire 24
#[test]
fn a_node_that_was_down_too_long_for_the_log_gets_a_snapshot() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &["--snapshot-threshold=20", "--snapshot-trailing=30"]);
    let writers = start_writers(&cluster, 1).unwrap();
    let follower = follower(&cluster);
    write_more(&writers, 20);

    // The follower cannot have entry 200 before it is killed, and the others do not keep it for so long.
    cluster.kill(follower).unwrap();
    assert!(writers.acknowledged() < 150);
    write_more(&writers, 400);
    bring_back(&mut cluster, &writers, follower).unwrap();

    assert_sound(&cluster, writers);
    cluster.stop(follower).unwrap();
    assert!(!has_entry(cluster.directory(follower).unwrap(), 200), "the log was sent, no snapshot");
}

// A follower that is gone for days must not make the others keep everything.
#[test]
fn logs_are_trimmed_on_disk_and_in_memory_while_a_follower_is_down() {
    const VALUE_BYTES: u64 = 256 << 10;
    const UPDATES: u64 = 2400;
    let bed = bed();
    let mut cluster = bed.cluster(3, &["--snapshot-threshold=20", "--snapshot-trailing=30"]);
    let mut client = cluster.database(DATABASE).unwrap();
    client.exec("CREATE TABLE value(b)", &[]).unwrap();
    client.exec(&format!("INSERT INTO value VALUES(zeroblob({VALUE_BYTES}))"), &[]).unwrap();
    let leader = cluster.leader().unwrap();
    let down = follower(&cluster);
    cluster.kill(down).unwrap();
    let update = format!("UPDATE value SET b = randomblob({VALUE_BYTES})");
    for _ in 0..UPDATES / 4 {
        client.exec(&update, &[]).unwrap();
    }
    let before = peak_bytes(&cluster, leader);

    for _ in 0..UPDATES {
        client.exec(&update, &[]).unwrap();
    }

    let grown = peak_bytes(&cluster, leader) - before;
    println!(
        "{} MiB were logged: the leader's peak grew from {before} by {grown} bytes",
        (UPDATES * VALUE_BYTES) >> 20
    );
    assert!(grown < UPDATES * VALUE_BYTES * 3 / 4, "the leader keeps what it logged: {grown} bytes more");
    for id in (FIRST_ID..FIRST_ID + 3).filter(|id| *id != down) {
        assert!(!has_entry(cluster.directory(id).unwrap(), 100), "node {id} keeps old segments");
    }
    cluster.start(down).unwrap();
    cluster.wait_equal(&[FIRST_ID, FIRST_ID + 1, FIRST_ID + 2], DATABASE).unwrap();
}

#[test]
fn a_node_that_joins_late_gets_a_snapshot() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &["--snapshot-threshold=20", "--snapshot-trailing=30"]);
    let writers = start_writers(&cluster, 1).unwrap();
    write_more(&writers, 300);

    cluster.join(4, &bed.library(4), Role::Voter).unwrap();

    write_more(&writers, 20);
    assert_sound(&cluster, writers);
    cluster.stop(4).unwrap();
    assert!(!has_entry(cluster.directory(4).unwrap(), 100), "the log was sent, no snapshot");
}

// conformance: c-api 70
#[test]
fn roles_are_managed_when_the_host_wants_it() {
    let bed = bed();
    let arguments = ["--role-management", "--voters=3", "--standbys=1"];
    let mut cluster = bed.cluster(1, &arguments);
    for id in 2..=5 {
        cluster.join(id, &bed.library(id), Role::Spare).unwrap();
    }
    let count = |cluster: &Cluster, role: Role| {
        cluster
            .members()
            .map_or(0, |members| members.iter().filter(|member| member.role == Some(role)).count())
    };
    let wait = |cluster: &Cluster, what: &str, wanted: &dyn Fn(&Cluster) -> bool| {
        let end = std::time::Instant::now() + ROWS_WAIT;
        while !wanted(cluster) {
            assert!(std::time::Instant::now() < end, "{what}: {:?}", cluster.members());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait(&cluster, "three voters and a stand-by", &|cluster| {
        count(cluster, Role::Voter) == 3 && count(cluster, Role::StandBy) == 1
    });

    let leader = cluster.leader().unwrap();
    let members = cluster.members().unwrap();
    let voter =
        members.iter().find(|member| member.role == Some(Role::Voter) && member.id.0 != leader).unwrap();
    cluster.kill(voter.id.0).unwrap();

    wait(&cluster, "another voter in the place of the dead one", &|cluster| {
        count(cluster, Role::Voter) == 3
            && count(cluster, Role::StandBy) == 1
            && cluster.role(voter.id.0).ok().flatten() == Some(Role::Spare)
    });
}

/// Most memory that a node had so far.
fn peak_bytes(cluster: &Cluster, id: u64) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", cluster.process(id).unwrap().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

// conformance: state-machine 12
#[test]
fn a_large_snapshot_goes_to_a_new_node_in_bounded_memory_while_others_write() {
    const ROW_BYTES: u64 = 1 << 20;
    let size =
        std::env::var("DQLITE_TEST_SNAPSHOT_MIB").map_or(64, |text| text.parse::<u64>().unwrap()) << 20;
    let bed = bed();
    let threshold = (size / ROW_BYTES / 4).max(20);
    let settings = [format!("--snapshot-threshold={threshold}"), format!("--snapshot-trailing={threshold}")];
    let mut cluster = bed.cluster(1, &settings.each_ref().map(String::as_str));
    let mut client = cluster.database(DATABASE).unwrap();
    client.exec("CREATE TABLE blob(b)", &[]).unwrap();
    for _ in 0..size / ROW_BYTES {
        client.exec(&format!("INSERT INTO blob VALUES(zeroblob({ROW_BYTES} - 100))"), &[]).unwrap();
    }
    let writers = start_writers(&cluster, 1).unwrap();
    write_more(&writers, 50);
    // The snapshot takes its time; as long as it does, the log is all there and would be sent.
    let end = std::time::Instant::now() + ROWS_WAIT;
    while !cluster.has_snapshot(FIRST_ID).unwrap() || has_entry(cluster.directory(FIRST_ID).unwrap(), 5) {
        assert!(std::time::Instant::now() < end, "the leader keeps all of its log");
        write_more(&writers, 1);
    }
    let before = peak_bytes(&cluster, FIRST_ID);
    let began = std::time::Instant::now();

    cluster.join(2, &bed.library(2), Role::Voter).unwrap();

    let took = began.elapsed();
    let (leader, node) = (peak_bytes(&cluster, FIRST_ID), peak_bytes(&cluster, 2));
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "a database of {} MiB to a new node in {took:?}: the leader's peak grew from {} to {} MiB, that of the new node is {} MiB",
        mib(size),
        mib(before),
        mib(leader),
        mib(node)
    );
    write_more(&writers, 20);
    assert_sound(&cluster, writers);
    assert!(leader - before < size / 2 + (64 << 20), "the leader needs memory for a snapshot that it sends");
    assert!(
        node < size * 2 + (128 << 20),
        "the new node needs more memory than for the old and the new state"
    );
    assert!(!has_entry(cluster.directory(2).unwrap(), 5), "the log was sent, no snapshot");
}

// conformance: state-machine 24
#[test]
fn writes_fail_without_a_majority_and_go_on_with_one() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &[]);
    let writers = start_writers(&cluster, FEW).unwrap();
    write_more(&writers, 20);
    let leader = cluster.leader().unwrap();
    let others: Vec<u64> = cluster.live().into_iter().filter(|id| *id != leader).collect();

    for id in &others {
        cluster.kill(*id).unwrap();
    }
    writers.wait_failure(&NO_MAJORITY, ROWS_WAIT).unwrap();
    let stuck = writers.acknowledged();
    cluster.wait_no_leader(leader).unwrap();
    assert_eq!(writers.acknowledged(), stuck, "a row was acknowledged without a majority");

    cluster.start(others[0]).unwrap();
    write_more(&writers, 20);
    cluster.start(others[1]).unwrap();
    write_more(&writers, 20);
    assert_sound(&cluster, writers);
}

#[test]
fn a_leader_that_hands_over_leaves_another_in_its_place() {
    let bed = bed();
    let mut cluster = bed.cluster(3, &["--handover"]);
    let writers = start_writers(&cluster, FEW).unwrap();
    write_more(&writers, 20);
    let leader = cluster.leader().unwrap();

    cluster.stop(leader).unwrap();

    let leads = |id: &u64| matches!(cluster.asked_for_leader(*id), Ok((found, _)) if found == *id);
    assert!(cluster.live().iter().any(leads), "nobody leads when the old leader has stopped");
    bring_back(&mut cluster, &writers, leader).unwrap();
    assert_sound(&cluster, writers);
}
