//! The one queue of proposals over all databases and its way into openraft. What must hold: within an epoch the log has
//! every proposal up to some sequence and none after it (architecture: "No gap in the log").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use openraft::Raft;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{debug, info};

use super::log_store::LogView;
use super::state_machine::{Applied, StateMachine};
use super::status::{Leadership, Serving, StatusBoard};
use super::types::{OutcomeSender, Proposal, TypeConfig};
use crate::types::config::{PROPOSAL_BATCH_BYTES_MAX, PROPOSAL_BATCH_ENTRIES_MAX};
use crate::types::{EntryData, ProposalToken, Term};

/// The page store's side of an epoch.
pub trait EpochHooks: Send + Sync {
    /// Number of the current epoch; never used again once it has ended.
    fn epoch(&self) -> u64;

    /// Ends the current epoch and begins the next: heads are thrown away. Proposals from `refused_from` on are surely
    /// not in the log; those before it may be.
    fn end_epoch(&self, refused_from: Option<u64>);
}

/// Why a proposal was not queued: surely nothing of it reached the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proposal of epoch {epoch} refused: {reason}")]
pub struct Refused {
    /// Epoch it was made in.
    pub epoch: u64,
    /// Why.
    pub reason: RefusedReason,
}

/// Reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// This node takes no proposals.
    #[error("this node is not a serving leader")]
    NotServing,
    /// The version to be proposed exists no longer.
    #[error("the version was discarded")]
    Discarded,
    /// Another epoch has begun.
    #[error("epoch {0} has begun")]
    OtherEpoch(u64),
}

/// An epoch that takes proposals.
#[derive(Clone, Copy, Debug)]
struct OpenEpoch {
    epoch: u64,
    /// Sequence of the next proposal.
    next: u64,
}

#[derive(Debug, Default)]
struct QueueState {
    open: Option<OpenEpoch>,
    /// What waits is not handed on: leadership may be about to move.
    paused: bool,
    waiting: VecDeque<(ProposalToken, EntryData)>,
}

/// The queue; callers bound what they put in.
#[derive(Debug, Default)]
pub(super) struct ProposalQueue {
    state: Mutex<QueueState>,
    filled: Notify,
}

impl ProposalQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a proposal of `epoch` and gives it its place.
    ///
    /// `assign` hears of the place before the proposal can be applied or the epoch can end.
    pub(super) fn propose(
        &self,
        epoch: u64,
        data: EntryData,
        assign: impl FnOnce(ProposalToken) -> bool,
    ) -> Result<ProposalToken, Refused> {
        let mut state = self.lock();
        let Some(open) = state.open.as_mut() else {
            return Err(Refused { epoch, reason: RefusedReason::NotServing });
        };
        if open.epoch != epoch {
            return Err(Refused { epoch, reason: RefusedReason::OtherEpoch(open.epoch) });
        }
        let token = ProposalToken { epoch, sequence: open.next };
        if !assign(token) {
            return Err(Refused { epoch, reason: RefusedReason::Discarded });
        }
        open.next += 1;
        state.waiting.push_back((token, data));
        drop(state);
        self.filled.notify_one();
        Ok(token)
    }

    /// Place of the last proposal that was queued in the open epoch, if any was.
    pub(super) fn last_given_out(&self) -> Option<ProposalToken> {
        let open = self.lock().open?;
        (open.next > 1).then_some(ProposalToken { epoch: open.epoch, sequence: open.next - 1 })
    }

    /// Holds proposals back, or lets them go again; they are taken all the same.
    pub(super) fn pause(&self, paused: bool) {
        self.lock().paused = paused;
        self.filled.notify_one();
    }

    fn open(&self, epoch: u64) {
        self.lock().open = Some(OpenEpoch { epoch, next: 1 });
    }

    /// Closes the epoch: nothing is taken any more. The first sequence after `in_log` that was given out, if any.
    fn close(&self, in_log: u64) -> Option<u64> {
        let mut state = self.lock();
        let open = state.open.take()?;
        state.waiting.clear();
        (open.next > in_log + 1).then_some(in_log + 1)
    }

    /// Takes a batch bounded by count and bytes; at least one proposal if any waits.
    fn take_batch(&self) -> VecDeque<(ProposalToken, EntryData)> {
        let mut state = self.lock();
        if state.paused {
            return VecDeque::new();
        }
        let mut bytes = 0;
        let count = state
            .waiting
            .iter()
            .take(PROPOSAL_BATCH_ENTRIES_MAX)
            .take_while(|(_, data)| {
                bytes += data.len();
                bytes <= PROPOSAL_BATCH_BYTES_MAX
            })
            .count()
            .max(1)
            .min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    fn put_back(&self, batch: VecDeque<(ProposalToken, EntryData)>) {
        let mut state = self.lock();
        for proposal in batch.into_iter().rev() {
            state.waiting.push_front(proposal);
        }
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
pub(super) struct Proposer {
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) queue: Arc<ProposalQueue>,
    pub(super) hooks: Arc<dyn EpochHooks>,
    pub(super) log: LogView,
    pub(super) applied: watch::Receiver<Applied>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) status: StatusBoard,
}

impl Proposer {
    /// Runs until openraft has stopped or `leadership` says that it failed.
    pub(super) async fn run(mut self) {
        while let Some(term) = self.wait_to_serve().await {
            let epoch = self.hooks.epoch();
            self.queue.open(epoch);
            self.status.set_serving(Some(Serving { term, epoch }));
            info!(term = term.0, epoch, "serving");

            self.serve(term, epoch).await;

            self.status.set_serving(None);
            let in_log = (*self.log.appended().borrow())
                .filter(|token| token.epoch == epoch)
                .map_or(0, |token| token.sequence);
            let refused_from = self.queue.close(in_log);
            info!(term = term.0, epoch, refused_from, "epoch ended");
            self.hooks.end_epoch(refused_from);
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

    /// Hands on proposals until the epoch has to end.
    async fn serve(&mut self, term: Term, epoch: u64) {
        loop {
            if *self.leadership.borrow_and_update() != Leadership::Leading(term) {
                return;
            }
            let batch = self.queue.take_batch();
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    changed = self.leadership.changed() => if changed.is_err() { return },
                    () = self.queue.filled.notified() => {}
                }
                continue;
            }
            if let Outcome::Ended = self.hand_on(term, epoch, batch).await {
                return;
            }
        }
    }

    /// Hands a batch to openraft without a pause, so that it takes all or nothing, and waits until the log has it.
    async fn hand_on(
        &mut self,
        term: Term,
        epoch: u64,
        mut batch: VecDeque<(ProposalToken, EntryData)>,
    ) -> Outcome {
        let mut last = None;
        while let Some((token, data)) = batch.pop_front() {
            let (sender, outcome) = oneshot::channel();
            let write = self
                .raft
                .write(Proposal { data: data.clone(), token: Some(token) })
                .with_leader(term.0)
                .responder(OutcomeSender(sender));
            match tokio::task::unconstrained(write.into_future()).now_or_never() {
                Some(Ok(())) => last = Some((token, outcome)),
                Some(Err(_)) => return Outcome::Ended,
                None => {
                    // openraft's channel is full: the rest goes with the next batch.
                    batch.push_front((token, data));
                    break;
                }
            }
        }
        self.queue.put_back(batch);
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
    // A task that is dropped with its runtime must not leave the queue open.
    fn drop(&mut self) {
        self.status.set_serving(None);
        self.queue.close(u64::MAX - 1);
    }
}
