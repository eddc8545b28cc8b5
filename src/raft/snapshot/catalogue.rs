//! When a snapshot is taken, and its way from a pinned state to the disk and to openraft.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::{RaftSnapshotBuilder, Snapshot, SnapshotMeta, StoredMembership};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::log_sender::LogSender;
use super::machine::{DecodedState, SnapshotContent};
use super::paced::Paced;
use super::types::{Node, RaftStoredMembership, TypeConfig, log_id, membership_of};
use crate::storage::log::LogRequest;
use crate::types::config::{
    SNAPSHOT_ENTRIES_KEPT, SNAPSHOT_LOG_BYTES_MIN, SNAPSHOT_LOG_SHARE, SNAPSHOT_THRESHOLDS_MAX,
};
use crate::types::tasks::{BlockingPool, behind_on_pool};
use crate::types::{Configuration, LogIndex, Term};

/// openraft's description of a snapshot.
pub(super) type RaftSnapshotMeta = SnapshotMeta<u64, u64, Node>;
/// openraft's snapshot.
pub type RaftSnapshot = Snapshot<u64, u64, Node, SnapshotData>;

/// Where the state of a snapshot ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPosition {
    /// Term of the last entry in it.
    pub term: Term,
    /// Index of the last entry in it.
    pub index: LogIndex,
    /// Last configuration applied, spares included.
    pub configuration: Arc<Configuration>,
    /// Index of the entry of that configuration.
    pub configuration_index: LogIndex,
}

/// The snapshot files of the directory. Called on the blocking pool.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Writes and syncs a snapshot; older ones may be removed.
    ///
    /// # Errors
    /// The disk failed; the earlier snapshot is still there.
    fn write(&self, position: &SnapshotPosition, content: &dyn SnapshotContent) -> Result<(), String>;

    /// Opens the content of a snapshot.
    ///
    /// # Errors
    /// The snapshot has gone or cannot be read.
    fn open(&self, position: &SnapshotPosition) -> Result<Box<dyn Read + Send>, String>;

    /// Bytes of that content.
    ///
    /// # Errors
    /// The snapshot has gone or cannot be read.
    fn content_bytes(&self, position: &SnapshotPosition) -> Result<u64, String>;

    /// Begins a snapshot that comes from elsewhere; it does not exist before it is named.
    ///
    /// # Errors
    /// The disk failed.
    fn receive(
        &self,
        position: &SnapshotPosition,
        content_bytes: u64,
    ) -> Result<Box<dyn ReceivedSnapshot>, String>;
}

/// A snapshot on its way to the disk. Called on the blocking pool.
pub trait ReceivedSnapshot: Send {
    /// Takes the next bytes of the content.
    ///
    /// # Errors
    /// The disk failed, or there are more than announced.
    fn write(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Makes the whole content durable and reads it back.
    ///
    /// # Errors
    /// The disk failed, or the content is shorter than announced.
    fn seal(&mut self) -> Result<Box<dyn Read + Send>, String>;

    /// Makes it a snapshot of the directory.
    ///
    /// # Errors
    /// The disk failed.
    fn name(self: Box<Self>) -> Result<(), String>;
}

/// What openraft passes around as a snapshot: its content stays in the file.
#[derive(Clone)]
pub struct SnapshotData {
    /// Which snapshot.
    pub position: SnapshotPosition,
    /// The state in it, if it was decoded already.
    pub(super) decoded: Decoded,
}

/// A decoded state that one user takes.
pub(super) type Decoded = Arc<Mutex<Option<DecodedState>>>;

impl SnapshotData {
    /// A snapshot in the directory.
    #[must_use]
    pub fn on_disk(position: SnapshotPosition) -> SnapshotData {
        SnapshotData { position, decoded: Arc::default() }
    }
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotData").field("position", &self.position).finish_non_exhaustive()
    }
}

/// When to take a snapshot and how many entries to keep behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries applied since the last snapshot before the next is taken.
    pub threshold_entries: u64,
    /// Entries kept behind a snapshot.
    pub trailing_entries: u64,
    /// What else is looked at before a snapshot is taken.
    pub pace: SnapshotPace,
}

/// When a snapshot is taken once there are enough entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPace {
    /// At once: the host has said after how many entries.
    Entries,
    /// When the log has grown by what writing the databases anew is worth: a large database is not rewritten for a few
    /// small entries.
    Bytes,
}

impl SnapshotPolicy {
    /// Whether a snapshot is due: `entries` were applied and `log_bytes` logged since the last one, which has
    /// `content_bytes`. Pure.
    #[must_use]
    pub fn is_due(self, entries: u64, log_bytes: u64, content_bytes: u64) -> bool {
        let threshold = self.threshold_entries.max(1);
        if entries < threshold {
            return false;
        }
        let worth = content_bytes.min(SNAPSHOT_LOG_BYTES_MIN.max(content_bytes / SNAPSHOT_LOG_SHARE));
        self.pace == SnapshotPace::Entries
            || log_bytes >= worth
            || entries >= threshold.saturating_mul(SNAPSHOT_THRESHOLDS_MAX)
    }

    /// Last index that need not be kept once the snapshot at `index` is on disk; 0 for none. Pure.
    #[must_use]
    pub fn purge_upto(self, index: LogIndex) -> LogIndex {
        LogIndex(index.0.saturating_sub(self.trailing_entries))
    }
}

/// The membership of a configuration at its entry. Its term may be guessed too high, never too low.
pub(super) fn stored_membership(
    configuration: &Configuration,
    index: LogIndex,
    term: Term,
) -> RaftStoredMembership {
    membership_of(configuration)
        .map(|membership| StoredMembership::new(log_id(term, index), membership))
        .unwrap_or_default()
}

/// What the builder, the state machine and the engine share about snapshots.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) pool: Arc<dyn BlockingPool>,
    pub(super) log: LogSender,
    policy: Arc<Mutex<SnapshotPolicy>>,
    current: watch::Sender<Option<Current>>,
    /// Bytes of the databases in the last snapshot.
    content_bytes: Arc<AtomicU64>,
    /// Snapshots on their way to peers, which will want the entries behind them: index, and until when.
    sending: Arc<Mutex<UnderWay>>,
}

/// Index of each snapshot that is being sent, or was sent and until when that is remembered.
type UnderWay = Vec<(LogIndex, Option<Instant>)>;

/// Keeps the entries behind a snapshot while it is being sent and a while longer.
pub(super) struct Sending {
    index: LogIndex,
    snapshots: Snapshots,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut sending = self.snapshots.sending();
        if let Some(one) = sending.iter_mut().find(|(index, until)| *index == self.index && until.is_none()) {
            one.1 = Some(Instant::now() + SNAPSHOT_ENTRIES_KEPT);
        }
    }
}

/// The snapshot on disk.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) meta: RaftSnapshotMeta,
    pub(super) position: SnapshotPosition,
}

impl Snapshots {
    pub(super) fn new(
        store: Arc<dyn SnapshotStore>,
        pool: Arc<dyn BlockingPool>,
        log: LogSender,
        policy: SnapshotPolicy,
    ) -> Snapshots {
        Snapshots {
            store,
            pool,
            log,
            policy: Arc::new(Mutex::new(policy)),
            current: watch::channel(None).0,
            content_bytes: Arc::default(),
            sending: Arc::default(),
        }
    }

    pub(super) fn policy(&self) -> SnapshotPolicy {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_policy(&self, policy: SnapshotPolicy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Bytes of the databases in the last snapshot; 0 if there is none.
    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_content_bytes(&self, bytes: u64) {
        self.content_bytes.store(bytes, Ordering::Relaxed);
    }

    fn sending(&self) -> MutexGuard<'_, UnderWay> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of this index is about to be sent.
    pub(super) fn begin_sending(&self, index: LogIndex) -> Sending {
        self.sending().push((index, None));
        Sending { index, snapshots: self.clone() }
    }

    /// Whether a snapshot is on its way to a peer.
    pub(super) fn is_sending(&self) -> bool {
        self.sending().iter().any(|(_, until)| until.is_none())
    }

    /// The last entry that no peer will want, as far as snapshots under way tell; none if there are none.
    pub(super) fn wanted_behind(&self) -> Option<LogIndex> {
        let mut sending = self.sending();
        sending.retain(|(_, until)| until.is_none_or(|until| until > Instant::now()));
        sending.iter().map(|(index, _)| *index).min()
    }

    pub(super) fn current(&self) -> Option<Current> {
        self.current.borrow().clone()
    }

    pub(super) fn set_current(&self, current: Current) {
        self.current.send_replace(Some(current));
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Current>> {
        self.current.subscribe()
    }
}

/// Writes one pinned state.
pub(super) struct SnapshotBuilder {
    pub(super) snapshots: Snapshots,
    pub(super) next: Current,
    /// The lock only makes it shareable; there is one user.
    pub(super) content: Mutex<Option<Box<dyn SnapshotContent>>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(pace: SnapshotPace) -> SnapshotPolicy {
        SnapshotPolicy { threshold_entries: 1024, trailing_entries: 8192, pace }
    }

    // c-api 3.5: threshold and trailing.
    #[test]
    fn a_threshold_of_the_host_counts_entries_alone() {
        let policy = policy(SnapshotPace::Entries);

        assert!(!policy.is_due(1023, u64::MAX, 0));
        assert!(policy.is_due(1024, 0, u64::MAX));
        assert_eq!(policy.purge_upto(LogIndex(1024)), LogIndex(0));
        assert_eq!(policy.purge_upto(LogIndex(10_000)), LogIndex(1808));
    }

    #[test]
    fn a_large_database_is_not_rewritten_for_a_few_small_entries() {
        let policy = policy(SnapshotPace::Bytes);

        assert!(!policy.is_due(1023, 10 * MIB, MIB));
        assert!(policy.is_due(1024, MIB, 0));
        for (content, enough) in [(1, 1), (40, 40), (64, 64), (400, 64), (1024, 128)] {
            let (content, enough) = (content * MIB, enough * MIB);
            assert!(!policy.is_due(1024, enough - 1, content), "{content}");
            assert!(policy.is_due(1024, enough, content), "{content}");
        }
        assert!(policy.is_due(32 * 1024, 0, 1024 * MIB), "a start replays no more entries than that");
    }
}
