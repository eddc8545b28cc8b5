//! The one queue of proposals over all databases, and their places in an epoch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::merge::{Proposed, Waiting, merged};
use crate::types::config::PROPOSAL_BATCH_BYTES_MAX;
use crate::types::{ProposalRange, ProposalToken};

/// A proposal was not queued: surely nothing of it reached the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proposal of epoch {epoch} refused: the epoch is over, or the version was discarded")]
pub struct Refused {
    /// Epoch it was made in.
    pub epoch: u64,
}

/// An epoch that takes proposals.
#[derive(Clone, Copy, Debug)]
struct OpenEpoch {
    epoch: u64,
    /// Sequence of the next proposal.
    next: u64,
    /// Sequence of the last proposal that was taken to be handed on.
    taken: u64,
}

/// An epoch that takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedEpoch {
    pub(super) epoch: u64,
    /// The first proposal that is surely not in the log, if there is one.
    pub(super) refused_from: Option<u64>,
}

/// What became of the proposals that were handed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum HandedOn {
    /// Those up to this sequence are in the log, and no other.
    InLogUpTo(u64),
    /// They may come to be in the log.
    Unknown,
}

#[derive(Debug, Default)]
struct QueueState {
    open: Option<OpenEpoch>,
    /// What waits is not handed on: leadership may be about to move.
    paused: bool,
    /// No further epoch is opened: the node stops.
    shut: bool,
    waiting: VecDeque<Waiting>,
    /// How many must wait before anybody is told.
    wanted: usize,
}

/// The queue; callers bound what they put in.
#[derive(Debug, Default)]
pub(crate) struct ProposalQueue {
    state: Mutex<QueueState>,
    /// Enough proposals wait, or the epoch was closed.
    pub(super) filled: Notify,
}

/// While it is there, proposals are taken and not handed on.
#[derive(Debug)]
pub(crate) struct Paused(Arc<ProposalQueue>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.lock().paused = false;
        self.0.filled.notify_one();
    }
}

impl ProposalQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a proposal of `epoch` and gives it its place.
    ///
    /// `assign` hears of the place before the proposal can be applied or the epoch can end.
    pub(crate) fn propose(
        &self,
        epoch: u64,
        proposed: Proposed,
        assign: impl FnOnce(ProposalToken) -> bool,
    ) -> Result<ProposalToken, Refused> {
        let mut state = self.lock();
        let Some(open) = state.open.as_mut().filter(|open| open.epoch == epoch) else {
            return Err(Refused { epoch });
        };
        let token = ProposalToken { epoch, sequence: open.next };
        if !assign(token) {
            return Err(Refused { epoch });
        }
        open.next += 1;
        state.waiting.push_back(Waiting { proposals: ProposalRange::of(token), proposed });
        let enough = state.waiting.len() >= state.wanted;
        drop(state);
        if enough {
            self.filled.notify_one();
        }
        Ok(token)
    }

    /// Place of the last proposal that was queued in the open epoch, if any was.
    pub(crate) fn last_given_out(&self) -> Option<ProposalToken> {
        let open = self.lock().open?;
        (open.next > 1).then_some(ProposalToken { epoch: open.epoch, sequence: open.next - 1 })
    }

    /// Holds proposals back, unless somebody does already.
    pub(crate) fn pause(self: &Arc<Self>) -> Option<Paused> {
        let paused = std::mem::replace(&mut self.lock().paused, true);
        (!paused).then(|| Paused(Arc::clone(self)))
    }

    /// Whether proposals are held back.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// From now on `filled` tells when so many wait, or the first. How many do; none once the epoch is closed.
    pub(super) fn want(&self, proposals: usize) -> Option<usize> {
        let mut state = self.lock();
        state.open?;
        let waiting = state.waiting.len();
        state.wanted = if waiting == 0 { 1 } else { proposals };
        Some(waiting)
    }

    /// Takes proposals of this epoch from now on; false if none are taken any more.
    pub(super) fn open(&self, epoch: u64) -> bool {
        let mut state = self.lock();
        if !state.shut {
            state.open = Some(OpenEpoch { epoch, next: 1, taken: 0 });
        }
        !state.shut
    }

    /// Closes the epoch, if one is open: nothing is taken any more. `tell` hears of it before anybody is refused: whoever is
    /// would else end the epoch of the pages first, without knowing what became of the others.
    pub(super) fn close(&self, handed_on: HandedOn, tell: impl FnOnce(ClosedEpoch)) {
        let mut state = self.lock();
        if let Some(closed) = state.close(handed_on) {
            tell(closed);
        }
    }

    /// Closes the epoch as `close` does, and opens no other.
    pub(super) fn shut(&self, tell: impl FnOnce(ClosedEpoch)) {
        let mut state = self.lock();
        state.shut = true;
        if let Some(closed) = state.close(HandedOn::Unknown) {
            tell(closed);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes a batch bounded by count and bytes; at least one proposal if any waits.
    pub(super) fn take_batch(&self) -> VecDeque<Waiting> {
        let mut state = self.lock();
        if state.paused {
            return VecDeque::new();
        }
        let mut bytes = 0;
        let count = state
            .waiting
            .iter()
            .take_while(|waiting| {
                bytes += waiting.proposed.data.len();
                bytes <= PROPOSAL_BATCH_BYTES_MAX
            })
            .count()
            .max(1)
            .min(state.waiting.len());
        let taken: Vec<Waiting> = state.waiting.drain(..count).collect();
        if let (Some(open), Some(last)) = (state.open.as_mut(), taken.last()) {
            open.taken = last.proposals.last;
        }
        drop(state);
        merged(&taken)
    }

    /// Takes back what was not handed on.
    pub(super) fn put_back(&self, batch: VecDeque<Waiting>) {
        let mut state = self.lock();
        let (Some(open), Some(first)) = (state.open.as_mut(), batch.front()) else { return };
        open.taken = first.proposals.first - 1;
        for waiting in batch.into_iter().rev() {
            state.waiting.push_front(waiting);
        }
    }
}

impl QueueState {
    fn close(&mut self, handed_on: HandedOn) -> Option<ClosedEpoch> {
        let open = self.open.take()?;
        self.waiting.clear();
        let last = match handed_on {
            HandedOn::InLogUpTo(sequence) => sequence,
            HandedOn::Unknown => open.taken,
        };
        Some(ClosedEpoch { epoch: open.epoch, refused_from: (open.next > last + 1).then_some(last + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageRef;
    use crate::state_machine::frames;
    use crate::types::PageNumber;
    use crate::types::config::PAGE_SIZE;

    const EPOCH: u64 = 3;

    fn transaction(name: &[u8], number: u32, merges: bool) -> Proposed {
        let page = PageRef::new(&[number as u8; PAGE_SIZE]);
        Proposed { data: frames::encode_frames(name, &[(PageNumber(number), page)]), merges }
    }

    fn queue(proposals: impl IntoIterator<Item = Proposed>) -> ProposalQueue {
        let queue = ProposalQueue::default();
        assert!(queue.open(EPOCH));
        for proposed in proposals {
            queue.propose(EPOCH, proposed, |_| true).unwrap();
        }
        queue
    }

    fn ranges(batch: &VecDeque<Waiting>) -> Vec<(u64, u64)> {
        batch.iter().map(|waiting| (waiting.proposals.first, waiting.proposals.last)).collect()
    }

    #[test]
    fn neighbours_of_one_database_share_an_entry_unless_one_makes_it_smaller() {
        let plain = |name: &[u8], number| transaction(name, number, true);
        let queue = queue([
            plain(b"a", 2),
            plain(b"a", 3),
            plain(b"b", 2),
            plain(b"a", 4),
            transaction(b"a", 1, false),
            plain(b"a", 5),
            plain(b"a", 5),
            plain(b"a", 6),
        ]);

        let batch = queue.take_batch();

        assert_eq!(ranges(&batch), [(1, 2), (3, 3), (4, 4), (5, 5), (6, 8)]);
        let pages: Vec<usize> =
            batch.iter().map(|waiting| waiting.proposed.data.chunks().len() - 1).collect();
        assert_eq!(pages, [2, 1, 1, 1, 2]);
    }

    #[test]
    fn whoever_is_told_of_the_end_of_an_epoch_hears_of_it_before_a_proposal_is_refused() {
        let closed = |refused_from| ClosedEpoch { epoch: EPOCH, refused_from };
        for (shuts, taken, handed_on, refused_from) in [
            (false, 0, HandedOn::Unknown, Some(1)),
            (false, 2, HandedOn::Unknown, None),
            (false, 2, HandedOn::InLogUpTo(1), Some(2)),
            (true, 0, HandedOn::Unknown, Some(1)),
            (true, 2, HandedOn::Unknown, None),
        ] {
            let queue = queue([transaction(b"a", 2, true), transaction(b"b", 2, true)]);
            if taken > 0 {
                queue.take_batch();
            }
            let mut told = Vec::new();
            let mut tell = |closed| {
                assert!(queue.state.try_lock().is_err(), "somebody may be refused");
                told.push(closed);
            };
            if shuts {
                queue.shut(&mut tell)
            } else {
                queue.close(handed_on, &mut tell)
            }
            // It ends once.
            queue.close(handed_on, &mut tell);
            assert_eq!(told, [closed(refused_from)], "{shuts} {taken} {handed_on:?}");
            assert!(queue.propose(EPOCH, transaction(b"a", 2, true), |_| true).is_err());
            assert_eq!(queue.open(EPOCH + 1), !shuts);
        }
    }

    #[test]
    fn what_is_put_back_comes_first_and_is_merged_with_what_followed() {
        let queue =
            queue([transaction(b"a", 2, true), transaction(b"a", 3, true), transaction(b"b", 2, true)]);
        let batch = queue.take_batch();
        queue.put_back(batch);
        queue.propose(EPOCH, transaction(b"b", 3, true), |_| true).unwrap();

        assert_eq!(ranges(&queue.take_batch()), [(1, 2), (3, 4)]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_before_it_is_merged() {
        let transactions = PROPOSAL_BATCH_BYTES_MAX / PAGE_SIZE + 10;
        let queue = queue((0..transactions).map(|_| transaction(b"a", 2, true)));

        let batch = queue.take_batch();

        let last = batch[0].proposals.last as usize;
        assert!(batch.len() == 1 && last < transactions && last > transactions * 9 / 10, "{last}");
        assert_eq!(queue.take_batch().len(), 1);
        assert!(queue.take_batch().is_empty());
    }
}
