//! Turns openraft's metrics into the status.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::standing::Standing;
use super::view::LeaderBoard;
use crate::raft::apply::Consensus;
use crate::raft::types::{Leadership, StatusBoard, TypeConfig};
use crate::types::{NodeId, Term};

/// Writes the status.
pub(crate) struct Publisher {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) status: StatusBoard,
    pub(crate) stopping: CancellationToken,
}

impl Publisher {
    /// Until openraft ends.
    pub(crate) async fn run(self, leadership: watch::Sender<Leadership>) {
        let mut metrics = self.raft.metrics();
        loop {
            let running = self.publish(&metrics, &leadership);
            if running.is_err() || metrics.changed().await.is_err() {
                break;
            }
        }
        leadership.send_replace(Leadership::Stopped);
        self.status.set_serving(None);
        if !self.stopping.is_cancelled() {
            let reason = match self.raft.is_initialized().await {
                Err(fatal) => fatal.to_string(),
                Ok(_) => "openraft ended without a reason".to_owned(),
            };
            error!(reason, "consensus failed");
            self.status.fail(reason);
        }
    }

    fn publish(
        &self,
        metrics: &WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        leadership: &watch::Sender<Leadership>,
    ) -> Result<(), ()> {
        let current = metrics.borrow_watched();
        current.running_state.as_ref().map_err(|_| ())?;
        let term = Term(current.current_term);
        self.standing.look();
        let leader = current.current_leader.map(|id| {
            let node = current.membership_config.membership().get_node(&id);
            let address = node.map(|node| node.address.clone());
            // Who leads need not be a member that is known here.
            let told = || self.board.address_of(NodeId(id)).map(|address| address.to_vec());
            (NodeId(id), address.or_else(told).unwrap_or_default())
        });
        let leads = current.state == ServerState::Leader && current.current_leader == Some(self.id.0);
        self.status.set_leader(term, leader);
        let next = if leads { Leadership::Leading(term) } else { Leadership::Other };
        leadership.send_if_modified(|now| std::mem::replace(now, next.clone()) != next);
        Ok(())
    }
}
