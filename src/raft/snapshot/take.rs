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
        let paced = Paced { content, pool: self.snapshots.pool.clone() };
        let snapshot = behind_on_pool(self.snapshots.pool.as_ref(), move || store.write(&position, &paced))
            .await
            .map_err(|error| error.to_string())??;
        let snapshot_index = self.next.position.index;
        let trailing = snapshot_index.0 - self.snapshots.purge_upto(snapshot_index).0;
        let added =
            self.snapshots.log.complete(|done| LogRequest::AddSnapshot { snapshot, trailing, done }).await;
        added.map_err(|error| error.to_string())?;
        self.snapshots.advance(self.next.clone(), content_bytes);
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    // A snapshot that cannot be written costs disk space, not the node: openraft then gets the one it knows, and the
    // next threshold tries again.
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, std::io::Error> {
        self.snapshots.begin_taking();
        let written = self.write().await;
        let taken = match written {
            Ok(()) => {
                info!(index = self.next.position.index.0, "snapshot taken");
                Ok(Snapshot {
                    meta: self.next.meta.clone(),
                    snapshot: SnapshotData::on_disk(self.next.position.clone()),
                })
            }
            Err(error) => {
                warn!(index = self.next.position.index.0, error, "snapshot not taken");
                let current = self.snapshots.current();
                let position = current.as_ref().map_or(&self.next.position, |current| &current.position);
                let snapshot = SnapshotData::on_disk(position.clone());
                Ok(Snapshot { meta: current.map(|current| current.meta).unwrap_or_default(), snapshot })
            }
        };
        self.snapshots.end_taking();
        taken
    }
}
