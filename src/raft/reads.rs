//! Linearizable reads without a log entry: a leader proves by one round of heartbeats that it still leads, and all reads
//! that wait when the round begins share it. openraft's own read index is not used: it would take a late answer of an
//! upstream follower for a new one. openraft-mapping L6, 5.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};

use super::log_store::LogView;
use super::status::StatusBoard;
use crate::peers::Peers;
use crate::peers::replicator::Target;
use crate::types::{NodeId, Term};

/// Reads that wait for a proof.
#[derive(Debug, Default)]
pub(super) struct ReadGate {
    waiting: Mutex<Vec<oneshot::Sender<bool>>>,
    filled: Notify,
}

impl ReadGate {
    /// Whether this node led at some time after the call.
    pub(super) async fn prove(&self) -> bool {
        let (sender, proved) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.filled.notify_one();
        proved.await.unwrap_or(false)
    }

    fn take(&self) -> Vec<oneshot::Sender<bool>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs one round after the other.
pub(super) struct ReadRounds {
    pub(super) id: NodeId,
    pub(super) gate: Arc<ReadGate>,
    pub(super) peers: Peers,
    pub(super) log: LogView,
    pub(super) status: StatusBoard,
    pub(super) patience: Duration,
}

impl ReadRounds {
    /// Never returns.
    pub(super) async fn run(self) {
        loop {
            let readers = self.gate.take();
            if readers.is_empty() {
                self.gate.filled.notified().await;
                continue;
            }
            let term = self.status.serving_term();
            let proved = match term {
                Some(term) => self.round(term).await && self.status.serving_term() == Some(term),
                None => false,
            };
            for reader in readers {
                // Who gave up waiting does not want it.
                let _ = reader.send(proved);
            }
        }
    }

    /// Whether a majority of the voters answered that they know no later term.
    async fn round(&self, term: Term) -> bool {
        let configuration = self.log.configuration().0;
        let voters: BTreeSet<NodeId> = configuration.voters().map(|server| server.id).collect();
        let mut proofs: FuturesUnordered<_> = configuration
            .voters()
            .filter(|server| server.id != self.id)
            .map(|server| {
                let address = Bytes::copy_from_slice(&server.address);
                let target = Target::new(&self.peers, server.id, address);
                async move { target.fence(term, self.patience).await.is_ok() }
            })
            .collect();
        let needed = voters.len() / 2 + 1;
        let mut proved = usize::from(voters.contains(&self.id));
        while proved < needed {
            match proofs.next().await {
                Some(true) => proved += 1,
                Some(false) => {}
                None => return false,
            }
        }
        true
    }
}
