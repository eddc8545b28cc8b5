//! Asks openraft for snapshots when they are due and purges what is behind them.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::consensus::Consensus;
use super::state_machine::Applied;
use crate::raft::log::LogView;
use crate::raft::snapshot::{Current, Snapshots};
use crate::raft::types::raft_index;
use crate::types::LogIndex;
use crate::types::config::{LOG_TRAILING_MAX_BYTES, LOG_WANTED_MAX_BYTES};

/// Looks whether a snapshot is due.
pub(crate) struct SnapshotsDue {
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) snapshots: Snapshots,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) stopping: CancellationToken,
}

impl SnapshotsDue {
    /// Until the node stops or openraft ends.
    pub(crate) async fn run(self) {
        let mut applied = self.applied.clone();
        let mut current = self.snapshots.watch();
        let index =
            |current: &Option<Current>| current.as_ref().map_or(LogIndex::NONE, |now| now.position.index);
        let mut asked = index(&current.borrow());
        // Bytes that were logged when the last snapshot was asked for, or came from elsewhere.
        let mut logged_before = 0;
        if !self.purge_behind_snapshot().await {
            return;
        }
        loop {
            let policy = self.snapshots.policy();
            let on_disk = index(&current.borrow_and_update());
            let last_applied = applied.borrow_and_update().index;
            if on_disk > asked {
                asked = on_disk;
                logged_before = self.log.logged_bytes();
            }
            let entries = last_applied.0.saturating_sub(asked.0);
            let log_bytes = self.log.logged_bytes().saturating_sub(logged_before);
            // One that failed is tried again as much later.
            if policy.is_due(entries, log_bytes, self.snapshots.content_bytes()) {
                asked = last_applied;
                logged_before += log_bytes;
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                changed = current.changed() => {
                    if changed.is_err() || !self.purge_behind_snapshot().await {
                        return;
                    }
                }
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether openraft still runs.
    async fn purge_behind_snapshot(&self) -> bool {
        let Some(current) = self.snapshots.current() else { return true };
        let snapshot = current.position.index;
        let too_much = self.log.last_beyond(LOG_TRAILING_MAX_BYTES).min(snapshot);
        let mut upto = self.snapshots.policy().purge_upto(snapshot).max(too_much);
        if let Some(wanted) = self.snapshots.wanted_behind() {
            // Else a peer that installs a large snapshot would need the next one as soon as it has it.
            upto = upto.min(wanted).max(self.log.last_beyond(LOG_WANTED_MAX_BYTES).min(snapshot));
        }
        match raft_index(upto) {
            Some(upto) => self.raft.trigger().purge_log(upto).await.is_ok(),
            None => true,
        }
    }
}
