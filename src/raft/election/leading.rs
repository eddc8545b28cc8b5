//! openraft's timers. Its tick looks at them ten times in a heartbeat, on every node, and an idle node would wake for nothing
//! else: here a leader sends its heartbeats itself, and openraft ticks only where nobody leads or a leader falls silent.
//! A leader without a quorum steps down, which openraft leaves to its user. openraft-mapping 4.5.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::board::LeaderBoard;
use super::times::Times;
use super::transfer::Transfer;
use crate::peers::Peers;
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::raft::types::{Leadership, Status, StatusBoard};
use crate::types::{NodeId, Term};

/// Tends openraft's timers, and those of a leader.
pub(crate) struct Timers {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) peers: Peers,
    pub(crate) board: LeaderBoard,
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) times: Times,
}

impl Timers {
    /// Until openraft ends.
    pub(crate) async fn run(self, mut leadership: watch::Receiver<Leadership>) {
        while leadership.has_changed().is_ok() {
            let now = leadership.borrow_and_update().clone();
            match now {
                Leadership::Stopped => break,
                Leadership::Leading(term) => self.lead_in(term, &mut leadership).await,
                Leadership::Other => self.follow(&mut leadership).await,
            }
        }
        // Whoever does not know when they are needed lets them run.
        self.raft.runtime_config().tick(true);
    }

    /// Sends heartbeats, and ends leadership when a majority of the voters has not answered for an election timeout.
    async fn lead_in(&self, term: Term, leadership: &mut watch::Receiver<Leadership>) {
        self.raft.runtime_config().tick(false);
        let beat = self.times.beat();
        let since = Instant::now();
        let mut heartbeat_at = since + beat;
        loop {
            let quorum_until = self.quorum_heard(term).unwrap_or(since).max(since) + self.times.election;
            tokio::select! {
                biased;
                // Its end is seen by the caller.
                _ = leadership.changed() => break,
                () = sleep_until(heartbeat_at.min(quorum_until)) => {}
            }
            let now = Instant::now();
            if now >= heartbeat_at {
                heartbeat_at = now + beat;
                // Alone, nobody wants them.
                let alone = self.log.configuration().0.is_only_member(self.id);
                if !alone && self.raft.trigger().heartbeat().await.is_err() {
                    break;
                }
                self.transfer.retire_if_not_voter();
            }
            if now >= since + self.times.election && !self.hears_quorum(term) {
                self.transfer.step_down().await;
                break;
            }
        }
    }

    /// Whether a majority of the voters has answered this leader within an election timeout.
    fn hears_quorum(&self, term: Term) -> bool {
        let voters = self.last_heard(term);
        let is_recent = |heard: &&Option<Instant>| heard.is_some_and(|at| at.elapsed() < self.times.election);
        let (heard, voters) = (voters.iter().filter(is_recent).count(), voters.len());
        let is_quorum = heard > voters / 2;
        if !is_quorum {
            warn!(term = term.0, heard, voters, "no quorum answers: leadership ends");
        }
        is_quorum
    }

    /// Since when all of a majority of the voters have answered, the latest such time. `None`: some never did in this term.
    fn quorum_heard(&self, term: Term) -> Option<Instant> {
        let heard = self.last_heard(term);
        heard.get(heard.len() / 2).copied().flatten()
    }

    /// When each voter last answered in this term, the latest first.
    fn last_heard(&self, term: Term) -> Vec<Option<Instant>> {
        let configuration = self.log.configuration().0;
        let heard = |id| if id == self.id { Some(Instant::now()) } else { self.peers.peer(id).heard(term) };
        let mut heard: Vec<_> = configuration.voters().map(|server| heard(server.id)).collect();
        heard.sort_unstable_by_key(|heard| Reverse(*heard));
        heard
    }

    /// Lets openraft tick while nobody is known to lead, or the leader has been silent for a while.
    async fn follow(&self, leadership: &mut watch::Receiver<Leadership>) {
        let mut status = self.status.watch();
        loop {
            let rest = self.may_rest(&status.borrow_and_update());
            self.raft.runtime_config().tick(rest.is_none());
            tokio::select! {
                biased;
                _ = leadership.changed() => break,
                changed = status.changed() => if changed.is_err() { break },
                () = sleep(rest.unwrap_or(self.times.check())) => {}
            }
        }
    }

    /// How long openraft's timers need not be looked at: it has heard of its leader less than an election timeout ago, which
    /// is the least after which it calls for an election.
    fn may_rest(&self, status: &Status) -> Option<Duration> {
        let (leader, _) = status.leader.as_ref()?;
        let told = self.board.told(*leader, status.term)?;
        self.times.rest().checked_sub(told.elapsed()).filter(|rest| !rest.is_zero())
    }
}
