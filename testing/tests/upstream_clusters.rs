//! Clusters of this library's and upstream's real nodes, version by version: every assignment of the two to three nodes, each
//! node as leader. Nodes are compared by the pages of their DUMP, acknowledged rows are counted one by one. A node that ends
//! by itself fails the test when it is next killed or stopped, with what it wrote.
//! `make check-upstream` fetches the versions and sets `UPSTREAM` to their folder. `DQLITE_TEST_ROUNDS` repeats everything
//! with another leader and another follower that falls behind: six rounds have all pairs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dqlite::types::{NodeId, Role};
use dqlite_testing::bed;
use dqlite_testing::cluster::{Cluster, FIRST_ID};
use dqlite_testing::outage::{DATABASE, bring_back, finish, kill_leader, start_writers};
use dqlite_testing::process::Library;
use dqlite_testing::stored::Stored;
use dqlite_testing::upstream;
use dqlite_testing::writers::Writers;
use tempfile::TempDir;

/// Elections start after 750 ms; a snapshot is taken every 20 entries, and 30 entries stay behind it.
const ARGUMENTS: [&str; 3] = ["--latency-ms=50", "--snapshot-threshold=20", "--snapshot-trailing=30"];
/// A node with this setting removes no entry that it gets.
const KEEP_ENTRIES: &str = "--snapshot-trailing=8192";
/// Rows that a follower misses: far more than the leader keeps.
const ROWS_MISSED: usize = 150;
/// Rows before and after each event.
const FEW_ROWS: usize = 10;
/// Longest time for a few rows.
const ROWS_WAIT: Duration = Duration::from_secs(90);
const WRITERS: u64 = 2;
/// A transfer may be given up after an election timeout, when the machine is busy.
const TRANSFER_ATTEMPTS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Ours,
    Theirs,
}

use Side::{Ours, Theirs};

impl Side {
    fn other(self) -> Side {
        match self {
            Ours => Theirs,
            Theirs => Ours,
        }
    }
}

/// What was done, and by whom to whom.
#[derive(Debug, Default)]
struct Tally {
    assignments: usize,
    /// Snapshots that a leader sent to a follower that had fallen behind or joined.
    installs: BTreeMap<(Side, Side), usize>,
    /// Followers that had fallen behind and got all entries: this library keeps them a while after a snapshot was sent.
    caught_up: usize,
    /// From one leader to the next.
    transfers: BTreeMap<(Side, Side), usize>,
    /// Leaders and followers killed with SIGKILL.
    kills: usize,
    /// Changes of the membership, by the side of the leader that made them.
    changes: BTreeMap<Side, usize>,
    acknowledged: u64,
    unknown: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.assignments += other.assignments;
        self.caught_up += other.caught_up;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        for (key, count) in other.installs {
            *self.installs.entry(key).or_default() += count;
        }
        for (key, count) in other.transfers {
            *self.transfers.entry(key).or_default() += count;
        }
        for (key, count) in other.changes {
            *self.changes.entry(key).or_default() += count;
        }
    }
}

/// The compiled program, this library, and one of upstream's.
struct Bed {
    folder: TempDir,
    program: PathBuf,
    ours: Library,
    theirs: Library,
    version: String,
}

impl Bed {
    fn new(root: &Path) -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let options = bed::options(folder.path());
        let version = upstream::version_of(root);
        let (program, ours) = (options.program, options.library);
        Bed { folder, program, ours, theirs: Library::of_root(root), version }
    }

    fn library(&self, side: Side) -> &Library {
        match side {
            Ours => &self.ours,
            Theirs => &self.theirs,
        }
    }
}

/// A cluster under writers, and what has been done to it.
struct Stage<'a> {
    bed: &'a Bed,
    cluster: Cluster,
    sides: BTreeMap<u64, Side>,
    writers: Writers,
    tally: Tally,
}

impl<'a> Stage<'a> {
    /// Voters of these sides, the first of which founds the cluster.
    fn new(bed: &'a Bed, sides: &[Side]) -> Stage<'a> {
        let libraries: Vec<Library> = sides.iter().map(|side| bed.library(*side).clone()).collect();
        let folder = bed.folder.path().join("nodes");
        let cluster = Cluster::of_voters(&bed.program, &folder, &ARGUMENTS, &libraries)
            .unwrap_or_else(|error| panic!("{} {sides:?}: {error}", bed.version));
        let writers = start_writers(&cluster, WRITERS).unwrap();
        let sides: BTreeMap<u64, Side> = (FIRST_ID..).zip(sides.iter().copied()).collect();
        let tally = Tally { assignments: 1, ..Tally::default() };
        Stage { bed, cluster, sides, writers, tally }
    }

    fn write_more(&self, count: usize) {
        self.writers.wait_acknowledged(self.writers.acknowledged() + count, ROWS_WAIT).unwrap_or_else(
            |error| {
                panic!("{} {:?}: {error}{}", self.bed.version, self.sides, self.cluster.describe());
            },
        );
    }

    /// Makes this node the leader.
    fn lead(&mut self, id: u64) {
        for attempt in 1.. {
            let before = self.cluster.leader().unwrap();
            if before == id {
                return;
            }
            match self.cluster.transfer(id) {
                Ok(()) => {
                    *self.tally.transfers.entry((self.sides[&before], self.sides[&id])).or_default() += 1;
                    return;
                }
                Err(error) => assert!(attempt < TRANSFER_ATTEMPTS, "{error}{}", self.cluster.describe()),
            }
        }
    }

    fn stored(&self, id: u64) -> Stored {
        let copy = self.bed.folder.path().join("copy");
        Stored::read(self.cluster.directory(id).unwrap(), &copy).unwrap()
    }

    /// Kills a follower, writes more than the leader keeps, and brings it back, by a snapshot or by entries.
    fn fall_behind(&mut self, follower: u64) {
        let leader = self.cluster.leader().unwrap();
        assert_ne!(leader, follower);
        self.cluster.kill(follower).unwrap();
        let missed = self.stored(follower).last + 1;
        self.write_more(ROWS_MISSED);
        self.cluster.start_with(follower, &[KEEP_ENTRIES]).unwrap();
        self.cluster.wait_follow(&[follower]).unwrap();
        self.writers.pause().unwrap();
        self.cluster.wait_equal(&self.cluster.live(), DATABASE).unwrap();
        let is_leader = self.cluster.leader().unwrap() == leader;
        self.cluster.kill(follower).unwrap();
        let stored = self.stored(follower);
        // What it got is on its disk, not only in its memory.
        self.cluster.start(follower).unwrap();
        self.cluster.wait_follow(&[follower]).unwrap();
        self.cluster.wait_equal(&[follower], DATABASE).unwrap();
        self.writers.resume();
        self.tally.kills += 2;
        if stored.holds(missed) {
            self.tally.caught_up += 1;
        } else if is_leader {
            *self.tally.installs.entry((self.sides[&leader], self.sides[&follower])).or_default() += 1;
        }
    }

    fn kill_leader(&mut self) {
        let outage = kill_leader(&mut self.cluster, &self.writers).unwrap();
        bring_back(&mut self.cluster, &self.writers, outage.killed).unwrap();
        self.tally.kills += 1;
    }

    /// The leader makes a node of this side a member, gives it every role, and removes it.
    fn change_members(&mut self, id: u64, side: Side) {
        let leader = self.cluster.leader().unwrap();
        self.sides.insert(id, side);
        let mut changes = 2;
        self.cluster.join(id, self.bed.library(side), Role::Spare).unwrap();
        for role in [Role::StandBy, Role::Voter, Role::StandBy, Role::Spare, Role::Voter] {
            self.cluster.assign(id, role).unwrap();
            changes += 1;
        }
        self.write_more(FEW_ROWS);
        self.writers.pause().unwrap();
        self.cluster.wait_equal(&[id], DATABASE).unwrap();
        self.writers.resume();
        self.cluster.remove(id).unwrap();
        self.cluster.kill(id).unwrap();
        let stored = self.stored(id);
        self.cluster.forget(id).unwrap();
        assert!(self.cluster.members().unwrap().iter().all(|member| member.id != NodeId(id)));
        if self.cluster.leader().unwrap() == leader {
            let by = self.sides[&leader];
            assert!(!stored.holds(2), "{by:?} to {side:?}: the whole log was sent, no snapshot: {stored:?}");
            *self.tally.installs.entry((by, side)).or_default() += 1;
            *self.tally.changes.entry(by).or_default() += changes;
        }
    }

    /// Ends the writers; no row may be missing, double or foreign, all nodes must hold the same and stop cleanly.
    fn end(mut self) -> Tally {
        self.write_more(FEW_ROWS);
        let (record, verdict) = finish(&self.cluster, self.writers).unwrap();
        assert!(verdict.is_sound(), "{verdict}; failed writes: {:?}", record.failures);
        for id in self.cluster.live() {
            self.cluster.stop(id).unwrap();
        }
        self.tally.acknowledged = verdict.acknowledged;
        self.tally.unknown = verdict.unknown;
        self.tally
    }
}

/// A leader and a follower, of different sides if there are both; another pair in every round.
fn pair(sides: [Side; 3], turn: usize) -> (u64, u64) {
    let ids = FIRST_ID..FIRST_ID + 3;
    let side = |id: u64| sides[(id - FIRST_ID) as usize];
    let is_pure = sides.iter().all(|side| *side == sides[0]);
    let all = ids.clone().flat_map(|leader| ids.clone().map(move |follower| (leader, follower)));
    let wanted =
        |(leader, follower): &(u64, u64)| leader != follower && (is_pure || side(*leader) != side(*follower));
    let pairs: Vec<(u64, u64)> = all.filter(wanted).collect();
    pairs[turn % pairs.len()]
}

/// Each node leads; one of them brings a follower up to date, changes the membership, and is killed.
fn three_nodes(bed: &Bed, sides: [Side; 3], turn: usize) -> Tally {
    let mut stage = Stage::new(bed, &sides);
    for id in [FIRST_ID + 1, FIRST_ID + 2, FIRST_ID] {
        stage.lead(id);
        stage.write_more(FEW_ROWS);
    }
    let (leader, follower) = pair(sides, turn);
    stage.lead(leader);
    stage.fall_behind(follower);
    stage.lead(leader);
    stage.change_members(10 + leader, sides[(leader - FIRST_ID) as usize].other());
    stage.lead(leader);
    stage.kill_leader();
    stage.end()
}

/// Five nodes: two leaders in a row are killed and stay away, a follower of each side loses its vote and gets it back, and
/// a node of each side takes the place of one that is removed.
fn five_nodes(bed: &Bed, sides: [Side; 5]) -> Tally {
    let mut stage = Stage::new(bed, &sides);
    let first = kill_leader(&mut stage.cluster, &stage.writers).unwrap().killed;
    let second = kill_leader(&mut stage.cluster, &stage.writers).unwrap().killed;
    stage.write_more(FEW_ROWS);
    for id in [first, second] {
        bring_back(&mut stage.cluster, &stage.writers, id).unwrap();
    }
    stage.tally.kills += 2;
    for side in [Ours, Theirs] {
        let leader = stage.cluster.leader().unwrap();
        let is_follower = |id: &u64| *id != leader && stage.sides[id] == side;
        let follower = stage.cluster.live().into_iter().find(is_follower).unwrap();
        for role in [Role::StandBy, Role::Voter] {
            stage.cluster.assign(follower, role).unwrap();
        }
        stage.cluster.remove(follower).unwrap();
        stage.cluster.kill(follower).unwrap();
        stage.cluster.forget(follower).unwrap();
        let id = follower + 20;
        stage.sides.insert(id, side.other());
        stage.cluster.join(id, bed.library(side.other()), Role::Voter).unwrap();
        *stage.tally.changes.entry(stage.sides[&leader]).or_default() += 5;
        stage.write_more(FEW_ROWS);
    }
    assert_eq!(stage.cluster.members().unwrap().len(), 5);
    stage.end()
}

fn rounds() -> usize {
    std::env::var("DQLITE_TEST_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

fn assert_every_assignment_works(root: &Path) {
    let bed = Bed::new(root);
    let mut all = Tally::default();
    for round in 0..rounds() {
        for number in 0..8 {
            let side = |bit: u32| if number >> bit & 1 == 0 { Ours } else { Theirs };
            let sides = [side(0), side(1), side(2)];
            let begin = std::time::Instant::now();
            let tally = three_nodes(&bed, sides, number + round);
            println!("{} {sides:?} in {:.1?}: {tally:?}", bed.version, begin.elapsed());
            all += tally;
        }
    }
    println!(
        "{}: {} assignments, installs {:?}, {} caught up by entries, transfers {:?}, {} kills, changes of the membership {:?}, {} acknowledged writes \
         checked, {} of unknown outcome, 0 lost, all nodes equal",
        bed.version,
        all.assignments,
        all.installs,
        all.caught_up,
        all.transfers,
        all.kills,
        all.changes,
        all.acknowledged,
        all.unknown
    );
    let both = [(Ours, Theirs), (Theirs, Ours)];
    // A floor for one round; a leader that the machine unseats in between makes one less.
    assert!(both.iter().all(|sides| all.installs.get(sides) >= Some(&3)), "{all:?}");
    assert!(both.iter().all(|sides| all.transfers.get(sides) >= Some(&3)), "{all:?}");
    assert!([Ours, Theirs].iter().all(|side| all.changes.get(side) >= Some(&14)), "{all:?}");
    assert!(all.assignments >= 8 && all.kills >= 24 && all.acknowledged >= 1600, "{all:?}");
}

fn assert_five_nodes_work(root: &Path) {
    let bed = Bed::new(root);
    let mut all = Tally::default();
    for round in 0..rounds() {
        let first = if round % 2 == 0 { Ours } else { Theirs };
        let second = first.other();
        all += five_nodes(&bed, [first, second, first, second, first]);
    }
    println!(
        "{}: {} clusters of five, {} kills, changes of the membership {:?}, {} acknowledged writes checked, {} of unknown outcome, \
         0 lost, all nodes equal",
        bed.version, all.assignments, all.kills, all.changes, all.acknowledged, all.unknown
    );
    assert!(all.kills >= 2 && all.changes.values().sum::<usize>() >= 10 && all.acknowledged >= 60, "{all:?}");
}

// conformance: raft-wire 28
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn every_assignment_of_this_library_and_1_11_1_to_three_nodes_works() {
    assert_every_assignment_works(&upstream::root("1.11.1"));
}

// conformance: raft-wire 28
// conformance: state-machine 8
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn every_assignment_of_this_library_and_1_18_1_to_three_nodes_works() {
    assert_every_assignment_works(&upstream::root("1.18.1"));
}

#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn five_nodes_of_this_library_and_each_version_change_their_membership() {
    for root in upstream::roots() {
        assert_five_nodes_work(&root);
    }
}

// conformance: raft-wire 28
#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn every_assignment_of_this_library_and_the_newest_version_to_three_nodes_works() {
    match upstream::newest() {
        Some(root) => assert_every_assignment_works(&root),
        None => println!("no newer version than {:?} could be had", upstream::NAMED),
    }
}
