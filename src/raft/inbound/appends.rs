//! What peers send, handed to openraft. Everything that openraft would take on trust is checked here, since it asserts
//! where it should answer. spec: raft-wire 5, 6; openraft-mapping 4.2, F1 to F6.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use openraft::{LogId, Vote};
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tracing::{debug, info, warn};

use super::apply::{Applied, Consensus};
use super::failover::LeaderBoard;
use super::log::LogView;
use super::replication::term_only;
use super::snapshot::SnapshotReceiver;
use super::types::{Entry, LeaderId, RaftLogId, StatusBoard, TypeConfig, log_id};
use crate::peers::message::{
    AppendEntries, AppendEntriesResult, InstallSnapshot, RequestVote, RequestVoteResult, TimeoutNow,
};
use crate::peers::{FENCE_BASE, Inbound, Refusal, Sender, Spawn};
use crate::types::{self, EntryData, LogIndex, NodeId, Role, Term};

/// openraft behind the messages of peers.
#[derive(Clone)]
pub(super) struct RaftInbound {
    pub(super) id: NodeId,
    pub(super) raft: Consensus,
    pub(super) log: LogView,
    pub(super) applied: watch::Receiver<Applied>,
    pub(super) status: StatusBoard,
    pub(super) board: LeaderBoard,
    pub(super) receiver: SnapshotReceiver,
    pub(super) spawn: Spawn,
    pub(super) tail: Arc<Mutex<Option<Tail>>>,
    /// openraft hears of a leader that sends heartbeats at least so often.
    pub(super) tell_every: Duration,
}

/// The last entry that was handed on: the log may not hold it yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    leader: NodeId,
    leader_term: Term,
    index: LogIndex,
    stored: Term,
    rank: Term,
}

type Request = AppendEntriesRequest<TypeConfig>;

/// An append ready for openraft.
struct Prepared {
    /// Removes entries that differ although openraft would take them for the same.
    correction: Option<Request>,
    request: Request,
    tail: Option<Tail>,
    /// Index up to which a success acknowledges.
    last: LogIndex,
    previous: LogIndex,
}

/// A log id that no log holds: openraft answers a conflict and changes nothing.
fn impossible(term: Term, index: LogIndex) -> RaftLogId {
    LogId::new(term.0, FENCE_BASE | index.0)
}

fn refuse<T>(text: String) -> Result<T, Refusal> {
    Err(Refusal(text))
}

impl RaftInbound {
    fn prepare(
        &self,
        from: &Sender,
        message: &AppendEntries,
        payloads: Vec<EntryData>,
    ) -> Result<Prepared, Refusal> {
        let AppendEntries { term, previous_index: previous, previous_term, commit, entries: headers } =
            message;
        let (term, previous, previous_term) = (*term, *previous, *previous_term);
        if term == Term(0) {
            return refuse("AppendEntries of term 0".to_owned());
        }
        if previous_term > term {
            return refuse(format!("AppendEntries of term {term} behind an entry of term {previous_term}"));
        }
        let vote = Vote::new_committed(term.0, from.id.0);
        let is_fence = previous.0 >= FENCE_BASE;
        if is_fence {
            let prev_log_id = Some(impossible(term, previous));
            let request = Request { vote, prev_log_id, entries: Vec::new(), leader_commit: None };
            return if headers.is_empty() {
                Ok(Prepared { correction: None, request, tail: None, last: previous, previous })
            } else {
                refuse(format!("{} entries behind index {previous}", headers.len()))
            };
        }
        let known = self.terms_at(from, term, previous);
        let committed = self.applied.borrow().index;
        let matches = known.is_some_and(|(stored, _)| stored == previous_term);
        if known.is_some() && !matches && previous <= committed {
            return refuse(format!(
                "entry {previous} is committed here with another term than {previous_term}: the logs contradict each other"
            ));
        }
        let prev_log_id = match known {
            _ if previous == LogIndex::NONE => None,
            Some((_, rank)) if matches => log_id(rank, previous),
            // Nothing is removed before an entry shows where the logs part.
            Some(_) => Some(impossible(term, previous)),
            None => log_id(previous_term, previous),
        };
        let mut floor = known.filter(|_| matches).map_or(previous_term, |(_, rank)| rank);
        let mut entries = Vec::with_capacity(headers.len());
        let mut correction = None;
        let mut index = previous;
        for (header, payload) in headers.iter().zip(payloads) {
            index = index.next();
            if header.term > term {
                return refuse(format!("entry {index} has term {}, its leader {term}", header.term));
            }
            let stored =
                types::Entry { term: header.term, kind: header.kind, data: payload, proposals: None };
            let mine = self.log.terms_at(index);
            let same = mine.filter(|(stored, _)| *stored == header.term);
            if mine.is_some() && same.is_none() && index <= committed {
                return refuse(format!(
                    "entry {index} is committed here with another term than {}: the logs contradict each other",
                    header.term
                ));
            }
            let entry = Entry::from_stored(index, stored, same.map_or(floor, |(_, rank)| rank))
                .map_err(|error| Refusal(error.to_string()))?;
            if same.is_none() && correction.is_none() && mine.is_some_and(|(_, rank)| rank == entry.rank()) {
                // A term that no entry at this index has.
                let other = log_id(Term(u64::MAX), index);
                correction =
                    Some(Request { vote, prev_log_id: other, entries: Vec::new(), leader_commit: None });
            }
            floor = entry.rank();
            entries.push(entry);
        }
        let last = index;
        let tail = entries.last().map(|entry| Tail {
            leader: from.id,
            leader_term: term,
            index: last,
            stored: entry.stored().term,
            rank: entry.rank(),
        });
        let commit = (*commit).min(last);
        let leader_commit = if prev_log_id.is_some_and(|id| id.index >= FENCE_BASE) {
            None
        } else if commit > previous {
            let place = (commit.0 - previous.0 - 1) as usize;
            entries.get(place).map(openraft::entry::RaftEntry::log_id)
        } else if known.is_some() {
            // By log matching what lies below is the leader's too.
            self.log.terms_at(commit).and_then(|(_, rank)| log_id(rank, commit))
        } else {
            None
        };
        let request = Request { vote, prev_log_id, entries, leader_commit };
        Ok(Prepared { correction, request, tail, last, previous })
    }

    /// Stored term and rank of an entry that is in the log or on its way there.
    fn terms_at(&self, from: &Sender, term: Term, index: LogIndex) -> Option<(Term, Term)> {
        let tail = *self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tail
            && tail.index == index
            && (tail.leader, tail.leader_term) == (from.id, term)
        {
            return Some((tail.stored, tail.rank));
        }
        self.log.terms_at(index)
    }

    /// Hands a request over before it returns; the answer comes later.
    fn hand_over(&self, request: Request) -> BoxFuture<'static, Option<AppendEntriesResponse<TypeConfig>>> {
        let raft = self.raft.clone();
        let mut call = Box::pin(async move { raft.append_entries(request).await.ok() });
        match unconstrained(&mut call).now_or_never() {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => call,
        }
    }

    /// The answer to a heartbeat of the leader that this node follows, unless openraft has to hear of it. What it proves is
    /// that this node had given no vote in a later term: a vote is durable, and known here, before it is answered.
    fn answer_fence(&self, from: &Sender, message: &AppendEntries) -> Option<AppendEntriesResult> {
        if message.previous_index.0 < FENCE_BASE || !message.entries.is_empty() {
            return None;
        }
        let (vote, committed) = self.log.vote()?;
        let follows = committed && (vote.term, vote.voted_for) == (message.term.0, from.id.0);
        let told = self.board.told(from.id, message.term);
        let recently = told.is_some_and(|told| told.elapsed() < self.tell_every);
        (follows && recently).then(|| AppendEntriesResult {
            term: message.term,
            rejected: message.previous_index,
            last_index: self.log.last().0,
        })
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
        let own = self.status.term();
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
}

impl Inbound for RaftInbound {
    fn append(
        &self,
        from: &Sender,
        message: AppendEntries,
        payloads: Vec<EntryData>,
    ) -> BoxFuture<'static, Result<Option<AppendEntriesResult>, Refusal>> {
        if let Some(answer) = self.answer_fence(from, &message) {
            self.board.heard(from, message.term);
            return Box::pin(std::future::ready(Ok(Some(answer))));
        }
        let prepared = match self.prepare(from, &message, payloads) {
            Ok(prepared) => prepared,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        let Prepared { correction, request, tail, last, previous } = prepared;
        if message.term >= self.status.term() {
            self.board.heard(from, message.term);
        }
        if let Some(correction) = correction {
            warn!(
                leader = from.id.0,
                index = last.0,
                "entries of another leader with terms that fall are removed"
            );
            drop(self.hand_over(correction));
        }
        if tail.is_some() {
            *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = tail;
        }
        let answer = self.hand_over(request);
        self.board.tell(from.id, message.term);
        let log = self.log.clone();
        let tails = Arc::clone(&self.tail);
        let term = message.term;
        Box::pin(async move {
            // openraft has stopped: there is nothing to say any more.
            let Some(answer) = answer.await else { return Ok(None) };
            let last_index = log.last().0;
            let result = match answer {
                AppendEntriesResponse::Success => {
                    AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: last }
                }
                AppendEntriesResponse::PartialSuccess(upto) => {
                    let (_, upto) = super::types::position(upto.as_ref());
                    AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: upto.min(last) }
                }
                AppendEntriesResponse::Conflict => {
                    *tails.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    AppendEntriesResult { term, rejected: previous, last_index }
                }
                AppendEntriesResponse::HigherVote(vote) => {
                    AppendEntriesResult { term: Term(vote.leader_id.term), rejected: previous, last_index }
                }
            };
            Ok(Some(result))
        })
    }

    fn request_vote(
        &self,
        from: &Sender,
        message: RequestVote,
    ) -> BoxFuture<'static, Option<RequestVoteResult>> {
        let impossible = message.candidate.0 == 0 || message.candidate == self.id || message.term == Term(0);
        if impossible || message.last_term > message.term || message.last_index.0 >= FENCE_BASE {
            warn!(peer = from.id.0, ?message, "a vote that nobody can ask for");
            return Box::pin(std::future::ready(None));
        }
        Box::pin(self.clone().vote(message))
    }

    fn timeout_now(&self, from: &Sender, message: TimeoutNow) {
        let (index, stored, rank) = self.log.last();
        let ready = self.is_voter()
            && self.board.leader().is_some_and(|(leader, _)| leader == from.id)
            && message.term >= self.status.term()
            && (message.last_index, message.last_term) == (index, stored);
        if !ready {
            info!(peer = from.id.0, ?message, last = index.0, "not ready to take over leadership");
            return;
        }
        let vote = Vote::new_committed(message.term.0, from.id.0);
        let request = TransferLeaderRequest::new(vote, self.id.0, log_id(rank, index));
        let raft = self.raft.clone();
        (self.spawn)(Box::pin(async move {
            info!("taking over leadership");
            if let Err(error) = raft.handle_transfer_leader(request).await {
                warn!(%error, "leadership was not taken over");
            }
        }));
    }

    fn install_snapshot(
        &self,
        from: &Sender,
        message: InstallSnapshot,
        content: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'static, Option<AppendEntriesResult>> {
        let inbound = self.clone();
        let from = from.clone();
        Box::pin(async move {
            let (index, term) = (message.index, message.term);
            let own = inbound.status.term();
            let rejected =
                |term| Some(AppendEntriesResult { term, rejected: index, last_index: inbound.log.last().0 });
            if term < own || term == Term(0) {
                return rejected(own);
            }
            inbound.receiving(&from, term);
            if message.last_term > term || index == LogIndex::NONE || index.0 >= FENCE_BASE {
                warn!(peer = from.id.0, ?message, "a snapshot that no leader has");
                return rejected(own);
            }
            let has_it = inbound.log.terms_at(index).is_some_and(|(stored, _)| stored == message.last_term)
                || inbound.applied.borrow().index >= index;
            if has_it {
                return Some(AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: index });
            }
            let floor = inbound.applied.borrow().term;
            match inbound.receiver.receive(&from, message, content, floor).await {
                Ok(snapshot) => {
                    let vote = Vote::new_committed(term.0, from.id.0);
                    *inbound.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    inbound.log.expect_snapshot(snapshot.snapshot.position.clone());
                    let response = inbound.raft.install_full_snapshot(vote, snapshot).await.ok()?;
                    inbound.receiver.finished();
                    let now = Term(response.vote.leader_id.term);
                    if inbound.applied.borrow().index < index {
                        inbound.log.expect_no_snapshot();
                        return rejected(now);
                    }
                    info!(peer = from.id.0, index = index.0, "snapshot installed");
                    Some(AppendEntriesResult { term: now, rejected: LogIndex::NONE, last_index: index })
                }
                Err(error) => {
                    warn!(peer = from.id.0, index = index.0, error, "snapshot refused");
                    rejected(inbound.status.term())
                }
            }
        })
    }

    fn receiving(&self, from: &Sender, term: Term) {
        self.board.heard(from, term);
        let request = Request {
            vote: Vote::new_committed(term.0, from.id.0),
            prev_log_id: Some(impossible(term, LogIndex::NONE)),
            entries: Vec::new(),
            leader_commit: None,
        };
        drop(self.hand_over(request));
    }

    fn higher_term(&self, term: Term) {
        let raft = self.raft.clone();
        let log = self.log.clone();
        (self.spawn)(Box::pin(async move {
            let (index, _, rank) = log.last();
            let request = VoteRequest {
                vote: term_only(term),
                last_log_id: log_id(rank.max(term), LogIndex(index.0.max(1) | FENCE_BASE)),
                leadership_transfer: true,
            };
            // A stopped openraft is in no term.
            let _ = raft.vote(request).await;
        }));
    }

    fn term(&self) -> Term {
        self.status.term()
    }

    fn connected(&self, from: &Sender, number: u64) {
        self.board.connected(from, number);
    }

    fn disconnected(&self, from: &Sender, number: u64) {
        self.board.disconnected(from, number);
    }
}
