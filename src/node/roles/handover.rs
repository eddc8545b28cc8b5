//! `dqlite_node_handover`: leadership, then the vote, go to other nodes before this one stops. spec: c-api 3.9.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::info;

use super::plan::best_candidate;
use super::poll;
use crate::client::Client;
use crate::raft::engine::Engine;
use crate::transport::dial::Dial;
use crate::types::Role;
use crate::types::config::{HANDOVER_ASSIGN_TIMEOUT, HANDOVER_LEADER_TIMEOUT};

/// Why nothing, or not everything, was handed over; leadership may have moved all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Nobody else votes.
    #[error("no other voter")]
    NoOtherVoter,
    /// Leadership did not move.
    #[error("leadership was not taken over: {0}")]
    NotTakenOver(String),
    /// Nobody leads as far as this node knows.
    #[error("the leader is not known")]
    NoLeader,
    /// There is no member that could vote instead of this one.
    #[error("no other node can get the vote")]
    NoCandidate,
    /// The leader cannot be asked.
    #[error("{0}")]
    Leader(String),
}

/// Hands over what this node has; bounded in time.
///
/// # Errors
/// `HandoverError`.
pub async fn hand_over(engine: &Engine, dial: Arc<dyn Dial>) -> Result<(), HandoverError> {
    let configuration = engine.configuration().configuration;
    if engine.serving().is_some() {
        if !configuration.voters().any(|server| server.id != engine.id()) {
            return Err(HandoverError::NoOtherVoter);
        }
        engine.transfer(None).await.map_err(|error| HandoverError::NotTakenOver(error.to_string()))?;
    }
    let polled = poll(dial.as_ref(), &configuration).await;
    let mut status = engine.status();
    let other = status.wait_for(|now| now.leader.as_ref().is_some_and(|(id, _)| *id != engine.id()));
    let leader = match timeout(HANDOVER_LEADER_TIMEOUT, other).await {
        Ok(Ok(status)) => status.leader.clone(),
        _ => None,
    };
    let (leader, address) = leader.ok_or(HandoverError::NoLeader)?;
    let candidate = best_candidate(&polled, engine.id()).ok_or(HandoverError::NoCandidate)?;
    let client = Client::connect(dial.as_ref(), &address, HANDOVER_ASSIGN_TIMEOUT).await;
    let mut client = client.map_err(|error| HandoverError::Leader(error.to_string()))?;
    // Upstream does not report what becomes of these two.
    for (id, role) in [(candidate, Role::Voter), (engine.id(), Role::Spare)] {
        match client.assign(id, role).await {
            Ok(()) => info!(node = id.0, ?role, leader = leader.0, "role assigned by the new leader"),
            Err(error) => tracing::warn!(node = id.0, ?role, %error, "role not assigned"),
        }
    }
    Ok(())
}
