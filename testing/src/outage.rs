//! The leader is killed under writers, and comes back: what the demo, the tests and the measurement have in common.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, ClusterError, Result};
use crate::record::{CREATE_TABLE, Record, Verdict, verify};
use crate::writers::{ANSWER_TIMEOUT, WriterOptions, Writers};

/// Database of the writers.
pub const DATABASE: &str = "test.db";
/// Longest time from the loss of the leader to the next acknowledged row.
pub const OUTAGE_WAIT: Duration = Duration::from_secs(60);
/// Longest time for a few rows while all is well.
const ROWS_WAIT: Duration = Duration::from_secs(60);
/// Rows that the leader acknowledges before it is killed.
const ROWS_BEFORE: usize = 20;

/// Makes the writers' table and starts them.
///
/// # Errors
/// There is no leader, or it makes no table.
pub fn start_writers(cluster: &Cluster, writers: u64) -> Result<Writers> {
    start_writers_that_wait(cluster, writers, ANSWER_TIMEOUT)
}

/// `start_writers` with a bound of their own for an answer.
///
/// # Errors
/// As `start_writers`.
pub fn start_writers_that_wait(cluster: &Cluster, writers: u64, answer_timeout: Duration) -> Result<Writers> {
    let mut client = cluster.database(DATABASE)?;
    let made = client.exec(CREATE_TABLE, &[]);
    made.map_err(|source| ClusterError::Request { what: "make the table".into(), source })?;
    let (addresses, database) = (cluster.addresses(), DATABASE.into());
    Ok(Writers::start(WriterOptions { writers, addresses, database, answer_timeout }))
}

/// A leader that was killed.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Its id.
    pub killed: u64,
    /// From the signal to the first row that another node acknowledged.
    pub lasted: Duration,
}

/// Kills the node that acknowledges the writers' rows, and waits until another one does.
///
/// # Errors
/// Nobody acknowledges rows before, or after.
pub fn kill_leader(cluster: &mut Cluster, writers: &Writers) -> Result<Outage> {
    let killed = loop {
        let (leader, from) = (cluster.leader()?, writers.acknowledged());
        writers.wait_acknowledged(from + ROWS_BEFORE, ROWS_WAIT)?;
        if writers.last_address().as_deref() == Some(cluster.address(leader)?) {
            break leader;
        }
    };
    let address = cluster.address(killed)?.to_owned();
    let (begin, from) = (Instant::now(), writers.acknowledged());
    cluster.kill(killed)?;
    let first = writers.wait_acknowledged_elsewhere(from, &address, OUTAGE_WAIT);
    let first = first.map_err(|error| std::io::Error::other(format!("{error}{}", cluster.describe())))?;
    Ok(Outage { killed, lasted: first.saturating_duration_since(begin) })
}

/// Starts a node again under writers. They stand still when it follows the leader, until it has every row: the time it took.
///
/// # Errors
/// It does not start, or does not catch up.
pub fn bring_back(cluster: &mut Cluster, writers: &Writers, id: u64) -> Result<Duration> {
    let begin = Instant::now();
    cluster.start(id)?;
    cluster.wait_follow(&[id])?;
    writers.pause()?;
    let equal = cluster.wait_equal(&cluster.live(), DATABASE);
    writers.resume();
    equal.map(|_| begin.elapsed())
}

/// Ends the writers and compares what they saw with the leader's table and SQLite's own check, and all nodes that run with
/// the leader.
///
/// # Errors
/// Nodes do not become equal, or the leader does not answer, or its database is not sound.
pub fn finish(cluster: &Cluster, writers: Writers) -> Result<(Record, Verdict)> {
    let record = writers.stop()?;
    let failed = |what: &str| {
        let what = what.to_owned();
        |source| ClusterError::Request { what, source }
    };
    let mut client = cluster.database(DATABASE)?;
    let verdict = verify(&mut client, &record).map_err(failed("read all rows"))?;
    let sound = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    if client.number(sound).map_err(failed("check the database"))? != 1 {
        return Err(std::io::Error::other("SQLite's integrity check finds the database broken").into());
    }
    cluster.wait_equal(&cluster.live(), DATABASE)?;
    Ok((record, verdict))
}

/// The smallest value that this share of the values does not exceed.
#[must_use]
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
