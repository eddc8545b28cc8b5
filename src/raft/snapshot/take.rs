//! The way of a snapshot of this node from a pinned state to the disk and to openraft.

use std::sync::{Mutex, PoisonError};

use openraft::{RaftSnapshotBuilder, Snapshot};
use tracing::{info, warn};

use super::catalogue::{Current, RaftSnapshot, SnapshotData, Snapshots};
use super::paced::Paced;
use crate::raft::machine::SnapshotContent;
use crate::raft::types::TypeConfig;
use crate::storage::log::LogRequest;
use crate::types::tasks::behind_on_pool;

/// Writes one pinned state.
pub(crate) struct SnapshotBuilder {
    pub(crate) snapshots: Snapshots,
    pub(crate) next: Current,
    /// The lock only makes it shareable; there is one user.
    pub(crate) content: Mutex<Option<Box<dyn SnapshotContent>>>,
}

impl SnapshotBuilder {
    async fn write(&mut self) -> Result<(), String> {
        let content = self.content.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let content = content.ok_or("the pinned state was already written")?;
        let store = self.snapshots.store.clone();
        let position = self.next.position.clone();
        let content_bytes = content.content_size();
        let closed = self.snapshots.log.complete(|done| LogRequest::CloseWritten { done }).await;
        closed.map_err(|error| error.to_string())?;
        let paced = Paced { content, pool: self.snapshots.pool.clone() };
        behind_on_pool(self.snapshots.pool.as_ref(), move || store.write(&position, &paced))
            .await
            .map_err(|error| error.to_string())??;
        self.snapshots.set_content_bytes(content_bytes);
        let snapshot_index = self.next.position.index;
        let trailing = self.snapshots.policy().trailing_entries;
        let trimmed =
            self.snapshots.log.complete(|done| LogRequest::Trim { snapshot_index, trailing, done }).await;
        if let Err(error) = trimmed {
            warn!(%error, "segments behind the snapshot stay");
        }
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    // A snapshot that cannot be written costs disk space, not the node: openraft then gets the one it knows, and the
    // next threshold tries again.
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, std::io::Error> {
        match self.write().await {
            Ok(()) => {
                info!(index = self.next.position.index.0, "snapshot taken");
                self.snapshots.set_current(self.next.clone());
                Ok(Snapshot {
                    meta: self.next.meta.clone(),
                    snapshot: SnapshotData::on_disk(self.next.position.clone()),
                })
            }
            Err(error) => {
                warn!(index = self.next.position.index.0, error, "snapshot not taken");
                let meta = self.snapshots.current().map(|current| current.meta).unwrap_or_default();
                Ok(Snapshot { meta, snapshot: SnapshotData::on_disk(self.next.position.clone()) })
            }
        }
    }
}
