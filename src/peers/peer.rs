//! What this node waits for from one peer. Answers carry no request id (spec: raft-wire 3.4), so they are told apart by
//! what they say: a fence by its impossible index, a vote by its kind and term, a snapshot by its index; all others
//! belong to the replicator. Answers are taken from one connection at a time, so that none is overtaken by a later one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::message::{AppendEntries, AppendEntriesResult, Message, RequestVote, RequestVoteResult};
use crate::types::config::{FENCES_MAX, RESULTS_MAX};
use crate::types::{LogIndex, Term};

/// Smallest index of a fence: no log gets there. openraft-mapping L6.
pub const FENCE_BASE: u64 = 1 << 63;

/// An answer that belongs to the replicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub result: AppendEntriesResult,
    /// Which of the peer's connections it came on; a number that only grows.
    pub connection: u64,
}

struct VoteWaiter {
    request: RequestVote,
    answer: oneshot::Sender<RequestVoteResult>,
}

#[derive(Default)]
struct State {
    fences: BTreeMap<u64, (Term, oneshot::Sender<Answer>)>,
    next_fence: u64,
    votes: Vec<VoteWaiter>,
    snapshot: Option<(LogIndex, Term, oneshot::Sender<AppendEntriesResult>)>,
    /// Term of the replicator that listens, and what it has not looked at.
    listener: Option<(Term, VecDeque<Answer>)>,
    heard: Option<(Term, Instant)>,
    connection: u64,
}

/// One peer.
pub struct Peer {
    state: Mutex<State>,
    /// Counts answers.
    answered: watch::Sender<u64>,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer { state: Mutex::default(), answered: watch::channel(0).0 }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heartbeat that cannot be mistaken for anything else, and its answer. None if too many are unanswered.
    pub fn fence(&self, term: Term) -> Option<(Message, oneshot::Receiver<Answer>)> {
        let mut state = self.lock();
        state.fences.retain(|_, (_, answer)| !answer.is_closed());
        if state.fences.len() >= FENCES_MAX {
            return None;
        }
        let index = FENCE_BASE + state.next_fence;
        state.next_fence += 1;
        let (sender, answer) = oneshot::channel();
        state.fences.insert(index, (term, sender));
        let fence = AppendEntries {
            term,
            previous_index: LogIndex(index),
            previous_term: term,
            commit: LogIndex::NONE,
            entries: Vec::new(),
        };
        Some((Message::AppendEntries(fence), answer))
    }

    /// Waits for the answer to a vote.
    pub fn expect_vote(&self, request: RequestVote) -> oneshot::Receiver<RequestVoteResult> {
        let mut state = self.lock();
        // A later round of the same kind replaces an earlier one.
        state
            .votes
            .retain(|waiter| !waiter.answer.is_closed() && waiter.request.is_pre_vote != request.is_pre_vote);
        let (sender, answer) = oneshot::channel();
        state.votes.push(VoteWaiter { request, answer: sender });
        answer
    }

    /// Waits for the answer to a snapshot that ends at `index`.
    pub fn expect_snapshot(&self, index: LogIndex, term: Term) -> oneshot::Receiver<AppendEntriesResult> {
        let (sender, answer) = oneshot::channel();
        self.lock().snapshot = Some((index, term, sender));
        answer
    }

    /// From now on answers of `term` are kept for the caller, the replicator of that term; earlier ones are dropped.
    /// The counter changes when there is something for `try_next`.
    pub fn listen(&self, term: Term) -> watch::Receiver<u64> {
        self.lock().listener = Some((term, VecDeque::new()));
        self.answered.subscribe()
    }

    /// The next answer for the replicator of `term`; None if another one listens now.
    pub fn try_next(&self, term: Term) -> Option<Answer> {
        let mut state = self.lock();
        let (listening, answers) = state.listener.as_mut()?;
        if *listening == term { answers.pop_front() } else { None }
    }

    /// When an answer of `term` last came.
    pub fn heard(&self, term: Term) -> Option<Instant> {
        self.lock().heard.filter(|(heard, _)| *heard == term).map(|(_, at)| at)
    }

    /// An answer came on a connection. Whether it is of use: answers of connections that a newer one replaced are not.
    pub fn append_result(&self, result: AppendEntriesResult, connection: u64) -> bool {
        let mut state = self.lock();
        if connection < state.connection {
            return false;
        }
        state.connection = connection;
        state.heard = Some((result.term, Instant::now()));
        let answer = Answer { result, connection };
        if result.rejected.0 >= FENCE_BASE {
            if let Some((_, sender)) = state.fences.remove(&result.rejected.0) {
                // Whoever gave up waiting does not want it.
                let _ = sender.send(answer);
            }
            return true;
        }
        if let Some((index, term, sender)) = state.snapshot.take() {
            let concerns = result.rejected == index || result.rejected.0 == 0 && result.last_index >= index;
            if concerns && result.term >= term {
                let _ = sender.send(result);
            } else {
                state.snapshot = Some((index, term, sender));
            }
        }
        if let Some((term, answers)) = state.listener.as_mut()
            && *term == result.term
            && answers.len() < RESULTS_MAX
        {
            answers.push_back(answer);
        }
        drop(state);
        self.answered.send_modify(|count| *count += 1);
        true
    }

    /// An answer to a vote came.
    pub fn vote_result(&self, result: RequestVoteResult) {
        let mut state = self.lock();
        let place = state.votes.iter().position(|waiter| {
            let kind = result.is_pre_vote.is_none_or(|pre_vote| pre_vote == waiter.request.is_pre_vote);
            // Who refuses may say a higher term.
            kind && (result.term == waiter.request.term || !result.granted)
        });
        if let Some(place) = place {
            let _ = state.votes.swap_remove(place).answer.send(result);
        }
    }

    /// Nothing more will come for whoever waits.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.fences.clear();
        state.votes.clear();
        state.snapshot = None;
    }
}

/// Peers and what is known of them, shared.
pub type SharedPeer = Arc<Peer>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    fn result(term: u64, rejected: u64, last: u64) -> AppendEntriesResult {
        AppendEntriesResult { term: Term(term), rejected: LogIndex(rejected), last_index: LogIndex(last) }
    }

    fn vote(term: u64, is_pre_vote: bool) -> RequestVote {
        RequestVote {
            term: Term(term),
            candidate: NodeId(1),
            last_index: LogIndex(3),
            last_term: Term(1),
            disrupts_leader: false,
            is_pre_vote,
        }
    }

    #[tokio::test]
    async fn a_fence_gets_its_own_answer_and_no_other() {
        let peer = Peer::default();
        peer.listen(Term(7));
        let (first, first_answer) = peer.fence(Term(7)).unwrap();
        let (_, mut second_answer) = peer.fence(Term(7)).unwrap();
        let Message::AppendEntries(fence) = first else { panic!() };
        assert_eq!((fence.previous_index.0, fence.commit.0), (FENCE_BASE, 0));

        peer.append_result(result(7, 0, 5), 1);
        peer.append_result(result(7, FENCE_BASE, 41), 1);

        assert_eq!(first_answer.await.unwrap().result.last_index, LogIndex(41));
        assert!(second_answer.try_recv().is_err());
        assert_eq!(peer.try_next(Term(7)).unwrap().result, result(7, 0, 5));
        assert_eq!(peer.try_next(Term(7)), None);
    }

    #[tokio::test]
    async fn answers_of_a_replaced_connection_or_another_term_are_dropped() {
        let peer = Peer::default();
        peer.listen(Term(7));
        assert!(peer.append_result(result(7, 0, 1), 2));
        assert!(!peer.append_result(result(7, 0, 2), 1));
        assert!(peer.append_result(result(6, 0, 3), 2));

        assert_eq!(peer.try_next(Term(7)).unwrap().result, result(7, 0, 1));
        assert_eq!(peer.try_next(Term(7)), None);
        assert!(peer.heard(Term(7)).is_none() && peer.heard(Term(6)).is_some());
    }

    #[tokio::test]
    async fn votes_are_told_apart_by_kind_and_term() {
        let peer = Peer::default();
        let pre = peer.expect_vote(vote(5, true));
        let real = peer.expect_vote(vote(5, false));
        let answer =
            |term, granted, is_pre_vote| RequestVoteResult { term: Term(term), granted, is_pre_vote };

        peer.vote_result(answer(4, true, Some(false)));
        peer.vote_result(answer(5, true, Some(false)));
        peer.vote_result(answer(9, false, Some(true)));

        assert!(real.await.unwrap().granted);
        assert_eq!(pre.await.unwrap().term, Term(9));
    }

    #[tokio::test]
    async fn unanswered_fences_are_bounded_and_abandoned_ones_do_not_count() {
        let peer = Peer::default();
        let waiting: Vec<_> = (0..FENCES_MAX).map(|_| peer.fence(Term(1)).unwrap().1).collect();
        assert!(peer.fence(Term(1)).is_none());
        drop(waiting);
        assert!(peer.fence(Term(1)).is_some());
    }
}
