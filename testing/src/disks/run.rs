//! One run: three nodes under writers, some disks become bad for a while, nodes are stopped and started again, and what was
//! acknowledged must be there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tracer::Tracer;
use super::volume::Volume;
use super::{Kind, Role};
use crate::client::Client;
use crate::cluster::{Cluster, FIRST_ID, Result};
use crate::outage::{DATABASE, finish, percentile, start_writers_that_wait};
use crate::process::Library;
use crate::record::{Record, Verdict};
use crate::writers::WRITERS_DEFAULT;

/// Nodes of the cluster.
pub const NODES: u64 = 3;
/// Longest stop that is none too long.
pub const STOP_MAX: Duration = Duration::from_secs(12);
/// After this a node that stops is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// Longest answer to a write. A writer beyond it turns to another node, as applications do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Rows before a disk becomes bad.
const ROWS_BEFORE: usize = 200;
/// Longest time for them.
const ROWS_WAIT: Duration = Duration::from_secs(60);
/// Rows after the fault.
const ROWS_AFTER: usize = 50;
/// Longest time for them without a restart.
const GO_ON_WAIT: Duration = Duration::from_secs(15);
/// Longest time until a node that needs the vote of another one leads.
const VOTE_WAIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// FAILURE code of a write that met another one.
const BUSY: u64 = 5;
/// Less is free on a full disk: what the node has given back a moment ago.
const FREE_OF_FULL_MAX: u64 = 1 << 20;
/// Rows of a client that uses up what logs have allocated, which a full disk lets them fill: so many of so many bytes.
const LARGE_ROWS: usize = 12;
const LARGE_BYTES: usize = 4 << 20;

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The compiled `tests-c/dqlite-node.c`.
    pub program: PathBuf,
    /// What the nodes run on.
    pub library: Library,
    /// What is wrong with the disks.
    pub kind: Kind,
    /// Whose disks.
    pub role: Role,
    /// How long.
    pub lasts: Duration,
    /// Nodes are stopped while the fault lasts; else when it is over.
    pub stops_under_fault: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Longest time without an acknowledged row while the fault lasted.
    pub silence: Duration,
    /// Median time of the writes that were acknowledged meanwhile.
    pub median: Option<Duration>,
    /// How many these were.
    pub acknowledged: usize,
    /// Disks that were seen to be bad at the end of the fault.
    pub bad: usize,
    /// Stops of nodes while a disk was bad.
    pub stops: Vec<Duration>,
    /// Every other stop.
    pub stops_after: Vec<Duration>,
    /// Why nodes did not start again.
    pub refused: Vec<String>,
    /// Whether a follower with a full disk voted, where that was tried.
    pub voted: Option<bool>,
    /// Whether rows were acknowledged after the fault before any node was started again, where that was tried.
    pub went_on: Option<bool>,
    /// Another node than before acknowledged rows.
    pub moved: bool,
    /// What the writers were told, beside what is there.
    pub verdict: Verdict,
    /// Failed writes by text.
    pub failures: BTreeMap<String, u64>,
    /// What the nodes wrote to their standard error, if a stop took too long.
    pub words: String,
}

/// The nodes and their disks. Fields are dropped in this order: tracers let go, nodes are killed, disks are unmounted.
struct Bed {
    tracers: BTreeMap<u64, Tracer>,
    cluster: Cluster,
    volumes: BTreeMap<u64, Volume>,
    kind: Kind,
}

impl Plan {
    /// Runs it in `folder`, which is made and removed.
    ///
    /// # Errors
    /// The cluster cannot be made, or does not work once no disk is bad any more.
    pub fn run(&self, folder: &Path) -> Result<Seen> {
        std::fs::create_dir_all(folder)?;
        let seen = self.run_in(folder);
        std::fs::remove_dir_all(folder)?;
        seen
    }

    fn run_in(&self, folder: &Path) -> Result<Seen> {
        let mut bed = self.bed(folder)?;
        let writers = start_writers_that_wait(&bed.cluster, WRITERS_DEFAULT, ANSWER_TIMEOUT)?;
        writers.wait_acknowledged(ROWS_BEFORE, ROWS_WAIT)?;
        let leader = bed.cluster.leader()?;
        let followers: Vec<u64> = bed.cluster.live().into_iter().filter(|id| *id != leader).collect();
        let bad = self.role.bad(leader, &followers);

        let begin = Instant::now();
        bed.make_bad(&bad)?;
        let end = begin + self.kind.lasts(self.lasts);
        if self.kind == Kind::Full {
            write_large_rows(&bed.cluster.addresses(), end);
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now()));

        let mut seen = Seen { bad: bed.bad()?, ..Seen::default() };
        if self.stops_under_fault {
            // Those with bad disks first: the others still write.
            let mut order = bad.clone();
            order.extend(bed.cluster.live().into_iter().filter(|id| !bad.contains(id)));
            bed.stop(&order, &mut seen.stops)?;
        } else if (self.kind, self.role) == (Kind::Full, Role::Follower) {
            seen.voted = bed.votes(bad[0])?;
        }
        bed.mend(&mut seen.stops)?;
        if seen.late_stops() > 0 {
            seen.words = bed.cluster.describe();
        }
        if !self.stops_under_fault {
            bed.start_all(&mut seen.refused);
            let rows = writers.acknowledged() + ROWS_AFTER;
            seen.went_on = Some(writers.wait_acknowledged(rows, GO_ON_WAIT).is_ok());
            bed.stop(&bed.cluster.live(), &mut seen.stops_after)?;
        }
        bed.start_all(&mut seen.refused);
        if seen.refused.is_empty() {
            writers.wait_acknowledged(writers.acknowledged() + ROWS_AFTER, ROWS_WAIT)?;
        }
        let (record, verdict) = finish(&bed.cluster, writers)?;
        seen.take(&record, verdict, begin, end);
        Ok(seen)
    }

    fn bed(&self, folder: &Path) -> Result<Bed> {
        let mut cluster = Cluster::new(&self.program, &folder.join("nodes"), &[])?;
        let mut volumes = BTreeMap::new();
        for id in (FIRST_ID..).take(NODES as usize) {
            let volume = Volume::new(folder, &format!("disk-{id}"))?;
            cluster.set_directory(id, &volume.data());
            volumes.insert(id, volume);
        }
        cluster.grow(&vec![self.library.clone(); NODES as usize])?;
        Ok(Bed { tracers: BTreeMap::new(), cluster, volumes, kind: self.kind })
    }
}

impl Bed {
    fn make_bad(&mut self, ids: &[u64]) -> io::Result<()> {
        for id in ids {
            let Some(volume) = self.volumes.get_mut(id) else { continue };
            match self.kind {
                Kind::Full => volume.fill()?,
                Kind::ReadOnly => volume.make_read_only()?,
                Kind::Eio | Kind::Enospc | Kind::Slow | Kind::Hang => {
                    let process = self.cluster.process(*id).map(crate::process::NodeProcess::id);
                    let process =
                        process.ok_or_else(|| io::Error::other(format!("node {id} does not run")))?;
                    let tracer = Tracer::start(process, self.kind)?;
                    self.tracers.extend(tracer.map(|tracer| (*id, tracer)));
                }
            }
        }
        Ok(())
    }

    /// How many disks are bad.
    fn bad(&mut self) -> io::Result<usize> {
        let mut bad = 0;
        for tracer in self.tracers.values_mut() {
            bad += usize::from(tracer.is_running()?);
        }
        for volume in self.volumes.values() {
            bad += usize::from(volume.is_read_only() || volume.free_bytes()? < FREE_OF_FULL_MAX);
        }
        Ok(bad)
    }

    /// All disks are good again. What was made read-only has to be mounted anew, for which its node is stopped.
    fn mend(&mut self, stops: &mut Vec<Duration>) -> Result<()> {
        self.tracers.clear();
        for (id, volume) in &mut self.volumes {
            volume.empty()?;
            if volume.is_read_only() {
                if self.cluster.process(*id).is_some() {
                    stops.push(self.cluster.stop_within(*id, STOP_WAIT, || ())?);
                }
                volume.mount_again()?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, ids: &[u64], stops: &mut Vec<Duration>) -> Result<()> {
        for id in ids {
            let tracers = &mut self.tracers;
            // strace does not let go of a process that has ended while it held one of its threads back.
            stops.push(self.cluster.stop_within(*id, STOP_WAIT, || drop(tracers.remove(id)))?);
        }
        Ok(())
    }

    /// Starts every node that does not run.
    fn start_all(&mut self, refused: &mut Vec<String>) {
        let live = self.cluster.live();
        for id in self.volumes.keys().filter(|id| !live.contains(id)) {
            if let Err(error) = self.cluster.start(*id) {
                refused.push(format!("node {id}: {error}"));
            }
        }
    }

    /// Whether the vote of this node makes the third one the leader when the leader is killed. Nothing if it leads itself.
    fn votes(&mut self, id: u64) -> Result<Option<bool>> {
        let leader = self.cluster.leader()?;
        if leader == id {
            return Ok(None);
        }
        self.cluster.kill(leader)?;
        let live = self.cluster.live();
        let others: Vec<u64> = live.into_iter().filter(|other| *other != id).collect();
        let end = Instant::now() + VOTE_WAIT;
        while Instant::now() < end {
            for other in &others {
                if self.cluster.asked_for_leader(*other).is_ok_and(|(leads, _)| leads == *other) {
                    return Ok(Some(true));
                }
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(Some(false))
    }
}

/// Writes until there is enough, or the time is over. What fails is made again: what matters is that no log has room left.
fn write_large_rows(addresses: &[String], end: Instant) {
    let mut left = LARGE_ROWS;
    while left > 0 && Instant::now() < end {
        // A node that is asked is left to itself for as long as a writer leaves it.
        let found = Client::look_for_leader(addresses, ANSWER_TIMEOUT);
        let opened = found.map(|mut client| client.open(DATABASE).map(|()| client));
        if let Some(Ok(mut client)) = opened {
            let sql = format!("INSERT INTO large(value) VALUES(randomblob({LARGE_BYTES}))");
            let mut write = || {
                client
                    .exec("CREATE TABLE IF NOT EXISTS large(value)", &[])
                    .and_then(|_| client.exec(&sql, &[]))
            };
            while left > 0 && Instant::now() < end {
                match write() {
                    Ok(_) => left -= 1,
                    Err(error) if error.code() == Some(BUSY) => {}
                    Err(_) => break,
                }
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Seen {
    fn take(&mut self, record: &Record, verdict: Verdict, begin: Instant, end: Instant) {
        let meanwhile = |row: &&crate::record::Acknowledged| (begin..=end).contains(&row.at);
        let rows: Vec<_> = record.acknowledged.iter().filter(meanwhile).collect();
        let took: Vec<Duration> = rows.iter().map(|row| row.took).collect();
        self.silence = record.longest_silence(begin, end);
        self.median = (!took.is_empty()).then(|| percentile(&took, 50));
        self.acknowledged = took.len();
        self.moved = rows.windows(2).any(|pair| pair[0].address != pair[1].address);
        self.failures.clone_from(&record.failures);
        self.verdict = verdict;
    }

    /// Stops that took too long, those after the fault among them.
    #[must_use]
    pub fn late_stops(&self) -> usize {
        self.stops.iter().chain(&self.stops_after).filter(|took| **took > STOP_MAX).count()
    }
}
