//! A voter whose only company does not vote: nobody but itself remembers which entries it has sent.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dqlite::raft::{SnapshotPace, SnapshotPolicy};
use dqlite::storage::log::LogRequest;
use dqlite::types::fault::{self, Fault};
use dqlite::types::{NodeId, Role};
use dqlite_sim::client::ClusterClient;
use dqlite_sim::cluster::{Cluster, address};
use dqlite_sim::node::Tamper;
use tokio::time::{sleep, timeout};

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk that, while it `hangs`, keeps appends waiting.
fn hanging(hangs: &Arc<AtomicBool>) -> Tamper {
    let (hangs, waiting) = (Arc::clone(hangs), Mutex::new(Vec::new()));
    Arc::new(move |request| match request {
        LogRequest::Append { .. } if hangs.load(Ordering::Relaxed) => {
            waiting.lock().unwrap().push(request);
            None
        }
        other => Some(other),
    })
}

/// A voter, whose disk may hang, and a stand-by.
async fn cluster(seed: u64, hangs: &Arc<AtomicBool>) -> Cluster {
    let policy =
        SnapshotPolicy { threshold_entries: 1000, trailing_entries: 1000, pace: SnapshotPace::Entries };
    let mut cluster = Cluster::new(seed, 2, policy);
    cluster.tamper = Some(hanging(hangs));
    cluster.start(1).await.unwrap();
    cluster.tamper = None;
    cluster.start(2).await.unwrap();
    let engine = cluster.core(1).unwrap().engine().clone();
    engine.add(NodeId(2), address(2)).await.unwrap();
    engine.assign(NodeId(2), Role::StandBy).await.unwrap();
    cluster
}

/// The voter is killed when it has sent an entry and not written it, and goes on after a start. The number of nodes that have
/// the same data afterwards, and whether it leads in a new term.
async fn voter_loses_an_entry(seed: u64) -> (Result<usize, String>, bool) {
    let hangs = Arc::new(AtomicBool::new(false));
    let mut cluster = cluster(seed, &hangs).await;
    let mut client = ClusterClient::new(&cluster.network, 1, &[address(1)]);
    for sql in ["CREATE TABLE t(n)", "CREATE TABLE other(n)", "INSERT INTO t VALUES(1)"] {
        client.insist(sql, PATIENCE).await.unwrap();
    }
    let term = |cluster: &Cluster| cluster.core(1).unwrap().engine().current_term();

    hangs.store(true, Ordering::Relaxed);
    // On a page that nothing writes again.
    let lost = client.exec("INSERT INTO other VALUES(2)");
    assert!(timeout(Duration::from_secs(2), lost).await.is_err(), "it is not acknowledged");
    let before = term(&cluster);
    cluster.crash(1);
    hangs.store(false, Ordering::Relaxed);
    sleep(Duration::from_millis(100)).await;
    cluster.start(1).await.unwrap();

    let is_new = term(&cluster) > before;
    for number in 3..6 {
        client.insist(&format!("INSERT INTO t VALUES({number})"), PATIENCE).await.unwrap();
    }
    (cluster.compare(PATIENCE).await, is_new)
}

// found by a full disk: the voter led again in the same term and gave the place of the entry to another
#[tokio::test(start_paused = true)]
async fn a_standby_has_the_same_data_though_it_got_an_entry_that_its_leader_lost() {
    for seed in 1..=8 {
        assert_eq!(voter_loses_an_entry(seed).await, (Ok(2), true), "seed {seed}");
    }
    fault::plant(Some(Fault::TermReused));
    let (compared, is_new) = voter_loses_an_entry(1).await;
    fault::plant(None);
    assert!(compared.is_err() && !is_new, "a term that is used twice is not noticed: {compared:?}");
}
