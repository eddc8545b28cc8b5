//! A cluster whose nodes are replaced one by one by another library's on the same directories, and back, while clients write.
//! Nodes are killed in between. Nothing may be lost: every acknowledged row is on every node at the end, once.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::cluster::wait::EQUAL_WAIT;
use crate::cluster::{Cluster, ClusterError, FIRST_ID, Result};
use crate::outage::{DATABASE, finish, start_writers};
use crate::process::Library;
use crate::record::{Record, Verdict};
use crate::writers::Writers;

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// Rows that are acknowledged before each step, and while a killed node is away.
const ROWS_BETWEEN: usize = 100;
/// Longest time for them.
const ROWS_WAIT: Duration = Duration::from_secs(90);
/// Pause between two looks whether a node has caught up, each of which moves a whole database.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Which libraries, and how.
#[derive(Debug)]
pub struct Roll<'a> {
    /// The compiled `tests-c/dqlite-node.c`.
    pub program: &'a Path,
    /// Is made for the nodes, and removed.
    pub folder: &'a Path,
    /// Of every node.
    pub arguments: &'a [&'a str],
    /// What the nodes run on before and after.
    pub from: &'a Library,
    /// What they run on in between.
    pub to: &'a Library,
    /// Clients that write.
    pub writers: u64,
    /// Decides which node is when replaced, and which is killed.
    pub seed: u64,
}

/// How a node is ended before its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The node starts again at once, on the other library.
    Replace(u64, End),
    /// The node stays away for some rows, and comes back on its library.
    Crash(u64),
}

/// A step that was taken.
#[derive(Debug)]
pub struct Taken {
    step: Step,
    begin: Instant,
    started: Instant,
    end: Instant,
    /// Longest time without an acknowledged row in it.
    pub silence: Duration,
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caught_up = self.end.saturating_duration_since(self.started);
        write!(
            formatter,
            "{:?}: {:.2?} until started, {caught_up:.2?} until caught up, {:.2?} without writes",
            self.step,
            self.started.saturating_duration_since(self.begin),
            self.silence
        )
    }
}

/// What happened.
#[derive(Debug)]
pub struct Outcome {
    /// Longest time without an acknowledged row on the way forth, crashes in between included.
    pub forth: Duration,
    /// And on the way back.
    pub back: Duration,
    /// Nodes that went on another library.
    pub replaced: usize,
    /// Of these, the ones that had been killed, not stopped.
    pub replaced_by_kill: usize,
    /// Kills in between.
    pub crashes: usize,
    /// Time of the whole roll, from the first row.
    pub lasted: Duration,
    /// Each step, in order.
    pub taken: Vec<Taken>,
    /// What the writers saw.
    pub record: Record,
    /// Beside what is on the nodes.
    pub verdict: Verdict,
}

impl Roll<'_> {
    /// Rolls forth and back.
    ///
    /// # Errors
    /// A node does not start, ends by itself, does not catch up or does not become equal, or nobody acknowledges rows.
    pub fn run(&self) -> Result<Outcome> {
        let libraries = vec![self.from.clone(); NODES];
        let mut cluster = Cluster::of_voters(self.program, self.folder, self.arguments, &libraries)?;
        let writers = start_writers(&cluster, self.writers)?;
        let mut random = SmallRng::seed_from_u64(self.seed);
        let mut taken = Vec::new();
        let mut way = |library| walk(&mut cluster, &writers, &plan(&mut random), library, &mut taken);
        let forth = way(self.to)?;
        let back = way(self.from)?;
        let (record, verdict) = finish(&cluster, writers)?;
        // A node that has ended by itself is found here at the latest.
        for id in cluster.live() {
            cluster.stop(id)?;
        }
        for step in &mut taken {
            step.silence = record.longest_silence(step.begin, step.end);
        }
        let count = |is_one: fn(&Step) -> bool| taken.iter().filter(|taken| is_one(&taken.step)).count();
        Ok(Outcome {
            forth: record.longest_silence(forth.0, forth.1),
            back: record.longest_silence(back.0, back.1),
            replaced: count(|step| matches!(step, Step::Replace(..))),
            replaced_by_kill: count(|step| matches!(step, Step::Replace(_, End::Kill))),
            crashes: count(|step| matches!(step, Step::Crash(_))),
            lasted: back.1 - forth.0,
            taken,
            record,
            verdict,
        })
    }
}

/// One way: every node in any order, stopped and killed in turn, and a crash of any node between two of them.
fn plan(random: &mut SmallRng) -> Vec<Step> {
    let ids = FIRST_ID..FIRST_ID + NODES as u64;
    let mut order: Vec<u64> = ids.clone().collect();
    order.shuffle(random);
    let mut ends = [End::Stop, End::Kill];
    ends.shuffle(random);
    let mut steps = Vec::new();
    for (id, end) in order.into_iter().zip(ends.into_iter().cycle()) {
        if !steps.is_empty() {
            steps.push(Step::Crash(random.random_range(ids.clone())));
        }
        steps.push(Step::Replace(id, end));
    }
    steps
}

/// Takes the steps under writers; then they stand still until all nodes hold the same. The times before and after the steps.
fn walk(
    cluster: &mut Cluster,
    writers: &Writers,
    steps: &[Step],
    library: &Library,
    taken: &mut Vec<Taken>,
) -> Result<(Instant, Instant)> {
    write_more(cluster, writers)?;
    let begin = Instant::now();
    for step in steps {
        let begin = Instant::now();
        let id = match *step {
            Step::Replace(id, end) => {
                match end {
                    End::Stop => cluster.stop(id)?,
                    End::Kill => cluster.kill(id)?,
                }
                cluster.set_library(id, library)?;
                id
            }
            Step::Crash(id) => {
                cluster.kill(id)?;
                write_more(cluster, writers)?;
                id
            }
        };
        cluster.start(id)?;
        let started = Instant::now();
        catch_up(cluster, writers, id)?;
        taken.push(Taken { step: *step, begin, started, end: Instant::now(), silence: Duration::ZERO });
        write_more(cluster, writers)?;
    }
    let end = Instant::now();
    writers.pause()?;
    cluster.wait_equal(&cluster.live(), DATABASE)?;
    writers.resume();
    Ok((begin, end))
}

fn write_more(cluster: &Cluster, writers: &Writers) -> Result<()> {
    let written = writers.wait_acknowledged(writers.acknowledged() + ROWS_BETWEEN, ROWS_WAIT);
    written.map_err(|error| ClusterError::Io(std::io::Error::other(format!("{error}{}", cluster.describe()))))
}

/// Waits until a node that has started holds what had been acknowledged at its start. Writers go on.
fn catch_up(cluster: &Cluster, writers: &Writers, id: u64) -> Result<()> {
    let rows = writers.acknowledged();
    cluster.wait(&format!("{rows} rows on node {id}"), EQUAL_WAIT, LOOK_PAUSE, |cluster| {
        let found = cluster.image(id, DATABASE).map_err(|error| error.to_string())?.row_count();
        // One is the table's own.
        if found > rows { Ok(()) } else { Err(format!("{found} rows and the schema's")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_replaced_once_and_one_crashes_between_two_replacements() {
        for seed in 0..100 {
            let steps = plan(&mut SmallRng::seed_from_u64(seed));

            assert_eq!(steps.len(), 2 * NODES - 1);
            let mut replaced = Vec::new();
            for (position, step) in steps.iter().enumerate() {
                match step {
                    Step::Replace(id, _) => replaced.push(*id),
                    Step::Crash(_) => assert_eq!(position % 2, 1),
                }
            }
            replaced.sort_unstable();
            assert_eq!(replaced, [1, 2, 3]);
            let kills = steps.iter().filter(|step| matches!(step, Step::Replace(_, End::Kill))).count();
            assert!(kills == 1 || kills == 2);
        }
    }

    #[test]
    fn a_seed_gives_the_same_steps_again() {
        let steps = |seed| plan(&mut SmallRng::seed_from_u64(seed));

        assert_eq!(steps(7), steps(7));
        assert!((0..10).any(|seed| steps(seed) != steps(seed + 1)));
    }
}
