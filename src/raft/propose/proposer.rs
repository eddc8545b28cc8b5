//! The way of proposals from their queue into openraft, epoch after epoch. What must hold: within an epoch the log has
//! every proposal up to some sequence and none after it (architecture: "No gap in the log").

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use super::merge::Waiting;
use super::queue::{ClosedEpoch, HandedOn, ProposalQueue};
use crate::raft::apply::{Applied, Consensus};
use crate::raft::log::{LogPhase, LogView};
use crate::raft::types::{LateTimer, Leadership, OutcomeSender, Proposal, Serving, StatusBoard};
use crate::types::Term;
use crate::types::config::{GATHER_MAX, PROPOSAL_BATCH_ENTRIES_MAX, UNFLUSHED_MAX_BYTES};

/// The page store's side of an epoch.
pub trait EpochHooks: Send + Sync {
    /// Changes whenever an epoch has ended, whoever ended it. The number of one that has ended is never used again.
    fn watch_epoch(&self) -> watch::Receiver<u64>;

    /// Ends this epoch, unless it has ended, and begins the next: heads are thrown away. Proposals from `refused_from` on are
    /// surely not in the log; those before it may be. Called under the lock of the proposals' queue.
    fn end_this_epoch(&self, epoch: u64, refused_from: Option<u64>);
}

/// Where every epoch of this node's proposals ends.
#[derive(Clone)]
pub(crate) struct EpochEnd {
    pub(crate) queue: Arc<ProposalQueue>,
    pub(crate) hooks: Arc<dyn EpochHooks>,
    pub(crate) status: StatusBoard,
}

impl EpochEnd {
    fn end(&self, handed_on: HandedOn) {
        self.status.set_serving(None);
        self.queue.close(handed_on, |closed| self.tell(closed));
    }

    /// Ends the epoch, and no other begins: from here on no proposal is accepted.
    pub(crate) fn end_for_good(&self) {
        self.status.set_serving(None);
        self.queue.shut(|closed| self.tell(closed));
    }

    /// The page store may have ended it by itself.
    fn tell(&self, ClosedEpoch { epoch, refused_from }: ClosedEpoch) {
        info!(epoch, refused_from, "epoch ended");
        self.hooks.end_this_epoch(epoch, refused_from);
    }
}

/// How a batch ended.
enum Outcome {
    /// All that was handed on is in the log.
    InLog,
    /// It was refused, or openraft has stopped: the epoch ends.
    Ended,
}

/// Hands the queue to openraft, epoch after epoch.
pub(crate) struct Proposer {
    pub(crate) raft: Consensus,
    pub(crate) epochs: EpochEnd,
    pub(crate) log: LogView,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Proposer {
    /// Runs until openraft has stopped, `leadership` says that it failed, or the last epoch was ended.
    pub(crate) async fn run(mut self) {
        while let Some(term) = self.wait_to_serve().await {
            let current = self.epochs.hooks.watch_epoch();
            let epoch = *current.borrow();
            if !self.epochs.queue.open(epoch) {
                return;
            }
            self.epochs.status.set_serving(Some(Serving { term, epoch }));
            info!(term = term.0, epoch, "serving");

            self.serve(term, epoch, current).await;

            let in_log = (*self.log.appended().borrow())
                .filter(|token| token.epoch == epoch)
                .map_or(0, |token| token.sequence);
            self.epochs.end(HandedOn::InLogUpTo(in_log));
        }
    }

    /// Waits until this node leads and has applied an entry of its term and everything in its log.
    async fn wait_to_serve(&mut self) -> Option<Term> {
        loop {
            let leadership = self.leadership.borrow_and_update().clone();
            if leadership == Leadership::Stopped {
                return None;
            }
            let applied = *self.applied.borrow_and_update();
            if let Leadership::Leading(term) = leadership
                && applied.term == term
                && applied.index >= self.log.last_index()
            {
                return Some(term);
            }
            tokio::select! {
                biased;
                changed = self.leadership.changed() => changed.ok()?,
                changed = self.applied.changed() => changed.ok()?,
            }
        }
    }

    /// Hands on proposals until the epoch has to end, or has been ended.
    async fn serve(&mut self, term: Term, epoch: u64, mut current: watch::Receiver<u64>) {
        let mut phase = self.log.phase();
        let queue = Arc::clone(&self.epochs.queue);
        let (mut waits, mut late) = (None::<Instant>, LateTimer::default());
        loop {
            let leads = *self.leadership.borrow_and_update() == Leadership::Leading(term);
            if !leads || *current.borrow_and_update() != epoch {
                return;
            }
            // The log could do nothing with them yet, or not do it well: what comes meanwhile goes together. One that has
            // ended refuses all; what it does matters only while something waits.
            let log_lives = phase.has_changed().is_ok();
            let does = if log_lives { *phase.borrow_and_update() } else { LogPhase::Idle };
            let may_go_ahead = does == LogPhase::Busy && self.others_may_go_ahead();
            // Whatever the own disk does: what has waited long enough goes to the others.
            let is_over = may_go_ahead && waits.is_some_and(|until| until <= Instant::now());
            let wants = if is_over { LogPhase::Idle.wants() } else { does.wants() };
            let Some(waiting) = queue.want(wants) else { return };
            let batch = if waiting >= wants { queue.take_batch() } else { VecDeque::new() };
            if batch.is_empty() {
                waits = (waiting > 0).then(|| waits.unwrap_or_else(|| Instant::now() + GATHER_MAX));
                let gathered = waits.filter(|_| may_go_ahead && !is_over);
                tokio::select! {
                    biased;
                    changed = self.leadership.changed() => if changed.is_err() { return },
                    changed = current.changed() => if changed.is_err() { return },
                    _ = phase.changed(), if waiting > 0 && log_lives => {}
                    () = queue.filled.notified() => {}
                    () = late.until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => {}
                }
                continue;
            }
            waits = None;
            if let Outcome::Ended = self.hand_on(term, epoch, batch).await {
                return;
            }
        }
    }

    /// Whether others can store what this node's disk has not: it is not alone, and they are not far ahead of it yet.
    fn others_may_go_ahead(&self) -> bool {
        self.log.unflushed_bytes() < UNFLUSHED_MAX_BYTES && self.log.configuration().0.majority() > 1
    }

    /// Hands a batch to openraft without a pause, so that it takes all or nothing, and waits until the log has it.
    async fn hand_on(&mut self, term: Term, epoch: u64, mut batch: VecDeque<Waiting>) -> Outcome {
        let mut last = None;
        for _ in 0..PROPOSAL_BATCH_ENTRIES_MAX {
            let Some(waiting) = batch.pop_front() else { break };
            let (proposals, token) = (Some(waiting.proposals), waiting.proposals.last_token());
            let (sender, outcome) = oneshot::channel();
            let write = self
                .raft
                .write(Proposal { data: waiting.proposed.data.clone(), proposals })
                .with_leader(term.0)
                .responder(OutcomeSender(sender));
            match tokio::task::unconstrained(write.into_future()).now_or_never() {
                Some(Ok(())) => last = Some((token, outcome)),
                Some(Err(_)) => return Outcome::Ended,
                None => {
                    // openraft's channel is full: the rest goes with the next batch.
                    batch.push_front(waiting);
                    break;
                }
            }
        }
        self.epochs.queue.put_back(batch);
        let Some((last, mut outcome)) = last else {
            tokio::task::yield_now().await;
            return Outcome::InLog;
        };
        let mut appended = self.log.appended();
        tokio::select! {
            biased;
            reached = appended.wait_for(|token| token.is_some_and(|token| token >= last)) => {
                if reached.is_ok() { Outcome::InLog } else { Outcome::Ended }
            }
            answer = &mut outcome => match answer {
                Ok(Ok(_)) => Outcome::InLog,
                Ok(Err(refusal)) => {
                    debug!(term = term.0, epoch, sequence = last.sequence, %refusal, "batch refused");
                    Outcome::Ended
                }
                Err(_) => Outcome::Ended,
            },
        }
    }
}

impl Drop for Proposer {
    // A task that panics or is dropped with its runtime must not leave anybody waiting. openraft may still take what it was
    // handed.
    fn drop(&mut self) {
        self.epochs.end(HandedOn::Unknown);
    }
}
