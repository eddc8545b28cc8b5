//! What this node answers to candidates and to a leader that hands over, and how it learns of later terms. spec: raft-wire 6.

use futures_util::future::BoxFuture;
use openraft::Vote;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tracing::{debug, info, warn};

use super::adoption::{adopt, unbeatable};
use super::board::LeaderBoard;
use super::question::Question;
use super::standing::Standing;
use super::table::{Ballot, Because, Verdict};
use super::terms::{Claim, Terms};
use crate::peers::message::{RequestVote, RequestVoteResult, TimeoutNow};
use crate::peers::{FENCE_BASE, Sender};
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::raft::types::{LeaderId, Scope, log_id};
use crate::types::{NodeId, Term};

/// Answers them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Voter {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) question: Question,
    pub(crate) scope: Scope,
}

impl Voter {
    /// The answer to a candidate, none to one that cannot be.
    pub(crate) fn answer(
        &self,
        from: &Sender,
        message: RequestVote,
    ) -> BoxFuture<'static, Option<RequestVoteResult>> {
        let impossible = message.candidate.0 == 0 || message.candidate == self.id;
        if impossible || message.last_term > message.term || message.last_index.0 >= FENCE_BASE {
            warn!(peer = from.id.0, ?message, "a vote that nobody can ask for");
            return Box::pin(std::future::ready(None));
        }
        Box::pin(self.clone().vote(message))
    }

    async fn vote(self, request: RequestVote) -> Option<RequestVoteResult> {
        let answer =
            |term, granted| Some(RequestVoteResult { term, granted, is_pre_vote: Some(request.is_pre_vote) });
        if request.term > Terms::of(&self.log).own() && self.board.resigns(request.candidate) {
            info!(leader = request.candidate.0, "the leader asks for votes: it leads no more");
        }
        let mut verdict = self.judge(&request);
        if verdict == Verdict::AskLeader {
            self.question.ask().await;
            verdict = self.judge(&request);
        }
        let own = Terms::of(&self.log).own();
        if verdict != Verdict::Grant {
            debug!(candidate = request.candidate.0, term = request.term.0, ?verdict, "no vote");
            self.teach(&request, verdict);
            return answer(if request.is_pre_vote { request.term.max(own) } else { own }, false);
        }
        if request.is_pre_vote {
            self.board.yields();
            return answer(request.term, true);
        }
        self.log.take_up(request.term);
        let call = VoteRequest {
            vote: Vote::new(request.term.0, request.candidate.0),
            last_log_id: unbeatable(&self.log, request.term),
            // The table has decided: openraft has but to refuse the second vote in a term.
            leadership_transfer: true,
        };
        let response = self.raft.vote(call).await.ok()?;
        let LeaderId { term, voted_for } = response.vote.leader_id;
        let granted = response.vote_granted && (term, voted_for) == (request.term.0, request.candidate.0);
        if granted {
            // A leader that is voted away from is not waited for.
            self.board.voted(Term(term));
        }
        answer(Term(term), granted)
    }

    fn judge(&self, request: &RequestVote) -> Verdict {
        let (index, stored) = self.log.last_for_vote(self.id);
        let (theirs, own) = ((request.last_term, request.last_index), (stored, index));
        let own_comes_first = self.board.candidacy().is_some_and(|candidacy| {
            candidacy > theirs || candidacy == theirs && self.id < request.candidate
        });
        self.standing.vote(&Ballot {
            is_pre_vote: request.is_pre_vote,
            // A leader hands over to a member alone.
            disrupts_leader: request.disrupts_leader
                && self.log.configuration().0.get(request.candidate).is_some(),
            is_past: request.term < Terms::of(&self.log).own(),
            log_is_behind: theirs < own,
            own_comes_first,
        })
    }

    /// A voter with a later term and a shorter log would keep this node from being elected, and could not be elected itself.
    fn teach(&self, request: &RequestVote, verdict: Verdict) {
        let behind_it = Term(request.term.0.saturating_sub(1));
        let teaches = request.is_pre_vote
            && verdict == Verdict::Refuse(Because::LogBehind)
            && self.log.configuration().0.is_voter(request.candidate)
            && self.board.is_leaderless()
            && Terms::of(&self.log).compare(behind_it) == Claim::Later;
        if teaches {
            self.learn(behind_it);
        }
    }

    /// A leader hands over.
    pub(crate) fn timeout_now(&self, from: &Sender, message: TimeoutNow) {
        let (index, stored, rank) = self.log.last();
        let ready = self.standing.hindrance().is_none()
            && self.board.is_leader(from.id)
            && Terms::of(&self.log).compare(message.term) == Claim::Own
            && (message.last_index, message.last_term) == (index, stored);
        if !ready {
            info!(peer = from.id.0, ?message, last = index.0, "not ready to take over leadership");
            return;
        }
        let vote = Vote::new_committed(message.term.0, self.board.label_of(from.id, message.term).0);
        let request = TransferLeaderRequest::new(vote, self.id.0, log_id(rank, index));
        let raft = self.raft.clone();
        self.scope.spawn(async move {
            info!("taking over leadership");
            if let Err(error) = raft.handle_transfer_leader(request).await {
                warn!(%error, "leadership was not taken over");
            }
        });
    }

    /// Somebody answers in this term: if a member does and it is later, it is adopted, without a vote in it.
    pub(crate) fn answered(&self, from: &Sender, term: Term) {
        let is_member = self.log.configuration().0.get(from.id).is_some();
        if is_member && Terms::of(&self.log).compare(term) == Claim::Later {
            self.learn(term);
        }
    }

    fn learn(&self, term: Term) {
        let adoption = adopt(&self.raft, &self.log, term);
        // A stopped openraft has nothing to learn.
        self.scope.spawn(async move { drop(adoption.await) });
    }
}
