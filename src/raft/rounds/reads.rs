//! Linearizable reads without a log entry: a leader proves by one round of heartbeats that it still leads, and all reads
//! that wait when the round begins share it. openraft's own read index is not used: it would take a late answer of an
//! upstream follower for a new one. openraft-mapping L6, 5.

use std::cmp::Reverse;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};

use crate::peers::Peers;
use crate::peers::replicator::Target;
use crate::raft::log::LogView;
use crate::raft::types::StatusBoard;
use crate::types::config::READ_RESERVE_AFTER;
use crate::types::{NodeId, Server, Term};

/// Reads that wait for a proof.
#[derive(Debug, Default)]
struct ReadGate {
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

    fn take(&self) -> Vec<oneshot::Sender<bool>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// Nobody is answered before `rounds` run.
    pub(crate) fn new(id: NodeId, log: LogView, status: StatusBoard) -> Reads {
        Reads { id, gate: Arc::default(), log, status }
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

    /// What answers them; a voter has `patience` to answer.
    pub(crate) fn rounds(&self, peers: Peers, patience: Duration) -> ReadRounds {
        let Reads { id, gate, log, status } = self.clone();
        ReadRounds { id, gate, peers, log, status, patience }
    }
}

/// Runs one round after the other.
pub(crate) struct ReadRounds {
    id: NodeId,
    gate: Arc<ReadGate>,
    peers: Peers,
    log: LogView,
    status: StatusBoard,
    patience: Duration,
}

impl ReadRounds {
    /// Never returns.
    pub(crate) async fn run(self) {
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

    /// Whether a majority of the voters answered that they know no later term. No more are asked than are needed, those that
    /// were heard last; the others when an answer fails or is late.
    async fn round(&self, term: Term) -> bool {
        let configuration = self.log.configuration().0;
        let voters = configuration.voters().count();
        let mut others: Vec<&Server> = configuration.voters().filter(|server| server.id != self.id).collect();
        let own = voters - others.len();
        let needed = (voters / 2 + 1).saturating_sub(own);
        others.sort_by_key(|server| Reverse(self.peers.peer(server.id).heard(term)));
        let mut reserve = others.split_off(needed.min(others.len())).into_iter();
        let mut proofs: FuturesUnordered<_> =
            others.into_iter().map(|server| self.ask(server, term)).collect();
        let mut late = pin!(tokio::time::sleep(READ_RESERVE_AFTER));
        let mut proved = 0;
        while proved < needed {
            let answer = tokio::select! {
                biased;
                answer = proofs.next() => answer,
                () = &mut late, if reserve.len() > 0 => Some(false),
            };
            match answer {
                Some(true) => proved += 1,
                Some(false) => reserve.by_ref().for_each(|server| proofs.push(self.ask(server, term))),
                None => return false,
            }
        }
        true
    }

    fn ask(&self, server: &Server, term: Term) -> impl Future<Output = bool> + use<> {
        let address = Bytes::copy_from_slice(&server.address);
        let target = Target::new(&self.peers, server.id, address);
        let patience = self.patience;
        async move { target.fence(term, patience).await.is_ok() }
    }
}
