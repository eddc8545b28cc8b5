//! Bringing a member up to date before it votes. spec: raft-wire 8.2.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use crate::raft::apply::{Consensus, matched};
use crate::raft::log::LogView;
use crate::raft::snapshot::Snapshots;
use crate::raft::types::{ChangeError, LOOK_AGAIN, StatusBoard};
use crate::types::NodeId;
use crate::types::config::{CATCH_UP_ROUND_MAX, CATCH_UP_ROUNDS_MAX};

/// Waits until members are up to date. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CatchUp {
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) snapshots: Snapshots,
    /// A round that takes less is the last.
    pub(crate) election_timeout: Duration,
}

impl CatchUp {
    /// Waits until a member has the log.
    pub(super) async fn wait_for(&self, id: NodeId) -> Result<(), ChangeError> {
        for round in 1..=CATCH_UP_ROUNDS_MAX {
            let began = Instant::now();
            let goal = self.log.last_index();
            let reached = async {
                while matched(&self.raft, id) < goal {
                    if self.status.serving().is_none() {
                        return Err(ChangeError::LeadershipLost);
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Ok(())
            };
            let mut reached = std::pin::pin!(reached);
            loop {
                match timeout(CATCH_UP_ROUND_MAX, &mut reached).await {
                    Ok(reached) => break reached?,
                    // A snapshot has its own bound, by its size.
                    Err(_) if self.snapshots.is_sending() => {}
                    Err(_) => return Err(ChangeError::NoConnection(id)),
                }
            }
            if began.elapsed() < self.election_timeout || matched(&self.raft, id) >= self.log.last_index() {
                info!(node = id.0, round, "caught up");
                return Ok(());
            }
        }
        Err(ChangeError::NoConnection(id))
    }
}
