//! Waits, each with a bound of its own.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{ANSWER_TIMEOUT, Cluster, ClusterError, Result};
use crate::client::Client;
use crate::image::Image;

/// Longest time without a leader.
pub const LEADER_WAIT: Duration = Duration::from_secs(60);
/// Longest time until nodes hold the same.
pub const EQUAL_WAIT: Duration = Duration::from_secs(120);
/// Longest answer of a node that is asked who leads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two looks for a leader.
pub(super) const LEADER_PAUSE: Duration = Duration::from_millis(10);
/// Pause between two comparisons, each of which moves whole databases.
const EQUAL_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of each node's standard error in the text of an error.
const STDERR_TAIL_BYTES: usize = 2000;

impl Cluster {
    /// Looks at `check` again and again until it has a value. It says in its error what it saw instead.
    ///
    /// # Errors
    /// `bound` is over.
    pub fn wait<T>(
        &self,
        what: &str,
        bound: Duration,
        pause: Duration,
        mut check: impl FnMut(&Cluster) -> std::result::Result<T, String>,
    ) -> Result<T> {
        let begin = Instant::now();
        loop {
            match check(self) {
                Ok(value) => return Ok(value),
                Err(seen) if begin.elapsed() >= bound => {
                    let (what, waited) = (what.to_owned(), begin.elapsed());
                    return Err(ClusterError::Timeout { what, waited, seen, nodes: self.describe() });
                }
                Err(_) => std::thread::sleep(pause),
            }
        }
    }

    /// Each node, whether it runs, and the end of its standard error.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (id, seat) in &self.seats {
            let (state, stderr) = match &seat.process {
                Some(process) if process.has_ended() => {
                    ("has ended by itself", process.error_tail(STDERR_TAIL_BYTES))
                }
                Some(process) => ("runs", process.error_tail(STDERR_TAIL_BYTES)),
                None => ("does not run", seat.last_words.clone()),
            };
            // A String takes everything.
            let _ = write!(text, "\nnode {id} at {} {state}. Its stderr: {stderr}", seat.options.address);
        }
        text
    }

    /// Id of the node that leads, once one that runs says so of itself.
    ///
    /// # Errors
    /// No node leads within `LEADER_WAIT`.
    pub fn leader(&self) -> Result<u64> {
        self.wait("a leader", LEADER_WAIT, LEADER_PAUSE, |cluster| {
            let mut seen = String::new();
            for id in cluster.live() {
                let answer = cluster.asked_for_leader(id);
                if matches!(&answer, Ok((leader, _)) if *leader == id) {
                    return Ok(id);
                }
                let _ = write!(seen, "node {id} says {answer:?}; ");
            }
            Err(seen)
        })
    }

    /// Whom a node takes for the leader.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn asked_for_leader(&self, id: u64) -> Result<(u64, String)> {
        let answer = Client::connect(self.address(id)?, LOOK_TIMEOUT).and_then(|mut client| client.leader());
        answer.map_err(|source| ClusterError::Request { what: format!("ask node {id} who leads"), source })
    }

    /// Waits until this node leads.
    ///
    /// # Errors
    /// It does not within `LEADER_WAIT`.
    pub fn wait_leader_is(&self, id: u64) -> Result<()> {
        self.wait(&format!("node {id} to lead"), LEADER_WAIT, LEADER_PAUSE, |cluster| {
            match cluster.asked_for_leader(id) {
                Ok((leader, _)) if leader == id => Ok(()),
                other => Err(format!("it says {other:?}")),
            }
        })
    }

    /// Waits until this node takes nobody for the leader, not even itself.
    ///
    /// # Errors
    /// It does within `LEADER_WAIT`.
    pub fn wait_no_leader(&self, id: u64) -> Result<()> {
        let what = format!("node {id} to have no leader");
        self.wait(&what, LEADER_WAIT, LEADER_PAUSE, |cluster| match cluster.asked_for_leader(id) {
            Ok((0, _)) => Ok(()),
            other => Err(format!("it says {other:?}")),
        })
    }

    /// Waits until these nodes have heard of a leader that runs.
    ///
    /// # Errors
    /// One has not within `LEADER_WAIT`.
    pub fn wait_follow(&self, ids: &[u64]) -> Result<()> {
        let live = self.live();
        for id in ids {
            self.wait(&format!("node {id} to know a leader"), LEADER_WAIT, LEADER_PAUSE, |cluster| {
                match cluster.asked_for_leader(*id) {
                    Ok((leader, _)) if live.contains(&leader) => Ok(()),
                    other => Err(format!("it says {other:?}")),
                }
            })?;
        }
        Ok(())
    }

    /// The pages of a database on a node, from its own memory.
    ///
    /// # Errors
    /// It cannot be reached, does not know the database, or what it answers is none.
    pub fn image(&self, id: u64, database: &str) -> Result<Image> {
        let files =
            Client::connect(self.address(id)?, ANSWER_TIMEOUT).and_then(|mut node| node.dump(database));
        let files = files.map_err(|source| ClusterError::Request {
            what: format!("dump {database} of node {id}"),
            source,
        })?;
        Image::of_files(&files).map_err(|source| ClusterError::Image { id, source })
    }

    /// Waits until these nodes hold the same pages of a database as the leader, and it has some; nobody may write
    /// meanwhile. The image they have in common.
    ///
    /// # Errors
    /// They do not within `EQUAL_WAIT`.
    pub fn wait_equal(&self, ids: &[u64], database: &str) -> Result<Image> {
        let what = format!("{database} to be the same on the nodes {ids:?} and the leader");
        self.wait(&what, EQUAL_WAIT, EQUAL_PAUSE, |cluster| {
            let text = |error: ClusterError| error.to_string();
            let leader = cluster.leader().map_err(text)?;
            let expected = cluster.image(leader, database).map_err(text)?;
            if expected.page_count() == 0 {
                return Err(format!("no page on the leader, node {leader}"));
            }
            for id in ids.iter().filter(|id| **id != leader) {
                let image = cluster.image(*id, database).map_err(text)?;
                let different = expected.different_pages(&image);
                if let Some(first) = different.first() {
                    return Err(format!(
                        "node {id}: {image:?}, leader {leader}: {expected:?}, {} differ, the first is page {first}",
                        different.len()
                    ));
                }
            }
            Ok(expected)
        })
    }

    /// Waits until all nodes that run hold the same, and the leader counts `rows` in `table`.
    ///
    /// # Errors
    /// They do not within `EQUAL_WAIT`.
    pub fn wait_rows(&self, database: &str, table: &str, rows: i64) -> Result<Image> {
        let what = format!("{rows} rows in {table}");
        self.wait(&what, EQUAL_WAIT, EQUAL_PAUSE, |cluster| {
            let mut client = cluster.database(database).map_err(|error| error.to_string())?;
            match client.number(&format!("SELECT count(*) FROM {table}")) {
                Ok(found) if found == rows => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        self.wait_equal(&self.live(), database)
    }
}
