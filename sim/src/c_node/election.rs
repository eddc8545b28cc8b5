//! Votes. spec: raft-wire 6.

use dqlite::peers::Sender;
use dqlite::peers::message::{Message, RequestVote, RequestVoteResult};
use dqlite::types::{LogIndex, NodeId, Role, Term};
use tokio::time::Instant;

use super::{CNode, Fault, State};

impl CNode {
    /// Looks at the timers.
    pub(super) fn tick(&mut self) {
        let expired = self.timer.elapsed() >= self.timeout;
        match &self.state {
            State::Leader(_) => self.leader_tick(),
            State::Candidate { pre_vote, .. } if expired => self.campaign(*pre_vote, false),
            State::Follower { .. } if expired && self.is_voter() => {
                // Not with an unfinished log.
                if self.installing || !self.writes.is_empty() {
                    self.restart_timer();
                } else {
                    self.campaign(true, false);
                }
            }
            _ => {}
        }
    }

    /// Begins a round of an election.
    pub(super) fn campaign(&mut self, pre_vote: bool, disrupts_leader: bool) {
        if !self.is_voter() {
            return self.follow(None);
        }
        if !pre_vote {
            self.disk.term = Term(self.disk.term.0 + 1);
            self.disk.voted_for = self.me.id.0;
        }
        self.state = State::Candidate { pre_vote, votes: vec![self.me.id] };
        self.restart_timer();
        let request = RequestVote {
            term: Term(self.term().0 + u64::from(pre_vote)),
            candidate: self.me.id,
            last_index: LogIndex(self.stored),
            last_term: self.log.term(self.stored).unwrap_or_default(),
            disrupts_leader,
            is_pre_vote: pre_vote,
        };
        for voter in self.others(|role| role == Role::Voter) {
            self.send(&voter, &Message::RequestVote(request), &[]);
        }
        self.look_at_votes();
    }

    /// Other members with such a role.
    pub(super) fn others(&self, wanted: impl Fn(Role) -> bool) -> Vec<Sender> {
        let servers = self.configuration.servers().iter();
        let others = servers.filter(|server| server.id != self.me.id && wanted(server.role));
        others.map(|server| Sender { id: server.id, address: server.address.clone().into() }).collect()
    }

    fn look_at_votes(&mut self) {
        let State::Candidate { pre_vote, votes } = &self.state else { return };
        if self.is_majority(votes.len()) {
            if *pre_vote { self.campaign(false, false) } else { self.lead() }
        }
    }

    /// spec: raft-wire 6.2.
    pub(super) fn request_vote(&mut self, from: &Sender, request: RequestVote) {
        let granted = self.grants(request);
        if granted && !request.is_pre_vote {
            self.disk.voted_for = request.candidate.0;
            self.timer = Instant::now();
        }
        let result = RequestVoteResult {
            term: if request.is_pre_vote { request.term } else { self.term() },
            granted,
            is_pre_vote: Some(request.is_pre_vote),
        };
        self.send(from, &Message::RequestVoteResult(result), &[]);
    }

    fn grants(&mut self, request: RequestVote) -> bool {
        let has_leader = match &self.state {
            State::Leader(_) => true,
            State::Follower { leader } => leader.is_some(),
            State::Candidate { .. } => false,
        };
        if has_leader && !request.disrupts_leader {
            return false;
        }
        if !request.is_pre_vote && request.term > self.term() {
            self.raise_term(request.term);
        }
        let remembers = self.options.fault != Some(Fault::ForgetsVote);
        let voted_other = remembers
            && !request.is_pre_vote
            && self.disk.voted_for != 0
            && self.disk.voted_for != request.candidate.0;
        if self.installing || request.term < self.term() || !self.is_voter() || voted_other {
            return false;
        }
        (request.last_term, request.last_index.0) >= (self.log.last_term(), self.log.last())
    }

    /// spec: raft-wire 6.3.
    pub(super) fn vote_result(&mut self, from: NodeId, result: RequestVoteResult) {
        let is_voter = self.configuration.get(from).is_some_and(|server| server.role == Role::Voter);
        let State::Candidate { pre_vote, .. } = self.state else { return };
        if !is_voter {
            return;
        }
        if !pre_vote && result.term > self.term() {
            self.raise_term(result.term);
            return;
        }
        let kind_fits = result.is_pre_vote.is_none_or(|kind| kind == pre_vote);
        if result.term < self.term() || !kind_fits {
            return;
        }
        if pre_vote && result.term.0 > self.term().0 + 1 {
            if result.granted {
                return self.fail(format!("node {from} grants a pre-vote of term {}", result.term));
            }
            self.raise_term(result.term);
            return;
        }
        if let State::Candidate { votes, .. } = &mut self.state
            && result.granted
            && !votes.contains(&from)
        {
            votes.push(from);
            self.look_at_votes();
        }
    }
}
