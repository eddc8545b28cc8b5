//! What this node waits for from one peer. Answers carry no request id (spec: raft-wire 3.4), so they are told apart by
//! what they say: a fence by its impossible index, a vote by its kind and term, a snapshot by its index; all others
//! belong to the replicator. Those are taken from the connection that speaks for the peer (`limits/speakers.rs`), so that none is
//! overtaken by a later one and nobody else answers in the peer's name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::limits::speakers::FENCE_BASE;
use super::limits::{Echo, Speaker};
use super::message::{AppendEntries, AppendEntriesResult, Message, RequestVote, RequestVoteResult};
use crate::types::config::{FENCE_TO_CONNECTION_PAUSE, FENCES_MAX, RESULTS_MAX};
use crate::types::fault::{self, Fault};
use crate::types::random::RandomSource;
use crate::types::{LogIndex, Term};

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
    speaker: Speaker,
    /// Who waits for the answer to which fence.
    fences: BTreeMap<LogIndex, oneshot::Sender<Answer>>,
    /// When a new connection was last asked whether it is the peer's.
    asked: Option<Instant>,
    votes: Vec<VoteWaiter>,
    snapshot: Option<(LogIndex, Term, oneshot::Sender<AppendEntriesResult>)>,
    /// Term of the replicator that listens, and what it has not looked at.
    listener: Option<(Term, VecDeque<Answer>)>,
    heard: Option<(Term, Instant)>,
}

/// One peer.
pub struct Peer {
    state: Mutex<State>,
    /// Counts answers, and changes of who speaks.
    answered: watch::Sender<u64>,
    random: Arc<RandomSource>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    /// Nothing is known of it.
    #[must_use]
    pub fn new(random: Arc<RandomSource>) -> Peer {
        Peer { state: Mutex::default(), answered: watch::channel(0).0, random }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heartbeat that cannot be mistaken for anything else, and its answer. None if too many are unanswered.
    pub fn fence(&self, term: Term) -> Option<(Message, oneshot::Receiver<Answer>)> {
        let mut state = self.lock();
        state.fences.retain(|_, answer| !answer.is_closed());
        if state.fences.len() >= FENCES_MAX {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let (index, message) = self.next_fence(&mut state, term);
        state.fences.insert(index, sender);
        Some((message, answer))
    }

    /// The same for a peer that has made a new connection, which is to speak as soon as it is known to be the peer's. None if
    /// another one was made just now: then the next heartbeat tells.
    pub fn fence_to_connection(&self, term: Term) -> Option<Message> {
        let mut state = self.lock();
        if state.asked.is_some_and(|asked| asked.elapsed() < FENCE_TO_CONNECTION_PAUSE) {
            return None;
        }
        state.asked = Some(Instant::now());
        Some(self.next_fence(&mut state, term).1)
    }

    fn next_fence(&self, state: &mut State, term: Term) -> (LogIndex, Message) {
        // Its upper half.
        let random = (self.random.next_u64() >> 32) as u32;
        let index = state.speaker.fence(term, random);
        let fence = AppendEntries {
            term,
            previous_index: index,
            previous_term: term,
            commit: LogIndex::NONE,
            entries: Vec::new(),
        };
        (index, Message::AppendEntries(fence))
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

    /// When the peer last showed that it is in `term`.
    pub fn heard(&self, term: Term) -> Option<Instant> {
        self.lock().heard.filter(|(heard, _)| *heard == term).map(|(_, at)| at)
    }

    /// The connection on which the peer's answers of `term` come.
    pub fn speaks_in(&self, term: Term) -> Option<u64> {
        self.lock().speaker.speaks_in(term)
    }

    /// Whether the peer's answers come on this connection.
    pub fn speaks_on(&self, connection: u64) -> bool {
        self.lock().speaker.connection() == Some(connection)
    }

    /// A connection has ended.
    pub fn connection_ended(&self, connection: u64) {
        let mut state = self.lock();
        let spoke = state.speaker.connection() == Some(connection);
        state.speaker.ended(connection);
        drop(state);
        if spoke {
            self.answered.send_modify(|count| *count += 1);
        }
    }

    /// An answer came on a connection. Whether it is the peer's: others say nothing.
    pub fn append_result(&self, result: AppendEntriesResult, connection: u64) -> bool {
        let mut state = self.lock();
        if fault::is_planted(Fault::NewestSilences) && !state.speaker.newest_speaks(connection) {
            return false;
        }
        if result.rejected.0 >= FENCE_BASE {
            return self.fence_result(state, result, connection);
        }
        let Some(term) = state.speaker.hears(connection).filter(|term| result.term >= *term) else {
            return false;
        };
        if result.term == term {
            state.heard = Some((term, Instant::now()));
        }
        if let Some((index, term, sender)) = state.snapshot.take() {
            let concerns = result.rejected == index || result.rejected.0 == 0 && result.last_index >= index;
            if concerns && result.term >= term {
                // Whoever gave up waiting does not want it.
                let _ = sender.send(result);
            } else {
                state.snapshot = Some((index, term, sender));
            }
        }
        if let Some((term, answers)) = state.listener.as_mut()
            && *term == result.term
            && answers.len() < RESULTS_MAX
        {
            answers.push_back(Answer { result, connection });
        }
        drop(state);
        self.answered.send_modify(|count| *count += 1);
        true
    }

    fn fence_result(
        &self,
        mut state: MutexGuard<'_, State>,
        result: AppendEntriesResult,
        connection: u64,
    ) -> bool {
        let spoke = state.speaker.connection();
        let echo = state.speaker.echoed(result.rejected, result.term, connection);
        if echo == Echo::Nothing {
            return false;
        }
        if echo == Echo::Counts {
            state.heard = Some((result.term, Instant::now()));
        }
        if let Some(sender) = state.fences.remove(&result.rejected) {
            // As above.
            let _ = sender.send(Answer { result, connection });
        }
        let has_moved = state.speaker.connection() != spoke;
        drop(state);
        if has_moved {
            self.answered.send_modify(|count| *count += 1);
        }
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

    fn peer() -> Peer {
        Peer::new(Arc::new(RandomSource::from_seed(1)))
    }

    fn index(fence: &Message) -> u64 {
        let Message::AppendEntries(fence) = fence else { panic!("{fence:?}") };
        assert_eq!(fence.commit.0, 0);
        fence.previous_index.0
    }

    #[tokio::test]
    async fn a_fence_gets_its_own_answer_and_no_other() {
        let peer = peer();
        peer.listen(Term(7));
        let (first, first_answer) = peer.fence(Term(7)).unwrap();
        let (_, mut second_answer) = peer.fence(Term(7)).unwrap();

        assert!(!peer.append_result(result(7, 0, 4), 1), "nobody speaks");
        assert!(!peer.append_result(result(7, FENCE_BASE, 41), 1), "a guess");
        assert!(peer.append_result(result(7, index(&first), 41), 1));
        assert!(peer.append_result(result(7, 0, 5), 1));

        assert_eq!(first_answer.await.unwrap().result.last_index, LogIndex(41));
        assert!(second_answer.try_recv().is_err());
        assert_eq!(peer.try_next(Term(7)).unwrap().result, result(7, 0, 5));
        assert_eq!(peer.try_next(Term(7)), None);
    }

    #[tokio::test]
    async fn answers_of_another_connection_or_another_term_are_dropped() {
        let peer = peer();
        let mut changes = peer.listen(Term(7));
        let (fence, _) = peer.fence(Term(7)).unwrap();
        assert!(peer.append_result(result(7, index(&fence), 0), 2));
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();

        assert!(peer.append_result(result(7, 0, 1), 2));
        assert!(!peer.append_result(result(7, 0, 2), 1));
        assert!(!peer.append_result(result(7, 0, 2), 3), "newer, and anybody's");
        assert!(!peer.append_result(result(6, 0, 3), 2));
        assert!(peer.append_result(result(8, 0, 3), 2), "it is told");

        assert_eq!(peer.try_next(Term(7)).unwrap().result, result(7, 0, 1));
        assert_eq!(peer.try_next(Term(7)), None);
        assert!(peer.heard(Term(7)).is_some() && peer.heard(Term(8)).is_none());
        assert_eq!((peer.speaks_in(Term(7)), peer.speaks_in(Term(8))), (Some(2), None));

        changes.borrow_and_update();
        peer.connection_ended(2);
        assert!(changes.has_changed().unwrap(), "the replicator is told");
        assert!(!peer.append_result(result(7, 0, 9), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_are_asked_at_once_but_not_each_of_a_flood() {
        let peer = peer();
        let fence = peer.fence_to_connection(Term(7)).unwrap();
        assert!(peer.fence_to_connection(Term(7)).is_none());
        tokio::time::advance(FENCE_TO_CONNECTION_PAUSE).await;
        assert!(peer.fence_to_connection(Term(7)).is_some());

        assert!(peer.append_result(result(7, index(&fence), 3), 5));
        assert!(peer.speaks_on(5));
    }

    #[tokio::test]
    async fn votes_are_told_apart_by_kind_and_term() {
        let peer = peer();
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
        let peer = peer();
        let waiting: Vec<_> = (0..FENCES_MAX).map(|_| peer.fence(Term(1)).unwrap().1).collect();
        assert!(peer.fence(Term(1)).is_none());
        drop(waiting);
        assert!(peer.fence(Term(1)).is_some());
    }
}
