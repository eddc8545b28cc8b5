//! A cluster whose disks go bad while clients work. In half of the histories one disk goes bad in one way and nothing else happens: there
//! the time without writes is measured, and what the node may do meanwhile is looked at. In the others much happens at once: several
//! disks, power cuts in the middle of file operations, partitions, bits that rot while a node is down. At the end no disk is bad any more,
//! but those that stay so, whose nodes get new ones or stay away; then everything must be there.

mod heal;
mod quiet;
mod summary;
mod wild;

use std::collections::BTreeSet;
use std::time::Duration;

use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::client::ClusterClient;
use crate::cluster::Cluster;
use crate::disk::rot::Rot;
use crate::disk::schedule::{Happened, Schedule, Spell, Trouble};
use crate::disk_worker::DiskWorker;
use crate::scenario::{Plant, Report};
use crate::workload::{self, CLIENTS, Shared, work};

/// How long clients work.
const WORK: Duration = Duration::from_secs(12);
/// Disks that are not bad for ever are good again after so long.
const TROUBLE: Duration = Duration::from_secs(10);
/// Longest time for anything that must happen when disks are good again.
const HEAL_MAX: Duration = Duration::from_secs(60);

/// What bad disks did.
#[derive(Clone, Debug, Default)]
pub struct BadDisks {
    /// Calls that met each trouble.
    pub happened: Happened,
    /// Bits that rotted, in the order of `Rot::ALL`.
    pub rotten: [usize; Rot::ALL.len()],
    /// Nodes that said so and did not start.
    pub told: usize,
    /// Starts that failed while the disk was bad.
    pub refused_starts: usize,
    /// Nodes that got a new disk, and were added anew.
    pub replaced: usize,
    /// Nodes where every file has a name.
    pub named: usize,
    /// Power cuts in the middle of work on the disk, and those of a node that was starting after one.
    pub cuts: (usize, usize),
    /// Why nodes stopped by themselves.
    pub stops: Vec<String>,
    /// What was measured, if it was.
    pub gap: Option<Gap>,
}

/// The longest time without an acknowledged write while one disk was bad.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// How it was bad.
    pub trouble: Trouble,
    /// Whether it was the disk of the leader.
    pub of_leader: bool,
    /// How long.
    pub longest: Duration,
}

/// A history under way.
struct Play {
    cluster: Cluster,
    random: SmallRng,
    report: Report,
    /// When clients began.
    begin: Instant,
    /// Disks that stay bad.
    lost: BTreeSet<u64>,
    /// Disks on which something rotted.
    rotten: BTreeSet<u64>,
    /// Nodes that said that they cannot start.
    told: BTreeSet<u64>,
    /// What is told with a violation.
    schedules: Vec<(u64, Schedule)>,
}

impl Play {
    fn minority(&self) -> usize {
        (self.cluster.ids().len() - 1) / 2
    }

    /// Whether one more node may lose what it has.
    fn may_lose(&self, id: u64) -> bool {
        let lost: BTreeSet<&u64> = self.lost.union(&self.rotten).chain([&id]).collect();
        lost.len() <= self.minority()
    }

    fn pick(&mut self, ids: &[u64]) -> u64 {
        ids[self.random.random_range(0..ids.len())]
    }

    /// A disk goes bad as drawn.
    fn go_bad(&mut self, id: u64, spells: Vec<Spell>) {
        let schedule = Schedule(spells);
        if schedule.stays() {
            self.lost.insert(id);
        }
        let seed = self.random.random();
        if let Some(disk) = self.cluster.disk(id) {
            disk.go_bad(schedule.clone(), seed);
        }
        self.schedules.push((id, schedule));
    }

    /// Nodes without power, and nodes that have stopped by themselves.
    fn sweep(&mut self) {
        for id in self.cluster.live() {
            if self.cluster.disk(id).is_some_and(crate::disk::SimDisk::is_off) {
                self.report.disks.cuts.0 += 1;
                self.report.kills += 1;
                self.cluster.crash(id);
            } else if let Some(why) = self.cluster.stopped(id) {
                self.report.disks.stops.push(why);
                self.cluster.kill(id);
            }
        }
    }

    /// Starts a node that is down, if it can.
    async fn start(&mut self, id: u64) -> Result<(), String> {
        if self.cluster.runs(id) || self.told.contains(&id) {
            return Ok(());
        }
        let was_bad = self.cluster.disk(id).is_some_and(crate::disk::SimDisk::is_bad);
        let Err(error) = self.cluster.start(id).await else { return Ok(()) };
        let disk = self.cluster.disk(id).ok_or("no such disk")?;
        let (is_off, is_bad) = (disk.is_off(), disk.is_bad());
        if is_off {
            self.report.disks.cuts.1 += 1;
            self.cluster.crash(id);
        } else if was_bad || is_bad {
            self.report.disks.refused_starts += 1;
            self.cluster.kill(id);
        } else if self.rotten.contains(&id) {
            self.report.disks.told += 1;
            self.told.insert(id);
            self.cluster.kill(id);
        } else {
            return Err(format!("node {id} does not start: {error:?}"));
        }
        Ok(())
    }
}

/// The history of a seed, in a runtime with a paused clock.
pub(crate) async fn run(seed: u64, plant: Option<Plant>) -> Result<Report, String> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x6261_645f_6469_736b);
    let nodes = if random.random_range(0..4) == 0 { 5 } else { 3 };
    let policy = SnapshotPolicy {
        threshold_entries: random.random_range(8..80),
        trailing_entries: random.random_range(2..30),
        pace: SnapshotPace::Entries,
    };
    let mut cluster = Cluster::new(seed, nodes, policy);
    cluster.disk_worker = DiskWorker::aside();
    cluster.is_careful = true;
    let mut report = Report { seed, clients: CLIENTS, ..Report::default() };
    for id in cluster.ids() {
        if random.random_range(0..4) == 0
            && let Some(disk) = cluster.disk(id)
        {
            disk.name_all();
            report.disks.named += 1;
        }
    }
    cluster.form().await?;
    let addresses = cluster.own_addresses();
    let mut client = ClusterClient::new(&cluster.network, 0, &addresses);
    workload::make_tables(&mut client, HEAL_MAX).await?;
    let histories = Shared::default();
    let begin = Instant::now();
    let workers: Vec<_> = (1..=CLIENTS)
        .map(|number| {
            let client = ClusterClient::new(&cluster.network, number, &addresses);
            tokio::spawn(work(client, number, seed, (begin, WORK), histories.clone(), plant))
        })
        .collect();
    let mut play = Play {
        cluster,
        random,
        report,
        begin,
        lost: BTreeSet::new(),
        rotten: BTreeSet::new(),
        told: BTreeSet::new(),
        schedules: Vec::new(),
    };
    let ended = async {
        match seed.is_multiple_of(2) {
            true => play.quiet(seed / 2, &histories).await?,
            false => play.wild().await?,
        }
        play.heal(workers, &histories, &mut client).await
    };
    let result = ended.await;
    result.map_err(|error| {
        let told = play.schedules.iter().map(|(id, schedule)| format!("; disk of node {id}: {schedule}"));
        let (rotten, out, down) =
            (&play.rotten, &play.told, play.cluster.ids().len() - play.cluster.live().len());
        format!("{error}; rotten {rotten:?}, of which told {out:?}, {down} down{}", told.collect::<String>())
    })?;
    Ok(play.report)
}
