//! A leader whose process died is replaced at once: this library's own, beside openraft's elections.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::board::{LeaderBoard, Suspicion};
use super::standing::Standing;
use super::times::Times;
use crate::peers::Peers;
use crate::peers::message::{Message, RequestVote};
use crate::peers::replicator::Target;
use crate::raft::apply::{Consensus, leading_term};
use crate::raft::log::LogView;
use crate::raft::types::Scope;
use crate::types::config::{
    FAILOVER_DIAL_PAUSE, FAILOVER_DIAL_TIMEOUT, FAILOVER_KEEPS_CONNECTION, FAILOVER_RETRY_MAX,
    FAILOVER_RETRY_MIN, FAILOVER_SPREAD, FAILOVER_VOTE_TIMEOUT,
};
use crate::types::{NodeId, Role, Term};

/// Replaces a leader that is gone.
pub(crate) struct Candidate {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) peers: Peers,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) scope: Scope,
    pub(crate) times: Times,
}

impl Candidate {
    /// Never returns.
    pub(crate) async fn run(self) {
        let mut suspicions = self.board.suspicion();
        loop {
            let suspicion = suspicions.borrow_and_update().clone();
            let Some(suspicion) = suspicion else {
                if suspicions.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                changed = suspicions.changed() => if changed.is_err() { return },
                () = self.replace(&suspicion) => {
                    if suspicions.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns when this node need do no more about it.
    async fn replace(&self, suspicion: &Suspicion) {
        let is_voter =
            self.log.configuration().0.get(self.id).is_some_and(|server| server.role == Role::Voter);
        if !is_voter || self.leading_term().is_some() {
            return;
        }
        // Who keeps a connection may only have lost one; it is heard again soon, or has started anew.
        if !timeout(FAILOVER_DIAL_TIMEOUT, self.is_refused(suspicion)).await.unwrap_or(false) {
            sleep(self.times.silence().saturating_sub(self.board.silence())).await;
        }
        if !self.board.mark_gone(suspicion) {
            return;
        }
        info!(leader = suspicion.leader.0, term = suspicion.term.0, "the leader is gone");
        // Two that see it at once must not split the votes.
        sleep(self.random_between(Duration::ZERO, FAILOVER_SPREAD)).await;
        let end = Instant::now() + self.times.campaign();
        while Instant::now() < end && self.board.is_leaderless() && self.leading_term().is_none() {
            if self.would_win().await
                && self.board.is_leaderless()
                && let Err(error) = self.raft.trigger().elect(false).await
            {
                warn!(%error, "no election");
                return;
            }
            sleep(self.random_between(FAILOVER_RETRY_MIN, FAILOVER_RETRY_MAX)).await;
        }
    }

    /// Whether a connection to the leader is refused. A process that is ending may take some and drop them.
    async fn is_refused(&self, suspicion: &Suspicion) -> bool {
        loop {
            let Ok(mut stream) = self.peers.links().dial(&suspicion.address).await else { return true };
            // Nobody speaks first there.
            let mut byte = [0];
            if timeout(FAILOVER_KEEPS_CONNECTION, stream.read.read(&mut byte)).await.is_err() {
                return false;
            }
            sleep(FAILOVER_DIAL_PAUSE).await;
        }
    }

    /// A pre-vote of this node's own: openraft's waits for the lease of the leader that is gone.
    async fn would_win(&self) -> bool {
        let Some(term) = self.standing.term() else { return false };
        let configuration = self.log.configuration().0;
        let (last_index, last_term, _) = self.log.last();
        let request = RequestVote {
            term,
            candidate: self.id,
            last_index,
            last_term,
            disrupts_leader: false,
            is_pre_vote: true,
        };
        let mut votes: FuturesUnordered<_> = configuration
            .voters()
            .filter(|server| server.id != self.id)
            .map(|server| {
                let address = Bytes::copy_from_slice(&server.address);
                let target = Target::new(&self.peers, server.id, address);
                let answer = target.peer.expect_vote(request);
                async move {
                    target.send_message(&Message::RequestVote(request)).ok()?;
                    let answer = timeout(FAILOVER_VOTE_TIMEOUT, answer).await.ok()?.ok()?;
                    answer.granted.then_some(())
                }
            })
            .collect();
        let needed = configuration.voters().count() / 2 + 1;
        let mut granted = 1;
        while granted < needed {
            match votes.next().await {
                Some(Some(())) => granted += 1,
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    fn leading_term(&self) -> Option<Term> {
        leading_term(&self.raft, self.id)
    }

    fn random_between(&self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_micros()).unwrap_or(u64::MAX).max(1);
        least + Duration::from_micros(self.scope.random().next_u64() % span)
    }
}
