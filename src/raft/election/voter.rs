//! What this node answers to candidates and to a leader that hands over, and how it learns of later terms. spec: raft-wire 6.

use futures_util::future::BoxFuture;
use openraft::Vote;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tracing::{debug, info, warn};

use super::board::LeaderBoard;
use super::standing::Standing;
use super::terms::{Claim, Terms};
use crate::peers::message::{RequestVote, RequestVoteResult, TimeoutNow};
use crate::peers::{FENCE_BASE, Sender};
use crate::raft::apply::Consensus;
use crate::raft::log::LogView;
use crate::raft::replication::term_only;
use crate::raft::types::{LeaderId, RaftLogId, Scope, log_id};
use crate::types::{LogIndex, NodeId, Role, Term};

/// Answers them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Voter {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
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

    fn is_voter(&self) -> bool {
        self.log.configuration().0.get(self.id).is_some_and(|server| server.role == Role::Voter)
    }

    /// What openraft is to compare with its own last log id: terms are compared as they are stored.
    fn candidate_log(&self, request: &RequestVote) -> Option<RaftLogId> {
        let (index, stored, rank) = self.log.last();
        if (request.last_term, request.last_index) < (stored, index) {
            return None;
        }
        let comparable = request.last_index.max(if request.last_term.max(rank) > request.last_term {
            index
        } else {
            request.last_index
        });
        log_id(request.last_term.max(rank), comparable)
    }

    async fn vote(self, request: RequestVote) -> Option<RequestVoteResult> {
        let own = Terms::of(&self.log).own();
        let answer =
            |term, granted| Some(RequestVoteResult { term, granted, is_pre_vote: Some(request.is_pre_vote) });
        let refused = if request.is_pre_vote { request.term.max(own) } else { own };
        // A node that does not vote by its own log may do so by that of the candidate, whose entry it has not got yet:
        // refusing, as upstream does, could leave nobody to elect a leader. One vote in a term is safe whoever gives it.
        let leader_gone = self.board.is_gone();
        if request.is_pre_vote && leader_gone {
            let (index, stored, _) = self.log.last();
            let granted = request.term >= own && (request.last_term, request.last_index) >= (stored, index);
            debug!(candidate = request.candidate.0, granted, "pre-vote while the leader is gone");
            return answer(if granted { request.term } else { refused }, granted);
        }
        let call = VoteRequest {
            vote: Vote::new(request.term.0, request.candidate.0),
            last_log_id: self.candidate_log(&request),
            leadership_transfer: !request.is_pre_vote && (request.disrupts_leader || leader_gone),
        };
        if request.is_pre_vote {
            let response = self.raft.pre_vote(call).await.ok()?;
            let granted = response.vote_granted;
            return answer(if granted { request.term } else { refused }, granted);
        }
        let response = self.raft.vote(call).await.ok()?;
        let LeaderId { term, voted_for } = response.vote.leader_id;
        let granted = response.vote_granted && (term, voted_for) == (request.term.0, request.candidate.0);
        if granted {
            // A leader that is voted away from is not waited for.
            self.board.voted(Term(term));
        }
        answer(Term(term), granted)
    }

    /// A leader hands over.
    pub(crate) fn timeout_now(&self, from: &Sender, message: TimeoutNow) {
        let (index, stored, rank) = self.log.last();
        let ready = self.is_voter()
            && self.standing.term().is_some()
            && self.board.is_leader(from.id)
            && Terms::of(&self.log).compare(message.term) == Claim::Own
            && (message.last_index, message.last_term) == (index, stored);
        if !ready {
            info!(peer = from.id.0, ?message, last = index.0, "not ready to take over leadership");
            return;
        }
        let vote = Vote::new_committed(message.term.0, from.id.0);
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
        let raft = self.raft.clone();
        let log = self.log.clone();
        self.scope.spawn(async move {
            let (index, _, rank) = log.last();
            let request = VoteRequest {
                vote: term_only(term),
                last_log_id: log_id(rank.max(term), LogIndex(index.0.max(1) | FENCE_BASE)),
                leadership_transfer: true,
            };
            // A stopped openraft is in no term.
            let _ = raft.vote(request).await;
        });
    }
}
