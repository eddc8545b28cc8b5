//! Snapshots of leaders on their way into openraft. spec: raft-wire 5.2.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::appends::Appends;
use crate::peers::message::{AppendEntriesResult, InstallSnapshot};
use crate::peers::{FENCE_BASE, Sender};
use crate::raft::apply::{Applied, Consensus};
use crate::raft::election::{Standing, Terms};
use crate::raft::log::LogView;
use crate::raft::snapshot::SnapshotReceiver;
use crate::types::{LogIndex, Term};

/// Takes snapshots. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Installs {
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) receiver: SnapshotReceiver,
    pub(crate) appends: Appends,
    pub(crate) standing: Standing,
}

impl Installs {
    /// Receives the snapshot and has openraft install it.
    pub(super) fn install(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        content: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResult>> {
        let Installs { raft, log, applied, receiver, appends, standing } = self.clone();
        let from = from.clone();
        Box::pin(async move {
            let (index, term) = (message.index, message.term);
            let own = Terms::of(&log).own();
            let rejected =
                |term| Some(AppendEntriesResult { term, rejected: index, last_index: log.last().0 });
            if term < own {
                return rejected(own);
            }
            appends.receiving(&from, term);
            if message.last_term > term || index == LogIndex::NONE || index.0 >= FENCE_BASE {
                warn!(peer = from.id.0, ?message, "a snapshot that no leader has");
                return rejected(own);
            }
            let has_it = log.terms_at(index).is_some_and(|(stored, _)| stored == message.last_term)
                || applied.borrow().index >= index;
            if has_it {
                if !log.may_acknowledge(term, index).await {
                    return None;
                }
                return Some(AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: index });
            }
            let floor = applied.borrow().term;
            match receiver.receive(&from, message, content, floor).await {
                Ok(snapshot) => {
                    let vote = appends.vote_of(&from, term);
                    appends.forget_tail();
                    let _installing = standing.install();
                    let response = raft.install_full_snapshot(vote, snapshot).await.ok()?;
                    receiver.finished();
                    let now = Term(response.vote.leader_id.term);
                    if applied.borrow().index < index {
                        return rejected(now);
                    }
                    info!(peer = from.id.0, index = index.0, "snapshot installed");
                    if !log.may_acknowledge(term, index).await {
                        return None;
                    }
                    Some(AppendEntriesResult { term: now, rejected: LogIndex::NONE, last_index: index })
                }
                Err(error) => {
                    warn!(peer = from.id.0, index = index.0, error, "snapshot refused");
                    rejected(Terms::of(&log).own())
                }
            }
        })
    }
}
