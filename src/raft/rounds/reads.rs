//! Linearizable reads without a log entry: a leader proves by the answers of a majority that it still leads, and all reads
//! that wait at that time share the proof. openraft's own read index is not used: it would take a late answer of an
//! upstream follower for a new one. openraft-mapping L6, 5.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::raft::log::LogView;
use crate::raft::types::StatusBoard;
use crate::types::NodeId;

/// Reads that wait for a proof.
#[derive(Debug, Default)]
pub(super) struct ReadGate {
    waiting: Mutex<Vec<oneshot::Sender<bool>>>,
    filled: Notify,
}

/// A proof that this node led at some time after it was asked for.
#[derive(Debug)]
#[must_use]
pub struct Proof(State);

#[derive(Debug)]
enum State {
    Known(bool),
    Asked(oneshot::Receiver<bool>),
}

impl Proof {
    /// Nobody has to be asked.
    fn known(led: bool) -> Proof {
        Proof(State::Known(led))
    }

    /// Whether this node led.
    pub async fn given(self) -> bool {
        match self.0 {
            State::Known(led) => led,
            State::Asked(answer) => answer.await.unwrap_or(false),
        }
    }
}

impl ReadGate {
    /// Asks for a proof now, whenever it is waited for.
    fn ask(&self) -> Proof {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.filled.notify_one();
        Proof(State::Asked(answer))
    }

    /// All that wait now.
    pub(super) fn take(&self) -> Vec<oneshot::Sender<bool>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Until somebody waits who did not before.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

/// Where reads ask for their proofs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    id: NodeId,
    gate: Arc<ReadGate>,
    log: LogView,
    status: StatusBoard,
}

impl Reads {
    /// Nobody is answered before the heart beats.
    pub(crate) fn new(id: NodeId, log: LogView, status: StatusBoard) -> Reads {
        Reads { id, gate: Arc::default(), log, status }
    }

    /// Where they wait.
    pub(super) fn gate(&self) -> Arc<ReadGate> {
        self.gate.clone()
    }

    /// Asks the voters for a proof that this node leads. A node that alone votes asks nobody.
    pub(crate) fn prove(&self) -> Proof {
        if self.status.serving().is_none() {
            Proof::known(false)
        } else if self.log.configuration().0.is_only_voter(self.id) {
            Proof::known(true)
        } else {
            self.gate.ask()
        }
    }
}
