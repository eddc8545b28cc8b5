//! Disks are good again, or replaced: everything must be there, everywhere.

use std::sync::PoisonError;
use std::time::Duration;

use dqlite::raft::{ChangeError, Engine};
use dqlite::types::{NodeId, Role};
use rand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{HEAL_MAX, Play};
use crate::client::ClusterClient;
use crate::cluster::address;
use crate::network::CALM;
use crate::workload::Shared;

/// Longest wait for one change of the members.
const ASKED_MAX: Duration = Duration::from_secs(20);

impl Play {
    pub(super) async fn heal(
        &mut self,
        workers: Vec<JoinHandle<()>>,
        histories: &Shared,
        client: &mut ClusterClient,
    ) -> Result<(), String> {
        self.cluster.network.heal();
        self.cluster.network.set_weather(CALM);
        self.sweep();
        for id in self.cluster.ids() {
            let disk = self.cluster.disk(id).ok_or("no such disk")?;
            self.report.disks.happened = self.report.disks.happened + disk.happened();
            disk.plan_nothing();
            if self.lost.contains(&id) {
                self.cluster.kill(id);
            } else {
                self.start(id).await?;
            }
        }
        self.sweep();
        for id in self.cluster.ids() {
            if !self.lost.contains(&id) {
                self.start(id).await?;
            }
        }
        for worker in workers {
            let ended = timeout(HEAL_MAX, worker).await.map_err(|_| "a client never ended".to_owned())?;
            ended.map_err(|error| error.to_string())?;
        }
        let healed = Instant::now();
        let written = client.insist("UPDATE list SET v = v WHERE k = 0", HEAL_MAX).await;
        self.look_at_failures()?;
        written.ok_or_else(|| format!("no write within {HEAL_MAX:?} after everything was healed"))?;
        self.report.healed_in = healed.elapsed();
        for id in self.cluster.ids().into_iter().filter(|id| !self.cluster.runs(*id)).collect::<Vec<u64>>() {
            if self.random.random() {
                timeout(HEAL_MAX, self.replace(id))
                    .await
                    .map_err(|_| format!("node {id} cannot be replaced"))??;
            }
        }
        for id in self.cluster.live() {
            timeout(HEAL_MAX, self.be_voter(id))
                .await
                .map_err(|_| format!("node {id} does not become a voter again"))?;
        }
        let compared = self.cluster.compare(HEAL_MAX).await;
        self.look_at_failures()?;
        compared?;
        let all = std::mem::take(&mut *histories.lock().unwrap_or_else(PoisonError::into_inner));
        (self.report.acknowledged, self.report.unknown) = all.check(client, HEAL_MAX).await?;
        self.report.digest = self.cluster.network.digest();
        for id in self.cluster.live() {
            if !self.cluster.stop(id).await {
                return Err(format!("node {id} does not stop"));
            }
        }
        Ok(())
    }

    fn look_at_failures(&self) -> Result<(), String> {
        let failures = self.cluster.failures();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    async fn be_voter(&self, id: u64) {
        loop {
            let leader = self.cluster.leader().and_then(|leader| self.cluster.core(leader));
            let configuration = leader.map(|core| core.engine().configuration().configuration);
            let role = configuration.and_then(|all| all.get(NodeId(id)).map(|server| server.role));
            if role == Some(Role::Voter) {
                return;
            }
            if matches!(self.cluster.assign(id, Role::Voter).await, Err(ChangeError::NotAllowed(_))) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Who leads, as soon as somebody does.
    async fn leader(&self) -> Engine {
        loop {
            let leader = self.cluster.leader().and_then(|leader| self.cluster.core(leader));
            if let Some(core) = leader {
                return core.engine().clone();
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A node that has lost its disk is removed, gets another one, and is added: a new member in the same place.
    async fn replace(&mut self, id: u64) -> Result<(), String> {
        // Each is asked again: it may have been done although the answer was lost.
        loop {
            let engine = self.leader().await;
            let _ = timeout(ASKED_MAX, engine.remove(NodeId(id))).await;
            if engine.configuration().configuration.get(NodeId(id)).is_none() {
                break;
            }
        }
        self.cluster.replace_disk(id);
        let started = self.cluster.start(id).await;
        started.map_err(|error| format!("node {id} does not start on a new disk: {error:?}"))?;
        loop {
            let engine = self.leader().await;
            let _ = timeout(ASKED_MAX, engine.add(NodeId(id), address(id))).await;
            if engine.configuration().configuration.get(NodeId(id)).is_some() {
                break;
            }
        }
        self.report.disks.replaced += 1;
        Ok(())
    }
}
