//! Turns openraft's metrics into the status.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::board::LeaderBoard;
use super::standing::Standing;
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::raft::types::{Leadership, StatusBoard, TypeConfig};
use crate::types::{NodeId, Term};

/// Writes the status.
pub(crate) struct Publisher {
    pub(crate) id: NodeId,
    /// What others dial for this node, as it was started; its log may have an older one.
    pub(crate) address: Vec<u8>,
    pub(crate) raft: Consensus,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) stopping: CancellationToken,
}

impl Publisher {
    /// Until openraft ends.
    pub(crate) async fn run(self, leadership: watch::Sender<Leadership>) {
        let mut metrics = self.raft.metrics();
        let mut changes = self.board.changes();
        let mut taken_up = self.log.taken_up();
        while let Ok(until) = self.publish(&metrics, &leadership) {
            let silent = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() { break },
                // Board and log are this component's own: they do not end.
                _ = changes.changed() => {}
                _ = taken_up.changed() => {}
                () = silent => {}
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

    /// Publishes what is known now. Until when, if nothing changes.
    fn publish(
        &self,
        metrics: &WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        leadership: &watch::Sender<Leadership>,
    ) -> Result<Option<Instant>, ()> {
        let current = metrics.borrow_watched();
        current.running_state.as_ref().map_err(|_| ())?;
        let term = Term(current.current_term);
        self.standing.look();
        let leads = current.state == ServerState::Leader
            && current.current_leader == Some(self.id.0)
            && !self.log.has_left(term);
        self.board.is_in(term, current.state);
        let address_of = |id: NodeId| {
            let node = current.membership_config.membership().get_node(&id.0);
            node.map(|node| node.address.clone())
        };
        let followed = self.board.followed(term);
        // Nobody talks to a node without a role: it names whom it has heard last.
        let hears = self.log.configuration().0.is_voter(self.id);
        let followed = followed.filter(|(_, until)| !hears || Instant::now() < *until);
        let leader = match &followed {
            _ if leads => Some((self.id, self.address.clone())),
            // Who leads need not be a member that is known here.
            Some((leader, _)) => {
                Some((leader.id, address_of(leader.id).unwrap_or_else(|| leader.address.to_vec())))
            }
            None => None,
        };
        self.status.set_leader(term, leader);
        let next = if leads { Leadership::Leading(term) } else { Leadership::Other };
        leadership.send_if_modified(|now| std::mem::replace(now, next.clone()) != next);
        Ok(followed.filter(|_| hears).map(|(_, until)| until))
    }
}
