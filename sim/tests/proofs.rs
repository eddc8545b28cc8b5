//! What a leader has to prove before it answers, told by the time that answers take on a slow network, and what it answers when it
//! is cut off. architecture "Two roots".

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use dqlite::protocol::request::{Parameters, Request};
use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite_sim::cluster::{Cluster, address};
use dqlite_sim::network::{CALM, Weather};
use dqlite_sim::node::SimClient;
use tokio::time::{Instant, sleep, timeout};

/// One way between two nodes.
const WAY: Duration = Duration::from_millis(20);
/// There and back: a round of heartbeats, or an entry.
const ROUND: Duration = WAY.saturating_mul(2);
/// Nothing is under way any more so long after an answer.
const CALM_AFTER: Duration = Duration::from_millis(300);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const NOT_LEADER: u64 = 10250;
const LEADERSHIP_LOST: u64 = 10506;

/// Three nodes, of which the first leads, and two clients of it that share no network with them.
async fn cluster() -> (Cluster, SimClient, SimClient) {
    let policy =
        SnapshotPolicy { threshold_entries: 1000, trailing_entries: 1000, pace: SnapshotPace::Entries };
    let mut cluster = Cluster::new(1, 3, policy);
    cluster.form().await.unwrap();
    assert_eq!(cluster.leader(), Some(1));
    cluster.network.set_weather(Weather { delay_min: WAY, delay_max: WAY, ..CALM });
    let mut first = SimClient::open(cluster.core(1).unwrap(), "test.db").await.unwrap();
    let second = SimClient::open(cluster.core(1).unwrap(), "test.db").await.unwrap();
    assert!(first.exec("CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES(1)").await);
    (cluster, first, second)
}

fn exec(sql: &str) -> Request {
    Request::ExecSql { db: 0, sql: Bytes::copy_from_slice(sql.as_bytes()), parameters: Parameters::default() }
}

fn query(sql: &str) -> Request {
    Request::QuerySql {
        db: 0,
        sql: Bytes::copy_from_slice(sql.as_bytes()),
        parameters: Parameters::default(),
    }
}

/// The type of an answer, for a failure its code, and the time it took.
async fn answer(client: &mut SimClient, request: &Request) -> (u8, u64, Duration) {
    let begin = Instant::now();
    let (kind, body) = timeout(PATIENCE, client.call(request)).await.unwrap().unwrap();
    let code = if kind == 0 { u64::from_le_bytes(body[..8].try_into().unwrap()) } else { 0 };
    (kind, code, begin.elapsed())
}

/// The type of an answer, and how many times it waited for others. What the node's own disk costs is less.
async fn rounds(client: &mut SimClient, request: Request) -> (u8, u128) {
    sleep(CALM_AFTER).await;
    let (kind, _, time) = answer(client, &request).await;
    (kind, time.as_millis() / ROUND.as_millis())
}

#[tokio::test(start_paused = true)]
async fn an_entry_and_a_proven_snapshot_need_no_round_of_their_own() {
    let (cluster, mut client, mut other) = cluster().await;
    let client = &mut client;

    assert_eq!(rounds(client, query("SELECT n FROM t")).await, (7, 1), "a read");
    assert_eq!(rounds(client, exec("INSERT INTO t VALUES(2)")).await, (6, 1), "its entry alone");
    assert_eq!(rounds(client, exec("INSERT INTO t VALUES(2)")).await, (0, 1), "a refusal tells of a row");
    assert_eq!(
        rounds(client, exec("DELETE FROM t WHERE n = 7")).await,
        (6, 1),
        "so does a row that is not there"
    );

    assert_eq!(rounds(client, exec("BEGIN")).await, (6, 0), "nothing is read");
    assert_eq!(rounds(client, exec("INSERT INTO t VALUES(3)")).await, (6, 1), "the snapshot");
    assert_eq!(rounds(client, query("SELECT n FROM t")).await, (7, 0));
    assert_eq!(rounds(client, exec("INSERT INTO t VALUES(3)")).await, (0, 0));
    assert_eq!(rounds(client, exec("INSERT INTO t VALUES(4)")).await, (6, 0));
    assert_eq!(rounds(client, exec("COMMIT")).await, (6, 1), "the entry");

    assert_eq!(rounds(client, exec("BEGIN IMMEDIATE")).await, (6, 1), "the snapshot");
    assert_eq!(rounds(client, query("SELECT n FROM t")).await, (7, 0));
    assert_eq!(rounds(client, exec("ROLLBACK")).await, (6, 0));
    assert_eq!(rounds(client, query("SELECT n FROM t")).await, (7, 1), "a proof ends with its transaction");

    // The transaction of one statement proves nothing for the next one of the same text.
    assert_eq!(rounds(client, exec("BEGIN; SELECT 1 FROM t WHERE n = 0")).await, (6, 1));
    assert!(other.exec("INSERT INTO t VALUES(5)").await);
    assert_eq!(rounds(client, exec("COMMIT; BEGIN; DELETE FROM t WHERE n = 0")).await, (6, 1));
    assert_eq!(rounds(client, exec("ROLLBACK")).await, (6, 0));
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_tells_only_what_it_has_proven() {
    let (cluster, mut reader, mut writer) = cluster().await;
    let mut late = SimClient::open(cluster.core(1).unwrap(), "test.db").await.unwrap();
    let mut begins = SimClient::open(cluster.core(1).unwrap(), "test.db").await.unwrap();
    assert!(reader.exec("BEGIN").await);
    assert_eq!(reader.number("SELECT count(*) AS n FROM t").await, Some(1));
    for other in [2, 3] {
        cluster.network.block(&address(1), &address(other));
        cluster.network.block(&address(other), &address(1));
    }

    // The snapshot was proven before, and is the transaction's until its end.
    assert_eq!(reader.number("SELECT count(*) AS n FROM t").await, Some(1));
    let insert = exec("INSERT INTO t VALUES(2)");
    let duplicate = exec("INSERT INTO t VALUES(1)");
    let count = query("SELECT count(*) AS n FROM t");
    let (begin, commit) = (exec("BEGIN IMMEDIATE"), exec("COMMIT"));
    let (refused, written, begun, read) = tokio::join!(
        answer(&mut late, &duplicate),
        answer(&mut writer, &insert),
        answer(&mut begins, &begin),
        answer(&mut reader, &commit),
    );
    assert_eq!((written.0, written.1), (0, LEADERSHIP_LOST), "it may be in the log");
    assert_eq!((refused.0, refused.1), (0, NOT_LEADER), "not the refusal of SQLite");
    assert_eq!(read.0, 6, "it read what was proven");
    assert_eq!((begun.0, begun.1), (0, LEADERSHIP_LOST), "it saw what the writer wrote");
    assert_eq!(answer(&mut late, &count).await.0, 0);

    // The others go on; what nobody acknowledged is not there.
    let next = cluster.wait_leader(PATIENCE).await.unwrap();
    assert_ne!(next, 1);
    let mut client = SimClient::open(cluster.core(next).unwrap(), "test.db").await.unwrap();
    assert_eq!(client.number("SELECT count(*) AS n FROM t").await, Some(1));
    assert!(client.exec("INSERT INTO t VALUES(2)").await);

    // A transaction whose statement failed for want of a proof is lost with its database: it cannot be ended, nor go on.
    cluster.network.heal();
    assert_eq!(answer(&mut begins, &exec("COMMIT")).await.0, 0);
}
