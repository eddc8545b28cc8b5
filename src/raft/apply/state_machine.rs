//! openraft's view of the replicated state: applies entries in order, pins it for snapshots, restores it from one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::raft::log::LogView;
use crate::raft::machine::{DecodedState, Decoder, Machine, NotApplied};
use crate::raft::snapshot::{
    Current, RaftSnapshot, RaftSnapshotMeta, Received, SnapshotBuilder, SnapshotData, Snapshots,
    stored_membership,
};
use crate::raft::types::{
    self, RaftLogId, RaftStoredMembership, SnapshotPosition, TypeConfig, log_id, position,
};
use crate::storage::log::LogRequest;
use crate::storage::snapshot::Sealed;
use crate::types::config::PAGE_FILE_RETRY;
use crate::types::tasks::on_pool;
use crate::types::{Configuration, Entry, LogIndex, Term};

/// Position of the last applied entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Its term.
    pub term: Term,
    /// Its index.
    pub index: LogIndex,
}

/// openraft's state machine over ours.
pub(crate) struct StateMachine {
    /// Away only while it restores or applies, and for good if that failed.
    /// The lock only makes it shareable; there is one user.
    machine: Mutex<Option<Box<dyn Machine>>>,
    applied_log_id: Option<RaftLogId>,
    /// Term of the last applied entry as it is stored.
    applied_term: Term,
    membership: RaftStoredMembership,
    configuration: Arc<Configuration>,
    configuration_index: LogIndex,
    snapshots: Snapshots,
    log: LogView,
    applied: watch::Sender<Applied>,
    /// Ends waiting for space.
    stopping: CancellationToken,
}

impl StateMachine {
    pub(crate) fn new(
        machine: Box<dyn Machine>,
        snapshots: Snapshots,
        log: LogView,
        stopping: CancellationToken,
    ) -> StateMachine {
        StateMachine {
            machine: Mutex::new(Some(machine)),
            applied_log_id: None,
            applied_term: Term(0),
            membership: RaftStoredMembership::default(),
            configuration: Arc::default(),
            configuration_index: LogIndex::NONE,
            snapshots,
            log,
            applied: watch::channel(Applied::default()).0,
            stopping,
        }
    }

    /// Position of the last applied entry, as it moves.
    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Takes the state from a snapshot on disk.
    ///
    /// # Errors
    /// It cannot be read; the state is then gone.
    pub(crate) async fn restore(
        &mut self,
        current: Current,
        decoded: Option<DecodedState>,
    ) -> io::Result<()> {
        let mut machine = self.machine().take().ok_or_else(lost)?;
        let store = self.snapshots.store.clone();
        let position = current.position.clone();
        let restored = on_pool(self.snapshots.pool.as_ref(), move || {
            let state = match decoded {
                Some(state) => state,
                None => machine.decoder().decode(store.open(&position)?)?,
            };
            machine.restore(state)?;
            let content_bytes = store.content_bytes(&position)?;
            Ok::<_, String>((machine, content_bytes))
        });
        let restored = restored.await.map_err(io::Error::other)?;
        let index = current.position.index;
        let (machine, content_bytes) =
            restored.map_err(|error| io::Error::other(format!("snapshot of index {index}: {error}")))?;
        *self.machine() = Some(machine);
        self.applied_log_id = current.meta.last_log_id;
        self.applied_term = current.position.term;
        self.membership = current.meta.last_membership.clone();
        self.configuration = current.position.configuration.clone();
        self.configuration_index = current.position.configuration_index;
        self.snapshots.advance(current, content_bytes);
        self.publish();
        Ok(())
    }

    /// Makes a received snapshot one of the directory, beside the log if that goes on from it, else in its place.
    async fn name(
        &self,
        snapshot: Box<dyn Sealed>,
        meta: &RaftSnapshotMeta,
        position: &SnapshotPosition,
    ) -> io::Result<()> {
        let (log, index) = (&self.snapshots.log, snapshot.index());
        if self.log.last_index() >= index {
            let trailing = self.snapshots.policy().trailing_entries;
            return log.complete(|done| LogRequest::AddSnapshot { snapshot, trailing, done }).await;
        }
        log.complete(|done| LogRequest::Replace { snapshot, done }).await?;
        let entries = self.log.replace(meta.last_log_id, position);
        self.snapshots.pool.run_behind(Box::new(move || drop(entries)));
        Ok(())
    }

    /// Decodes snapshots, on any thread.
    pub(crate) fn decoder(&mut self) -> io::Result<Arc<dyn Decoder>> {
        Ok(self.machine().as_ref().ok_or_else(lost)?.decoder())
    }

    fn machine(&mut self) -> &mut Option<Box<dyn Machine>> {
        self.machine.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let (term, index) = position(self.applied_log_id.as_ref());
        self.applied.send_replace(Applied { term, index });
    }

    /// Has the machine apply an entry where that disturbs nobody.
    async fn attempt(&mut self, index: LogIndex, entry: &Entry) -> io::Result<Result<(), NotApplied>> {
        let pool = self.snapshots.pool.clone();
        let place = self.machine();
        let mut machine = place.take().ok_or_else(lost)?;
        let panicked = || io::Error::other(format!("entry {index}: apply panicked"));
        if !machine.may_wait(entry) {
            let outcome = catch_unwind(AssertUnwindSafe(|| machine.apply(index, entry)));
            let outcome = outcome.map_err(|_| panicked())?;
            *place = Some(machine);
            return Ok(outcome);
        }
        let entry = entry.clone();
        let apply = move || {
            let outcome = machine.apply(index, &entry);
            (machine, outcome)
        };
        let (machine, outcome) = on_pool(pool.as_ref(), apply).await.map_err(|_| panicked())?;
        *self.machine() = Some(machine);
        Ok(outcome)
    }

    async fn apply_one(&mut self, entry: &types::Entry) -> io::Result<()> {
        let index = entry.log_index();
        let mut told = false;
        loop {
            match self.attempt(index, entry.stored()).await? {
                Ok(()) => break,
                Err(NotApplied::Refused(error)) => {
                    return Err(io::Error::other(format!("entry {index}: {error}")));
                }
                // As the log does with a full disk.
                Err(NotApplied::NoSpace(error)) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(index = index.0, error, "no space to apply an entry, waiting for some");
                    }
                    if timeout(PAGE_FILE_RETRY, self.stopping.cancelled()).await.is_ok() {
                        return Err(io::Error::other(format!(
                            "entry {index}: stopped while there was no space"
                        )));
                    }
                }
            }
        }
        let last = log_id(entry.rank(), index);
        self.applied_term = entry.stored().term;
        if let Some(change) = entry.change() {
            self.membership = RaftStoredMembership::new(last, change.membership.clone());
            self.configuration = change.configuration.clone();
            self.configuration_index = index;
        }
        self.applied_log_id = last;
        Ok(())
    }
}

fn lost() -> io::Error {
    io::Error::other("the state was lost by an earlier failure")
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        Ok((self.applied_log_id, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.apply_one(&entry).await?;
            self.publish();
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let content = self.machine().as_mut().map(|machine| machine.pin());
        let index = position(self.applied_log_id.as_ref()).1;
        SnapshotBuilder {
            snapshots: self.snapshots.clone(),
            next: Current {
                meta: RaftSnapshotMeta {
                    last_log_id: self.applied_log_id,
                    last_membership: self.membership.clone(),
                },
                position: SnapshotPosition {
                    term: self.applied_term,
                    index,
                    configuration: self.configuration.clone(),
                    configuration_index: self.configuration_index,
                },
            },
            content: Mutex::new(content),
        }
    }

    // What conflicts with the snapshot was truncated before: the log ends before it, or has its last entry.
    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let mut decoded = None;
        if let Some(Received { sealed, state }) = snapshot.take_received() {
            decoded = Some(state);
            self.name(sealed, meta, &snapshot.position).await?;
        }
        self.restore(Current { meta: meta.clone(), position: snapshot.position }, decoded).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        Ok(self.snapshots.current().map(|current| Snapshot {
            meta: current.meta,
            snapshot: SnapshotData::on_disk(current.position),
        }))
    }
}

/// The snapshot that was found in the directory, as openraft names it. `rank_of` knows the loaded log.
pub(crate) fn loaded_snapshot(
    meta: &crate::storage::snapshot_meta::SnapshotMeta,
    rank_of: impl Fn(LogIndex) -> Option<Term>,
) -> Current {
    let configuration_term = rank_of(meta.configuration_index).unwrap_or(meta.term);
    Current {
        meta: RaftSnapshotMeta {
            last_log_id: log_id(rank_of(meta.index).unwrap_or(meta.term), meta.index),
            last_membership: stored_membership(
                &meta.configuration,
                meta.configuration_index,
                configuration_term,
            ),
        },
        position: SnapshotPosition {
            term: meta.term,
            index: meta.index,
            configuration: Arc::new(meta.configuration.clone()),
            configuration_index: meta.configuration_index,
        },
    }
}
