//! Whoever asks for a change of the members or of the leader may go away at any time: writes go on, and so do later changes.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use dqlite::raft::{Change, ChangeError, Engine, SnapshotPace, SnapshotPolicy};
use dqlite::types::{NodeId, Role};
use dqlite_sim::cluster::{Cluster, address};
use dqlite_sim::network::{CALM, Weather};
use dqlite_sim::node::SimClient;
use tokio::time::{Instant, sleep, timeout};

/// One way between two nodes.
const WAY: Duration = Duration::from_millis(3);
/// Time between two polls of a change.
const BETWEEN_POLLS: Duration = Duration::from_millis(1);
/// Longest wait for a write or a change that follows.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three voters.
async fn cluster(seed: u64) -> Cluster {
    let policy =
        SnapshotPolicy { threshold_entries: 1000, trailing_entries: 1000, pace: SnapshotPace::Entries };
    let mut cluster = Cluster::new(seed, 3, policy);
    cluster.form().await.unwrap();
    cluster.network.set_weather(Weather { delay_min: WAY, delay_max: WAY, ..CALM });
    write(&cluster, "CREATE TABLE t(n INTEGER PRIMARY KEY)").await;
    cluster
}

async fn leader(cluster: &Cluster) -> Engine {
    let leader = cluster.wait_leader(PATIENCE).await.expect("nobody leads");
    cluster.core(leader).unwrap().engine().clone()
}

/// Writes through whoever leads; leadership may move meanwhile.
async fn write(cluster: &Cluster, sql: &str) {
    let writing = async {
        loop {
            let leader = cluster.wait_leader(PATIENCE).await.expect("nobody leads");
            if let Some(mut client) = SimClient::open(cluster.core(leader).unwrap(), "test.db").await
                && client.exec(sql).await
            {
                return;
            }
            sleep(BETWEEN_POLLS).await;
        }
    };
    timeout(PATIENCE, writing).await.expect("writes have stopped");
}

/// Polls a change `polls` times and drops it; whether it had ended by then.
async fn give_up(change: Change, polls: usize) -> bool {
    let mut change = pin!(change);
    for _ in 0..polls {
        let ended =
            std::future::poll_fn(|context| Poll::Ready(change.as_mut().poll(context).is_ready())).await;
        if ended {
            return true;
        }
        sleep(BETWEEN_POLLS).await;
    }
    false
}

/// Makes a change through whoever leads; one that was given up may be under way.
async fn change(cluster: &Cluster, of: impl Fn(&Engine) -> Change, done: impl Fn(&Engine) -> bool) {
    let changing = async {
        loop {
            let engine = leader(cluster).await;
            if done(&engine) {
                return;
            }
            match of(&engine).await {
                Ok(()) => return,
                Err(ChangeError::InProgress | ChangeError::NotLeader | ChangeError::LeadershipLost) => {
                    sleep(BETWEEN_POLLS).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, changing).await.expect("no later change is possible");
}

fn role_of(engine: &Engine, id: u64) -> Option<Role> {
    engine.configuration().configuration.get(NodeId(id)).map(|server| server.role)
}

/// Gives up `asked` at its first poll, its second, and so on, until one ends before; how many were given up. After each of them
/// rows are written, and `undo` makes another change.
async fn at_every_poll<U: Future<Output = ()>>(
    cluster: &Cluster,
    asked: impl Fn(&Engine) -> Change,
    undo: impl Fn() -> U,
) -> usize {
    for polls in 0.. {
        let engine = leader(cluster).await;
        let ended = give_up(asked(&engine), polls).await;
        let began = Instant::now();
        write(cluster, "INSERT INTO t DEFAULT VALUES").await;
        assert!(began.elapsed() < Duration::from_secs(8), "a write took {:?}", began.elapsed());
        undo().await;
        if ended {
            return polls;
        }
    }
    unreachable!("no change takes for ever")
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_nobody_waits_for_moves_leadership_and_leaves_no_writes_paused() {
    let cluster = cluster(1).await;
    let transfer = |engine: &Engine| engine.transfer(None);

    let given_up = at_every_poll(&cluster, transfer, || async {
        for role in [Role::StandBy, Role::Voter] {
            let assign = |engine: &Engine| engine.assign(NodeId(3), role);
            change(&cluster, assign, |engine| role_of(engine, 3) == Some(role)).await;
        }
    })
    .await;

    assert!(given_up > 5, "given up {given_up} times");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_to_a_node_that_is_cut_off_ends_by_itself_when_nobody_waits_for_it() {
    let cluster = cluster(2).await;
    let engine = leader(&cluster).await;
    let (own, gone) = (engine.id(), NodeId(if engine.id() == NodeId(3) { 2 } else { 3 }));
    cluster.network.pause(&address(gone.0));

    drop(engine.transfer(Some(gone)));

    assert_eq!(engine.transfer(None).await, Err(ChangeError::NotLeader), "one at a time");
    write(&cluster, "INSERT INTO t DEFAULT VALUES").await;
    assert_eq!(leader(&cluster).await.id(), own);
    cluster.network.resume(&address(gone.0));
    let began = Instant::now();
    engine.transfer(None).await.unwrap();
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_members_that_nobody_waits_for_ends_and_lets_others_follow() {
    let cluster = cluster(3).await;
    let stranger = 9;
    let add = |engine: &Engine| engine.add(NodeId(stranger), address(stranger));
    let remove = |engine: &Engine| engine.remove(NodeId(stranger));
    let no_more = |engine: &Engine| role_of(engine, stranger).is_none();
    let there = |engine: &Engine| role_of(engine, stranger).is_some();

    let added = at_every_poll(&cluster, add, || change(&cluster, remove, no_more)).await;
    change(&cluster, add, there).await;
    let removed = at_every_poll(&cluster, remove, || change(&cluster, add, there)).await;

    assert!(added > 3 && removed > 3, "given up {added} and {removed} times");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_that_nobody_waits_for_ends_and_lets_others_follow() {
    let cluster = cluster(4).await;
    let engine = leader(&cluster).await;
    let id = if engine.id() == NodeId(3) { 2 } else { 3 };
    let to_spare = || {
        let demote = |engine: &Engine| engine.assign(NodeId(id), Role::Spare);
        change(&cluster, demote, |engine| role_of(engine, id) == Some(Role::Spare))
    };
    to_spare().await;

    let promote = |engine: &Engine| engine.assign(NodeId(id), Role::Voter);
    let given_up = at_every_poll(&cluster, promote, to_spare).await;

    assert!(given_up > 10, "given up {given_up} times");
}
