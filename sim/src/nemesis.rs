//! What disturbs a cluster: power cuts, partitions, bad weather, changes of roles and of the leader.

use std::time::Duration;

use dqlite::types::{NodeId, Role};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, address};
use crate::network::{CALM, Weather};
use crate::scenario::Report;

/// Kinds of disturbances.
const MOVES: u32 = 13;
/// With those of mixed clusters.
const MIXED_MOVES: u32 = 17;

fn pick(random: &mut SmallRng, ids: &[u64]) -> u64 {
    ids[random.random_range(0..ids.len())]
}

/// Whoever leads.
fn leader(cluster: &Cluster) -> Option<u64> {
    cluster.leader().or_else(|| cluster.c_leader())
}

/// Disturbs the cluster until an end.
pub(crate) async fn disturb(
    cluster: &mut Cluster,
    random: &mut SmallRng,
    end: Instant,
    report: &mut Report,
) -> Result<(), String> {
    let moves = if cluster.is_mixed() { MIXED_MOVES } else { MOVES };
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(50..1500))).await;
        let ids = cluster.ids();
        match random.random_range(0..moves) {
            13..MIXED_MOVES => lead_by_c(cluster, random).await,
            12 => {
                // The whole room goes dark.
                for id in cluster.live() {
                    report.kills += 1;
                    report.leader_kills += usize::from(leader(cluster) == Some(id));
                    cluster.crash(id);
                }
            }
            0..=2 => {
                let leader = leader(cluster);
                let live = cluster.live();
                // Most of the time the leader; always so that a majority can come back.
                let victim = match leader {
                    Some(leader) if random.random_range(0..4) > 0 => Some(leader),
                    _ if live.is_empty() => None,
                    _ => Some(pick(random, &live)),
                };
                if let Some(victim) = victim {
                    report.kills += 1;
                    report.leader_kills += usize::from(leader == Some(victim));
                    cluster.crash(victim);
                }
            }
            3..=5 => {
                for id in ids {
                    if !cluster.runs(id) && random.random_range(0..4) > 0 {
                        cluster
                            .start(id)
                            .await
                            .map_err(|error| format!("node {id} does not start: {error:?}"))?;
                    }
                }
            }
            6 => {
                report.partitions += 1;
                let alone = leader(cluster).unwrap_or_else(|| pick(random, &ids));
                let one_way = random.random_range(0..3);
                for other in ids.into_iter().filter(|id| *id != alone) {
                    if one_way != 1 {
                        cluster.network.block(&address(alone), &address(other));
                    }
                    if one_way != 2 {
                        cluster.network.block(&address(other), &address(alone));
                    }
                }
            }
            7 => {
                report.partitions += 1;
                let (one, other) = (pick(random, &ids), pick(random, &ids));
                cluster.network.block(&address(one), &address(other));
                if random.random() {
                    cluster.network.block(&address(other), &address(one));
                }
            }
            8 => cluster.network.heal(),
            9 => cluster.network.pause(&address(pick(random, &ids))),
            10 => {
                let weather = Weather {
                    delay_max: Duration::from_micros(random.random_range(100..30_000)),
                    slow_per_10000: random.random_range(0..500),
                    break_per_10000: random.random_range(0..100),
                    ..CALM
                };
                cluster.network.set_weather(weather);
            }
            _ => {
                report.changes += usize::from(change(cluster, random).await);
            }
        }
    }
    Ok(())
}

/// A node of this library that leads hands over to a modelled one, in weather in which this works.
async fn lead_by_c(cluster: &Cluster, random: &mut SmallRng) {
    cluster.network.heal();
    let modelled: Vec<u64> = cluster.live().into_iter().filter(|id| cluster.is_modelled(*id)).collect();
    let Some(core) = cluster.leader().and_then(|leader| cluster.core(leader)) else { return };
    if !modelled.is_empty() {
        let engine = core.engine().clone();
        let target = NodeId(pick(random, &modelled));
        // It may be no voter, or gone.
        let _ = timeout(Duration::from_secs(3), engine.transfer(Some(target))).await;
    }
}

/// Changes the role of a node for a while, or the leader, through whoever leads; whether anybody does.
pub(crate) async fn change(cluster: &Cluster, random: &mut SmallRng) -> bool {
    let id = pick(random, &cluster.ids());
    let leader = cluster.leader().and_then(|leader| cluster.core(leader));
    let Some(engine) = leader.map(|core| core.engine().clone()) else {
        if cluster.c_leader().is_none() {
            return false;
        }
        let role = if random.random() { Role::StandBy } else { Role::Spare };
        cluster.assign_by_c(id, role);
        sleep(Duration::from_millis(random.random_range(10..2000))).await;
        cluster.assign_by_c(id, Role::Voter);
        return true;
    };
    let role = if random.random() { Role::StandBy } else { Role::Spare };
    // A single voter of upstream's leads without an election: not with such nodes.
    let voters = engine.configuration().configuration.voters().count();
    let may_demote = !cluster.is_mixed() || voters > 2;
    // A spare gets no entries, and so a snapshot afterwards.
    let away = Duration::from_millis(if cluster.is_mixed() { random.random_range(0..2000) } else { 0 });
    let change = async {
        if random.random_range(0..3) == 0 {
            // It may be the leader itself, or gone.
            let _ = engine.transfer(None).await;
        } else {
            if may_demote {
                let _ = cluster.assign(id, role).await;
                if !away.is_zero() {
                    sleep(away).await;
                }
            }
            let _ = cluster.assign(id, Role::Voter).await;
        }
    };
    let _ = timeout(Duration::from_secs(3) + away, change).await;
    true
}
