//! A snapshot on its way from a leader: to a file piece by piece, read back and decoded whole. It becomes a snapshot of this
//! directory when it is installed, so that a bad one, or one that openraft does not want, changes nothing. spec: raft-wire 5.2, disk-format 5.4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::info;

use super::catalogue::{RaftSnapshot, RaftSnapshotMeta, SnapshotData, Snapshots, stored_membership};
use crate::peers::Sender;
use crate::peers::message::InstallSnapshot;
use crate::raft::machine::Decoder;
use crate::raft::types::{SnapshotPosition, log_id, membership_of};
use crate::types::Term;
use crate::types::config::{INSTALL_SNAPSHOT_TIMEOUT, SNAPSHOT_CHUNKS_AHEAD};
use crate::types::tasks::on_pool;

/// Takes one snapshot at a time.
#[derive(Clone)]
pub(crate) struct SnapshotReceiver {
    pub(crate) snapshots: Snapshots,
    pub(crate) decoder: Arc<dyn Decoder>,
    busy: Arc<AtomicBool>,
}

impl SnapshotReceiver {
    pub(crate) fn new(snapshots: Snapshots, decoder: Arc<dyn Decoder>) -> SnapshotReceiver {
        SnapshotReceiver { snapshots, decoder, busy: Arc::default() }
    }

    /// What was received is installed, or given up.
    pub(crate) fn finished(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// Returns a snapshot that is on the disk, decoded, and not in the directory yet; `finished` is to be called when it is installed.
    /// `floor` is the term of what is applied here: openraft's terms never fall.
    pub(crate) async fn receive(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        content: mpsc::Receiver<Bytes>,
        floor: Term,
    ) -> Result<RaftSnapshot, String> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err("another snapshot is being installed".to_owned());
        }
        let guard = Finished(self);
        let received = self.take(from, message, content, floor).await;
        if received.is_ok() {
            std::mem::forget(guard);
        }
        received
    }

    async fn take(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        mut content: mpsc::Receiver<Bytes>,
        floor: Term,
    ) -> Result<RaftSnapshot, String> {
        if membership_of(&message.configuration).is_none() {
            return Err(format!("nobody votes among its {} servers", message.configuration.servers().len()));
        }
        if message.configuration_index > message.index {
            return Err(format!("its configuration is of index {}", message.configuration_index));
        }
        let position = SnapshotPosition {
            term: message.last_term,
            index: message.index,
            configuration: Arc::new(message.configuration),
            configuration_index: message.configuration_index,
        };
        info!(
            peer = from.id.0,
            index = position.index.0,
            bytes = message.content_bytes,
            "receiving a snapshot"
        );
        let (store, pool) = (&self.snapshots.store, self.snapshots.pool.as_ref());
        let abandoned = |error: crate::types::tasks::PoolGone| error.to_string();
        let (begin, wanted) = (store.clone(), position.clone());
        let begun = on_pool(pool, move || begin.receive(&wanted, message.content_bytes)).await;
        let mut file = begun.map_err(abandoned)??;
        let mut left = message.content_bytes;
        while left > 0 {
            // Where the disk is slower than the leader, all that has come goes together.
            let mut pieces = Vec::new();
            let received =
                timeout(INSTALL_SNAPSHOT_TIMEOUT, content.recv_many(&mut pieces, SNAPSHOT_CHUNKS_AHEAD))
                    .await;
            if received.map_err(|_| format!("{left} bytes did not come in time"))? == 0 {
                return Err(format!("the connection ended {left} bytes early"));
            }
            let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            left = left.checked_sub(bytes).ok_or("more bytes than announced")?;
            let write = move || {
                pieces.iter().try_for_each(|piece| file.write(piece))?;
                Ok::<_, String>(file)
            };
            let written = on_pool(pool, write).await;
            file = written.map_err(abandoned)??;
        }
        let decoder = self.decoder.clone();
        let decoded = on_pool(pool, move || {
            let sealed = file.seal()?;
            let state = decoder.decode(sealed.read_back().map_err(|error| error.to_string())?)?;
            Ok::<_, String>((sealed, state))
        });
        let (sealed, state) = decoded.await.map_err(abandoned)??;
        let rank = position.term.max(floor);
        let meta = RaftSnapshotMeta {
            last_log_id: log_id(rank, position.index),
            last_membership: stored_membership(&position.configuration, position.configuration_index, rank),
        };
        Ok(RaftSnapshot { meta, snapshot: SnapshotData::received(position, sealed, state) })
    }
}

/// Allows the next snapshot when this one is given up.
struct Finished<'a>(&'a SnapshotReceiver);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.finished();
    }
}
