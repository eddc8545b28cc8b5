//! What a node does before it leaves for good: leadership goes to another voter, its role to an online node without it.
//! Bounded in time whatever the others do. spec: c-api 3.9, state-machine 6.1.

use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Membership;
use super::plan::{Change, Cluster, successor};
use super::poll::Poll;
use crate::client::{Client, ClientError};
use crate::executor::failure::{BUSY, LEADERSHIP_LOST, NOT_LEADER};
use crate::transport::dial::Dial;
use crate::types::{Configuration, NodeId, Role, config};

/// What a handover needs.
pub struct Handover {
    /// This node.
    pub own: NodeId,
    /// Consensus.
    pub membership: Arc<dyn Membership>,
    /// The way to the other nodes.
    pub dial: Arc<dyn Dial>,
    /// Ends this node's role management, which would undo the handover.
    pub roles: CancellationToken,
}

/// Why a node keeps its role. Leadership may have moved all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// It was never added, or has been removed.
    #[error("node {0} is in no configuration")]
    NoMember(NodeId),
    /// It leads, and nobody else votes.
    #[error("no other voter")]
    NoOtherVoter,
    /// It leads, and nobody took over.
    #[error("leadership was not taken over: {0}")]
    Transfer(String),
    /// No other node is known to lead.
    #[error("no other leader within {:?}", config::HANDOVER_LEADER_TIMEOUT)]
    NoLeader,
    /// The node is stopped meanwhile.
    #[error("the node is being stopped")]
    Stopped,
    /// No node that is online lacks the role.
    #[error("no online node to take the role")]
    NoSuccessor,
}

impl Handover {
    /// Hands over. Whether the leader did what it was asked for is logged, not reported. spec: c-api 3.9.
    ///
    /// # Errors
    /// See `HandoverError`.
    pub async fn run(self) -> Result<(), HandoverError> {
        self.roles.cancel();
        let configuration = self.membership.configuration();
        let own = configuration.get(self.own).ok_or(HandoverError::NoMember(self.own))?;
        if own.role == Role::Spare {
            // Upstream has another node promoted then: a voter more, because a node without vote leaves.
            return Ok(());
        }
        self.step_down(&configuration).await?;
        let successor = self.choose(&configuration).await?;
        timeout(config::HANDOVER_LEADER_TIMEOUT, self.other_leader())
            .await
            .map_err(|_| HandoverError::NoLeader)?;
        for change in [successor, Change { id: self.own, role: Role::Spare }] {
            self.ask(change).await;
        }
        Ok(())
    }

    /// Leads no more when this returns without an error.
    async fn step_down(&self, configuration: &Configuration) -> Result<(), HandoverError> {
        if !self.leads() {
            return Ok(());
        }
        if configuration.voters().all(|voter| voter.id == self.own) {
            return Err(HandoverError::NoOtherVoter);
        }
        let moved = timeout(config::HANDOVER_TRANSFER_TIMEOUT, self.membership.transfer(None)).await;
        match moved.unwrap_or_else(|_| Err(format!("nothing within {:?}", config::HANDOVER_TRANSFER_TIMEOUT)))
        {
            Err(reason) if self.leads() => Err(HandoverError::Transfer(reason)),
            _ => Ok(()),
        }
    }

    async fn choose(&self, configuration: &Configuration) -> Result<Change, HandoverError> {
        let mut others = configuration.servers().iter().filter(|server| server.id != self.own);
        if others.all(|server| server.role == Role::Voter) {
            return Err(HandoverError::NoSuccessor);
        }
        let mut poll = Poll::new(Arc::clone(&self.dial));
        let online = poll.describe(configuration, config::HANDOVER_DIAL_TIMEOUT).await;
        successor(Cluster { configuration, own: self.own, online: &online }).ok_or(HandoverError::NoSuccessor)
    }

    fn leads(&self) -> bool {
        self.membership.serving() || self.membership.leader().is_some_and(|(id, _)| id == self.own)
    }

    /// Waits without end for another node to lead; its address.
    async fn other_leader(&self) -> Vec<u8> {
        loop {
            match self.membership.leader() {
                Some((id, address)) if id != self.own => return address,
                _ => sleep(config::HANDOVER_RETRY).await,
            }
        }
    }

    /// Has the leader change a role, or gives up after a while.
    async fn ask(&self, change: Change) {
        match timeout(config::HANDOVER_CHANGE_TIMEOUT, self.ask_until_answered(change)).await {
            Ok(Ok(())) => tracing::info!(id = change.id.0, role = ?change.role, "role handed over"),
            Ok(Err(error)) => tracing::warn!(id = change.id.0, role = ?change.role, %error, "handover"),
            Err(_) => tracing::warn!(id = change.id.0, role = ?change.role, "handover took too long"),
        }
    }

    /// A leader that has just been elected may refuse for a moment; asking twice does no harm.
    async fn ask_until_answered(&self, change: Change) -> Result<(), ClientError> {
        loop {
            let leader = self.other_leader().await;
            match self.ask_once(&leader, change).await {
                Err(error) if may_pass(&error) => {
                    tracing::debug!(id = change.id.0, %error, "handover asks again");
                    sleep(config::HANDOVER_RETRY).await;
                }
                answered => return answered,
            }
        }
    }

    async fn ask_once(&self, leader: &[u8], change: Change) -> Result<(), ClientError> {
        let client = Client::connect(self.dial.as_ref(), leader).await?;
        client.with_timeout(config::HANDOVER_CHANGE_TIMEOUT).assign(change.id, change.role).await
    }
}

fn may_pass(error: &ClientError) -> bool {
    error.failure_code().is_none_or(|code| [BUSY, NOT_LEADER, LEADERSHIP_LOST].contains(&code))
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "handover_tests.rs"]
mod tests;
