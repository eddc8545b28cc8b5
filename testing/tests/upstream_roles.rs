//! Role management and handover in clusters of this library's and upstream's nodes: a leader of the one kind gives votes to
//! nodes of the other and takes them away, and one that stops leaves its place to the other. `make check-upstream` fetches
//! upstream's versions and sets `UPSTREAM` to their folder. 1.11.1 has neither.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dqlite::types::Role;
use dqlite_testing::bed::Bed;
use dqlite_testing::cluster::Cluster;
use dqlite_testing::process::Library;
use dqlite_testing::upstream;

const LATENCY: &str = "--latency-ms=50";
const MANAGED: [&str; 3] = [LATENCY, "--role-management", "--voters=3"];
const HANDS_OVER: [&str; 2] = [LATENCY, "--handover"];
const DATABASE: &str = "test.db";
const ROLES_WAIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A transfer may be given up after an election timeout, when the machine is busy.
const TRANSFER_ATTEMPTS: usize = 10;

/// A first voter and spares behind it.
fn with_spares(bed: &Bed, arguments: &[&str], libraries: &[&Library]) -> Cluster {
    let folder = bed.folder.path().join("nodes");
    let mut cluster = Cluster::new(&bed.program, &folder, arguments).unwrap();
    cluster.bootstrap(libraries[0]).unwrap();
    for (id, library) in (2..).zip(&libraries[1..]) {
        cluster.join(id, library, Role::Spare).unwrap();
    }
    cluster.database(DATABASE).unwrap().exec("CREATE TABLE t(n)", &[]).unwrap();
    cluster
}

/// Waits until exactly these nodes vote.
fn wait_voters(cluster: &Cluster, wanted: &[u64]) {
    let end = Instant::now() + ROLES_WAIT;
    loop {
        let members = cluster.members().unwrap_or_default();
        let voters = members.iter().filter(|member| member.role == Some(Role::Voter));
        let mut voters: Vec<u64> = voters.map(|member| member.id.0).collect();
        voters.sort_unstable();
        if voters == wanted {
            return;
        }
        assert!(Instant::now() < end, "{voters:?} vote, not {wanted:?}{}", cluster.describe());
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn transfer(cluster: &Cluster, id: u64) {
    let moved = (0..TRANSFER_ATTEMPTS).map(|_| cluster.transfer(id)).find(Result::is_ok);
    moved.unwrap_or_else(|| panic!("node {id} does not lead: {}", cluster.describe())).unwrap();
}

/// Writes a row and waits until all nodes that run and get entries have it.
fn assert_sound(cluster: &Cluster, nodes: &[u64]) {
    cluster.database(DATABASE).unwrap().exec("INSERT INTO t VALUES(1)", &[]).unwrap();
    cluster.wait_equal(nodes, DATABASE).unwrap();
}

// conformance: client-protocol K9
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_leader_of_either_library_manages_the_roles_of_both() {
    for root in upstream::later_roots() {
        let theirs = Library::of_root(&root);
        for leads_ours in [false, true] {
            let bed = Bed::new();
            let (own, other) = if leads_ours { (&bed.library, &theirs) } else { (&theirs, &bed.library) };
            // The other kind's node 3 gets a vote, since somebody must.
            let mut cluster = with_spares(&bed, &MANAGED, &[own, own, other]);
            wait_voters(&cluster, &[1, 2, 3]);
            assert_eq!(cluster.leader().unwrap(), 1);
            assert_sound(&cluster, &[2, 3]);

            // It loses it when it is gone, to a node of the leader's kind, ...
            cluster.join(4, own, Role::Spare).unwrap();
            cluster.kill(3).unwrap();
            wait_voters(&cluster, &[1, 2, 4]);
            cluster.start(3).unwrap();
            assert_sound(&cluster, &[2, 4]);

            // ... and gets that one's when that one is gone.
            cluster.kill(4).unwrap();
            wait_voters(&cluster, &[1, 2, 3]);
            assert_sound(&cluster, &[2, 3]);
            for id in cluster.live() {
                cluster.stop(id).unwrap();
            }
            println!("{}: roles managed, this library leads: {leads_ours}", root.display());
        }
    }
}

// conformance: client-protocol K9
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn a_leader_that_hands_over_leaves_one_of_the_other_library_in_its_place() {
    for root in upstream::later_roots() {
        let theirs = Library::of_root(&root);
        for [leads_ours, spare_ours] in [[false, false], [false, true], [true, false], [true, true]] {
            let bed = Bed::new();
            let of = |is_ours: bool| if is_ours { &bed.library } else { &theirs };
            let libraries = [of(leads_ours), of(!leads_ours), of(spare_ours)];
            let mut cluster = with_spares(&bed, &HANDS_OVER, &libraries);
            cluster.assign(2, Role::Voter).unwrap();
            transfer(&cluster, 1);
            let what = format!("{}: leader ours {leads_ours}, spare ours {spare_ours}", root.display());

            // Leadership goes to the other voter, the vote to the spare.
            cluster.stop(1).unwrap_or_else(|error| panic!("{what}: {error}"));

            assert_eq!(cluster.asked_for_leader(2).unwrap().0, 2, "{what}");
            wait_voters(&cluster, &[2, 3]);
            assert_sound(&cluster, &[3]);
            for id in [3, 2] {
                cluster.stop(id).unwrap();
            }
            println!("{what}: handed over");
        }
    }
}
