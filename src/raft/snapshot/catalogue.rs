//! The snapshots of this node: which is current, which are on their way to peers, and when the next is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::{Snapshot, SnapshotMeta, StoredMembership};
use tokio::sync::watch;
use tokio::time::Instant;

use super::policy::SnapshotPolicy;
use super::store::SnapshotStore;
use crate::raft::log::{LogSender, LogView};
use crate::raft::machine::DecodedState;
use crate::raft::types::{Node, RaftStoredMembership, SnapshotPosition, log_id, membership_of};
use crate::storage::snapshot::Sealed;
use crate::types::config::{LOG_TRAILING_MAX_BYTES, SNAPSHOT_ENTRIES_KEPT};
use crate::types::tasks::BlockingPool;
use crate::types::{Configuration, LogIndex, Term};

/// openraft's description of a snapshot.
pub(crate) type RaftSnapshotMeta = SnapshotMeta<u64, u64, Node>;
/// openraft's snapshot.
pub type RaftSnapshot = Snapshot<u64, u64, Node, SnapshotData>;

/// What openraft passes around as a snapshot: its content stays in the file.
#[derive(Clone)]
pub struct SnapshotData {
    /// Which snapshot.
    pub position: SnapshotPosition,
    /// What was received, for the one who installs it.
    received: Arc<Mutex<Option<Received>>>,
}

/// A snapshot of a leader that is whole, and not in the directory yet.
pub(crate) struct Received {
    /// Its files.
    pub(crate) sealed: Box<dyn Sealed>,
    /// The state in it.
    pub(crate) state: DecodedState,
}

impl SnapshotData {
    /// A snapshot in the directory.
    #[must_use]
    pub fn on_disk(position: SnapshotPosition) -> SnapshotData {
        SnapshotData { position, received: Arc::default() }
    }

    /// A snapshot that a leader has sent.
    pub(crate) fn received(
        position: SnapshotPosition,
        sealed: Box<dyn Sealed>,
        state: DecodedState,
    ) -> SnapshotData {
        SnapshotData { position, received: Arc::new(Mutex::new(Some(Received { sealed, state }))) }
    }

    /// What was received, once; nothing of a snapshot in the directory.
    pub(crate) fn take_received(&self) -> Option<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotData").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The membership of a configuration at its entry. Its term may be guessed too high, never too low.
pub(crate) fn stored_membership(
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
pub(crate) struct Snapshots {
    pub(crate) store: Arc<dyn SnapshotStore>,
    pub(crate) pool: Arc<dyn BlockingPool>,
    pub(crate) log: LogSender,
    view: LogView,
    policy: Arc<Mutex<SnapshotPolicy>>,
    current: watch::Sender<Option<Current>>,
    taking: watch::Sender<Taking>,
    /// Bytes of the databases in the last snapshot.
    content_bytes: Arc<AtomicU64>,
    /// Snapshots on their way to peers, which will want the entries behind them: index, and until when.
    sending: Arc<Mutex<UnderWay>>,
}

/// Snapshots that this node takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taking {
    /// One is being written.
    pub(crate) is_under_way: bool,
    /// So many were, or could not be.
    pub(crate) ended: u64,
}

/// Index of each snapshot that is being sent, or was sent and until when that is remembered.
type UnderWay = Vec<(LogIndex, Option<Instant>)>;

/// Keeps the entries behind a snapshot while it is being sent and a while longer.
pub(crate) struct Sending {
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
pub(crate) struct Current {
    pub(crate) meta: RaftSnapshotMeta,
    pub(crate) position: SnapshotPosition,
}

impl Snapshots {
    pub(crate) fn new(
        store: Arc<dyn SnapshotStore>,
        pool: Arc<dyn BlockingPool>,
        log: LogSender,
        view: LogView,
        policy: SnapshotPolicy,
    ) -> Snapshots {
        Snapshots {
            store,
            pool,
            log,
            view,
            policy: Arc::new(Mutex::new(policy)),
            current: watch::channel(None).0,
            taking: watch::Sender::default(),
            content_bytes: Arc::default(),
            sending: Arc::default(),
        }
    }

    pub(crate) fn policy(&self) -> SnapshotPolicy {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_policy(&self, policy: SnapshotPolicy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Last index that need not be kept behind the snapshot at `index`, in memory and on the disk; 0 for none.
    pub(crate) fn purge_upto(&self, index: LogIndex) -> LogIndex {
        self.policy().purge_upto(index, self.view.last_beyond(LOG_TRAILING_MAX_BYTES))
    }

    /// Bytes of the databases in the last snapshot; 0 if there is none.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes.load(Ordering::Relaxed)
    }

    fn sending(&self) -> MutexGuard<'_, UnderWay> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of this index is about to be sent.
    pub(crate) fn begin_sending(&self, index: LogIndex) -> Sending {
        self.sending().push((index, None));
        Sending { index, snapshots: self.clone() }
    }

    /// Whether a snapshot is on its way to a peer.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending().iter().any(|(_, until)| until.is_none())
    }

    /// The last entry that no peer will want, as far as snapshots under way tell; none if there are none.
    pub(crate) fn wanted_behind(&self) -> Option<LogIndex> {
        let mut sending = self.sending();
        sending.retain(|(_, until)| until.is_none_or(|until| until > Instant::now()));
        sending.iter().map(|(index, _)| *index).min()
    }

    pub(crate) fn current(&self) -> Option<Current> {
        self.current.borrow().clone()
    }

    /// Makes a snapshot with databases of `content_bytes` the current one, unless a newer one is: one of this node that ends late
    /// does not take the place of one that was installed meanwhile.
    pub(crate) fn advance(&self, next: Current, content_bytes: u64) {
        self.current.send_if_modified(|current| {
            let is_newer =
                current.as_ref().is_none_or(|current| current.position.index <= next.position.index);
            if is_newer {
                self.content_bytes.store(content_bytes, Ordering::Relaxed);
                *current = Some(next);
            }
            is_newer
        });
    }

    pub(super) fn begin_taking(&self) {
        self.taking.send_modify(|taking| taking.is_under_way = true);
    }

    pub(super) fn end_taking(&self) {
        self.taking.send_modify(|taking| *taking = Taking { is_under_way: false, ended: taking.ended + 1 });
    }

    pub(crate) fn taking(&self) -> watch::Receiver<Taking> {
        self.taking.subscribe()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Current>> {
        self.current.subscribe()
    }
}
