//! What happens to the nodes while clients work: leaders move, nodes stop in order or lose their power, the network is bad.

use std::time::Duration;

use dqlite::executor::permits::{Lane, SqlPermits};
use dqlite::executor::sqlite::threading::sqlite_is_serial;
use dqlite::types::NodeId;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout};

use super::shared::Shared;
use crate::cluster::{Cluster, address};
use crate::network::{CALM, Weather};

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// Changes of the node that leads, or of its term.
    pub leaders: u64,
    /// Nodes that were stopped in order.
    pub stops: u64,
    /// Nodes whose power was cut.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
}

/// Whoever disturbs.
pub(super) struct Trouble<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) random: SmallRng,
    pub(super) shared: Shared,
    /// Nothing but transfers happens.
    pub(super) only_transfers: bool,
    /// Longest pause between two disturbances.
    pub(super) pause_max: Duration,
    pub(super) troubles: Troubles,
    last_leader: Option<(u64, u64)>,
}

impl<'a> Trouble<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        random: SmallRng,
        shared: Shared,
        pause_max: Duration,
    ) -> Trouble<'a> {
        let troubles = Troubles::default();
        let mut trouble = Trouble {
            cluster,
            random,
            shared,
            only_transfers: false,
            pause_max,
            troubles,
            last_leader: None,
        };
        trouble.look();
        trouble.troubles.leaders = 0;
        trouble
    }

    /// Counts changes of the leader.
    fn look(&mut self) {
        let Some(leader) = self.cluster.leader() else { return };
        let term = self.cluster.core(leader).map_or(0, |core| core.engine().status().borrow().term.0);
        if self.last_leader.replace((leader, term)) != Some((leader, term)) {
            self.troubles.leaders += 1;
        }
    }

    /// Starts a node.
    pub(super) async fn start(&mut self, id: u64) -> Result<(), String> {
        // A start enters SQLite, too: in single-thread mode it would wait on the one thread that there is for whoever pauses inside.
        let permit = match sqlite_is_serial() {
            true => Some(SqlPermits::of_process().acquire(Lane::GivesBack).await),
            false => None,
        };
        let started = self.cluster.start(id).await;
        drop(permit);
        started.map_err(|error| format!("node {id} does not start: {error:?}"))?;
        if let Some(core) = self.cluster.core(id) {
            self.shared.started(address(id), core.executor().clone());
        }
        Ok(())
    }

    /// Stops a node in order.
    pub(super) async fn stop(&mut self, id: u64) -> Result<(), String> {
        self.shared.ended(&address(id));
        if self.cluster.stop(id).await { Ok(()) } else { Err(format!("node {id} does not stop")) }
    }

    /// Disturbs until an end.
    pub(super) async fn disturb(&mut self, end: Instant) -> Result<(), String> {
        while Instant::now() < end {
            let pause = self.random.random_range(Duration::ZERO..=self.pause_max);
            sleep(pause).await;
            self.look();
            let live = self.cluster.live();
            let leader = self.cluster.leader();
            let kinds = if self.only_transfers { 7 } else { 20 };
            match self.random.random_range(0..kinds) {
                0..=6 => self.transfer(leader).await,
                7..=9 => {
                    if let Some(id) = self.victim(leader, &live) {
                        self.troubles.stops += 1;
                        self.stop(id).await?;
                    }
                }
                10..=12 => {
                    if let Some(id) = self.victim(leader, &live) {
                        self.troubles.crashes += 1;
                        self.shared.ended(&address(id));
                        self.cluster.crash(id);
                    }
                }
                13 => self.divide(leader),
                14 => {
                    let weather = Weather {
                        delay_max: Duration::from_micros(self.random.random_range(100..20_000)),
                        slow_per_10000: self.random.random_range(0..300),
                        break_per_10000: self.random.random_range(0..60),
                        ..CALM
                    };
                    self.cluster.network.set_weather(weather);
                }
                15 => self.cluster.network.heal(),
                _ => {}
            }
            // Nobody is away for long: clients are to find a leader.
            for id in self.cluster.ids() {
                if !self.cluster.runs(id) && self.random.random_range(0..3) > 0 {
                    self.start(id).await?;
                }
            }
            self.look();
        }
        Ok(())
    }

    /// The leader, as a rule.
    fn victim(&mut self, leader: Option<u64>, live: &[u64]) -> Option<u64> {
        if live.is_empty() {
            return None;
        }
        let any = live[self.random.random_range(0..live.len())];
        Some(leader.filter(|_| self.random.random_range(0..3) > 0).unwrap_or(any))
    }

    async fn transfer(&mut self, leader: Option<u64>) {
        let Some(core) = leader.and_then(|leader| self.cluster.core(leader)) else { return };
        let engine = core.engine().clone();
        let ids = self.cluster.ids();
        let target = NodeId(ids[self.random.random_range(0..ids.len())]);
        if ids.len() == 1 {
            engine.step_down().await;
            return;
        }
        // The target may be gone, or the leader itself.
        let _ = timeout(Duration::from_secs(3), engine.transfer(Some(target))).await;
    }

    fn divide(&mut self, leader: Option<u64>) {
        self.troubles.partitions += 1;
        let ids = self.cluster.ids();
        let alone = leader.unwrap_or(ids[0]);
        for other in ids.into_iter().filter(|id| *id != alone) {
            self.cluster.network.block(&address(alone), &address(other));
            self.cluster.network.block(&address(other), &address(alone));
        }
    }
}
