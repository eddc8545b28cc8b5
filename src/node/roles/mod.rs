//! Who votes, who stands by: role management on the leader and the handover of a node that leaves.
//! Consensus is behind `Membership`, other nodes behind `transport::dial::Dial`. spec: state-machine 6.1.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::raft::Engine;
use crate::types::{Configuration, NodeId, Role};

pub mod handover;
pub mod plan;
pub mod poll;
pub mod rounds;

#[cfg(test)]
mod testing;

/// What role management and handover need of consensus. Futures may be dropped at any time: the change may then still
/// be carried out.
pub trait Membership: Send + Sync {
    /// Whether this node leads and takes changes.
    fn serving(&self) -> bool;

    /// Who leads as far as this node knows, itself included, whether or not it votes.
    fn leader(&self) -> Option<(NodeId, Vec<u8>)>;

    /// The members, committed or not; none on a node that was never added.
    fn configuration(&self) -> Arc<Configuration>;

    /// Changes a role; done when the change is committed. Only on the leader. spec: client-protocol 12.
    fn assign(&self, id: NodeId, role: Role) -> BoxFuture<'static, Result<(), String>>;

    /// Moves leadership to a voter, `None` to the one with the longest log that can be reached; done when this node does
    /// not lead any more. Only on the leader. spec: client-protocol 12.
    fn transfer(&self, target: Option<NodeId>) -> BoxFuture<'static, Result<(), String>>;
}

/// Consensus of a running node.
#[derive(Clone, Debug)]
pub struct EngineMembership(pub Engine);

impl Membership for EngineMembership {
    fn serving(&self) -> bool {
        self.0.serving().is_some()
    }

    fn leader(&self) -> Option<(NodeId, Vec<u8>)> {
        self.0.status().borrow().leader.clone()
    }

    fn configuration(&self) -> Arc<Configuration> {
        self.0.configuration().configuration
    }

    fn assign(&self, id: NodeId, role: Role) -> BoxFuture<'static, Result<(), String>> {
        let engine = self.0.clone();
        Box::pin(async move { engine.assign(id, role).await.map_err(|error| error.to_string()) })
    }

    fn transfer(&self, target: Option<NodeId>) -> BoxFuture<'static, Result<(), String>> {
        let engine = self.0.clone();
        Box::pin(async move { engine.transfer(target).await.map_err(|error| error.to_string()) })
    }
}
