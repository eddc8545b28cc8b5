//! Role management: a look at the roles every second, carried out while this node leads and the host has asked for it.
//! One round at a time, one change at a time. spec: state-machine 6.1, c-api 3.5.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Membership;
use super::plan::{Change, Cluster, Targets, plan};
use super::poll::Poll;
use crate::client::Description;
use crate::node::core::LiveSettings;
use crate::transport::dial::Dial;
use crate::types::{Configuration, NodeId, config};

/// Role management of one node.
pub struct RoleManagement {
    own: NodeId,
    membership: Arc<dyn Membership>,
    poll: Poll,
    live: Arc<LiveSettings>,
}

impl RoleManagement {
    /// Role management of node `own`, which reaches all members, itself included, over `dial`.
    #[must_use]
    pub fn new(
        own: NodeId,
        membership: Arc<dyn Membership>,
        dial: Arc<dyn Dial>,
        live: Arc<LiveSettings>,
    ) -> RoleManagement {
        RoleManagement { own, membership, poll: Poll::new(dial), live }
    }

    /// Runs until `stop`; a change that is under way then may still be carried out.
    pub async fn run(mut self, stop: CancellationToken) {
        let rounds = async {
            loop {
                sleep(config::ROLES_INTERVAL).await;
                self.round().await;
            }
        };
        tokio::select! { biased; () = stop.cancelled() => {} () = rounds => {} }
    }

    async fn round(&mut self) {
        let configuration = self.membership.configuration();
        if !self.responsible() || configuration.servers().len() < 2 {
            return;
        }
        let mut online = self.poll.describe(&configuration, config::ROLES_DIAL_TIMEOUT).await;
        online.entry(self.own).or_insert_with(|| self.own_description());
        let cluster = Cluster { configuration: &configuration, own: self.own, online: &online };
        for change in plan(cluster, self.targets()) {
            if let Err(reason) = self.carry_out(&configuration, change).await {
                tracing::warn!(id = change.id.0, role = ?change.role, reason, "role not changed");
                return;
            }
            tracing::info!(id = change.id.0, role = ?change.role, "role changed");
        }
    }

    async fn carry_out(&mut self, planned_for: &Configuration, change: Change) -> Result<(), String> {
        if !self.responsible() {
            return Err("this node does not manage roles any more".to_owned());
        }
        if self.membership.configuration().get(change.id) != planned_for.get(change.id) {
            return Err("somebody else has changed the member".to_owned());
        }
        let assigned = self.membership.assign(change.id, change.role);
        let late = |_| Err(format!("nothing within {:?}", config::ROLES_CHANGE_TIMEOUT));
        timeout(config::ROLES_CHANGE_TIMEOUT, assigned).await.unwrap_or_else(late)
    }

    /// Whether roles are this node's business.
    fn responsible(&self) -> bool {
        self.live.role_management.load(Ordering::Relaxed) && self.membership.serving()
    }

    fn targets(&self) -> Targets {
        let voters = self.live.target_voters.load(Ordering::Relaxed);
        Targets::from_settings(voters, self.live.target_standbys.load(Ordering::Relaxed))
    }

    /// What this node answers to DESCRIBE, should the way to itself be closed.
    fn own_description(&self) -> Description {
        Description {
            failure_domain: self.live.failure_domain.load(Ordering::Relaxed),
            weight: self.live.weight.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Debug for RoleManagement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleManagement").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
