//! The end of leadership by this node's own will: handed to another voter, or given up. spec: raft-wire 8; openraft-mapping 4.6.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::adoption::adopt;
use super::terms::Terms;
use super::times::Times;
use crate::peers::Peers;
use crate::peers::message::{Message, TimeoutNow};
use crate::peers::replicator::Target;
use crate::raft::apply::{Applied, Consensus, matched};
use crate::raft::log::LogView;
use crate::raft::propose::ProposalQueue;
use crate::raft::types::{Change, ChangeError, LOOK_AGAIN, Scope, Status, StatusBoard};
use crate::types::{NodeId, Term};

/// Ends leadership. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) queue: Arc<ProposalQueue>,
    pub(crate) peers: Peers,
    pub(crate) scope: Scope,
    pub(crate) times: Times,
}

impl Transfer {
    /// Hands leadership to a voter; without a choice to the one that has most of the log. Done when this node does not
    /// lead any more. Writes wait meanwhile.
    pub(crate) fn begin(&self, target: Option<NodeId>) -> Change {
        self.begin_within(target, self.times.election)
    }

    /// The same, given up after a time of the caller's.
    pub(super) fn begin_within(&self, target: Option<NodeId>, limit: Duration) -> Change {
        let serving = self.status.serving().ok_or(ChangeError::NotLeader);
        let turn =
            serving.and_then(|serving| Ok((serving.term, self.queue.pause().ok_or(ChangeError::NotLeader)?)));
        let term = turn.as_ref().map_or(Term(0), |(term, _)| *term);
        let transfer = self.clone();
        Change::begin(&self.scope, turn, async move { transfer.hand_over(target, term, limit).await })
    }

    async fn hand_over(
        &self,
        target: Option<NodeId>,
        term: Term,
        limit: Duration,
    ) -> Result<(), ChangeError> {
        let configuration = self.log.configuration().0;
        let mut candidates = configuration.voters().filter(|server| server.id != self.id);
        let target = match target {
            Some(id) => candidates.find(|server| server.id == id).ok_or(ChangeError::NotFound(id))?,
            None => candidates
                .max_by_key(|server| matched(&self.raft, server.id))
                .ok_or_else(|| ChangeError::NotAllowed("there is no other voter".to_owned()))?,
        };
        let peer = Target::of(&self.peers, target);
        let deadline = Instant::now() + limit;
        let mut status = self.status.watch();
        let asking = async {
            loop {
                let (index, stored, _) = self.log.last();
                if matched(&self.raft, target.id) >= index && self.applied.borrow().index >= index {
                    let now = TimeoutNow { term, last_index: index, last_term: stored };
                    info!(to = target.id.0, index = index.0, "handing leadership over");
                    // A full queue is tried again.
                    let _ = peer.send_message(&Message::TimeoutNow(now));
                    sleep(self.times.heartbeat).await;
                } else {
                    sleep(LOOK_AGAIN).await;
                }
            }
        };
        let left = tokio::select! {
            biased;
            left = timeout_at(deadline, status.wait_for(|now| has_moved(now, self.id, term))) => left.is_ok(),
            () = asking => unreachable!("asks for ever"),
        };
        // Who does not lead any more has nothing to take back.
        if left || self.status.term() != term { Ok(()) } else { Err(ChangeError::TransferFailed) }
    }

    /// Gives up leadership by adopting the next term without a vote in it.
    pub(crate) async fn step_down(&self) {
        let Some(next) = Terms::of(&self.log).next() else {
            warn!("there is no later term to step down to");
            return;
        };
        if let Err(error) = adopt(&self.raft, &self.log, next).await {
            // A stopped openraft leads no more.
            warn!(%error, "step down");
        }
    }

    /// A leader that does not vote any more gives up leadership.
    pub(crate) fn retire_if_not_voter(&self) {
        let CurrentRole { votes, committed } = self.current_role();
        if votes || !committed || self.status.serving().is_none() {
            return;
        }
        let transfer = self.clone();
        self.scope.spawn_until_stopped(async move {
            if let Err(error) = transfer.begin(None).await {
                info!(%error, "stepping down without a successor");
                if transfer.status.serving().is_some() {
                    transfer.step_down().await;
                }
            }
        });
    }

    fn current_role(&self) -> CurrentRole {
        let (configuration, index) = self.log.configuration();
        let votes = configuration.is_voter(self.id);
        CurrentRole { votes, committed: index <= self.applied.borrow().index }
    }
}

/// Whether another node is known to lead in a later term.
fn has_moved(now: &Status, own: NodeId, term: Term) -> bool {
    now.term > term && now.leader.as_ref().is_some_and(|(leader, _)| *leader != own) || now.failed.is_some()
}

struct CurrentRole {
    votes: bool,
    committed: bool,
}
