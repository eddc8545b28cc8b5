//! Asks openraft for snapshots when they are due and purges what is behind them.

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::consensus::Consensus;
use super::state_machine::Applied;
use crate::raft::log::LogView;
use crate::raft::snapshot::{Current, Snapshots, Taking};
use crate::raft::types::raft_index;
use crate::types::LogIndex;
use crate::types::config::{LOG_WANTED_MAX_BYTES, SNAPSHOT_ASKED_AGAIN};

/// Looks whether a snapshot is due.
pub(crate) struct SnapshotsDue {
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) snapshots: Snapshots,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) stopping: CancellationToken,
}

/// Position and logged bytes from which on the next snapshot is counted.
#[derive(Clone, Copy)]
struct Since {
    index: LogIndex,
    bytes: u64,
}

/// A snapshot that openraft was asked for.
#[derive(Clone, Copy)]
struct Asked {
    since: Since,
    /// openraft takes one snapshot at a time, and drops a wish for another without a word.
    again_at: Instant,
}

fn index_of(current: &Option<Current>) -> LogIndex {
    current.as_ref().map_or(LogIndex::NONE, |current| current.position.index)
}

impl SnapshotsDue {
    /// Until the node stops or openraft ends.
    pub(crate) async fn run(self) {
        let mut applied = self.applied.clone();
        let mut current = self.snapshots.watch();
        let mut taking = self.snapshots.taking();
        let mut since = Since { index: index_of(&current.borrow()), bytes: 0 };
        let (mut asked, mut ended): (Option<Asked>, u64) = (None, 0);
        if !self.purge_behind_snapshot().await {
            return;
        }
        loop {
            let on_disk = index_of(&current.borrow_and_update());
            let now = Since { index: applied.borrow_and_update().index, bytes: self.log.logged_bytes() };
            if on_disk > since.index {
                // One that came from elsewhere has all that was logged, as far as is known.
                since = Since { index: on_disk, bytes: asked.map_or(now, |asked| asked.since).bytes };
            }
            let Taking { is_under_way, ended: now_ended } = *taking.borrow_and_update();
            let has_ended = std::mem::replace(&mut ended, now_ended) != now_ended;
            if let Some(asked) = asked.take_if(|_| has_ended)
                && on_disk < asked.since.index
            {
                // One that failed is tried again as much later.
                since = now;
            }
            let may_ask = asked.is_none_or(|asked| !is_under_way && asked.again_at <= Instant::now());
            if may_ask && !self.is_due(since, now) {
                asked = None;
            } else if may_ask {
                asked = Some(Asked {
                    since: asked.map_or(now, |asked| asked.since),
                    again_at: Instant::now() + SNAPSHOT_ASKED_AGAIN,
                });
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            let again_at = asked.filter(|_| !is_under_way).map(|asked| asked.again_at);
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                changed = current.changed() => {
                    if changed.is_err() || !self.purge_behind_snapshot().await {
                        return;
                    }
                }
                changed = taking.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
        }
    }

    fn is_due(&self, since: Since, now: Since) -> bool {
        let entries = now.index.0.saturating_sub(since.index.0);
        let bytes = now.bytes.saturating_sub(since.bytes);
        self.snapshots.policy().is_due(entries, bytes, self.snapshots.content_bytes())
    }

    /// Whether openraft still runs.
    async fn purge_behind_snapshot(&self) -> bool {
        let Some(current) = self.snapshots.current() else { return true };
        let snapshot = current.position.index;
        let mut upto = self.snapshots.purge_upto(snapshot);
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
