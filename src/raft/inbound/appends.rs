//! What peers send, handed to openraft. Everything that openraft would take on trust is checked here, since it asserts
//! where it should answer. spec: raft-wire 5, 6; openraft-mapping 4.2, F1 to F6.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{LogId, Vote};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tracing::warn;

use crate::peers::message::{AppendEntries, AppendEntriesResult};
use crate::peers::{FENCE_BASE, Refusal, Sender};
use crate::raft::apply::{Applied, Consensus};
use crate::raft::election::{Claim, LeaderBoard, Terms};
use crate::raft::log::LogView;
use crate::raft::types::{Entry, LeaderId, RaftLogId, TypeConfig, log_id, position};
use crate::types::{self, EntryData, LogIndex, NodeId, Term};

/// The messages of leaders, as openraft may see them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Appends {
    raft: Consensus,
    log: LogView,
    applied: watch::Receiver<Applied>,
    board: LeaderBoard,
    tail: Arc<Mutex<Option<Tail>>>,
}

/// The last entry that was handed on: the log may not hold it yet.
#[derive(Clone, Copy, Debug)]
struct Tail {
    leader: NodeId,
    leader_term: Term,
    index: LogIndex,
    stored: Term,
    rank: Term,
}

type Request = AppendEntriesRequest<TypeConfig>;

/// An append, checked. Who says it is told to openraft when it is handed over.
struct Prepared {
    /// Removes entries that differ although openraft would take them for the same.
    correction: Option<Draft>,
    draft: Draft,
    tail: Option<Tail>,
    /// Index up to which a success acknowledges.
    last: LogIndex,
    previous: LogIndex,
}

/// An append without its leader.
#[derive(Default)]
struct Draft {
    prev_log_id: Option<RaftLogId>,
    entries: Vec<Entry>,
    leader_commit: Option<RaftLogId>,
}

impl Draft {
    fn of(self, vote: Vote<LeaderId>) -> Request {
        let Draft { prev_log_id, entries, leader_commit } = self;
        Request { vote, prev_log_id, entries, leader_commit }
    }
}

/// A log id that no log holds: openraft answers a conflict and changes nothing.
fn impossible(term: Term, index: LogIndex) -> RaftLogId {
    LogId::new(term.0, FENCE_BASE | index.0)
}

fn contradiction(index: LogIndex, term: Term) -> String {
    format!("entry {index} is committed here with another term than {term}: the logs contradict each other")
}

fn refuse<T>(text: String) -> Result<T, Refusal> {
    Err(Refusal(text))
}

impl Appends {
    pub(crate) fn new(
        raft: Consensus,
        log: LogView,
        applied: watch::Receiver<Applied>,
        board: LeaderBoard,
    ) -> Appends {
        Appends { raft, log, applied, board, tail: Arc::default() }
    }

    fn prepare(
        &self,
        from: &Sender,
        message: &AppendEntries,
        payloads: Vec<EntryData>,
    ) -> Result<Prepared, Refusal> {
        let AppendEntries { term, previous_index: previous, previous_term, commit, entries: headers } =
            message;
        let (term, previous, previous_term) = (*term, *previous, *previous_term);
        if previous_term > term {
            return refuse(format!("AppendEntries of term {term} behind an entry of term {previous_term}"));
        }
        if previous.0 >= FENCE_BASE {
            let draft = Draft { prev_log_id: Some(impossible(term, previous)), ..Draft::default() };
            return if headers.is_empty() {
                Ok(Prepared { correction: None, draft, tail: None, last: previous, previous })
            } else {
                refuse(format!("{} entries behind index {previous}", headers.len()))
            };
        }
        let known = self.terms_at(from, term, previous);
        let matches = known.is_some_and(|(stored, _)| stored == previous_term);
        if known.is_some() && !matches && previous <= self.applied.borrow().index {
            return refuse(contradiction(previous, previous_term));
        }
        let prev_log_id = match known {
            _ if previous == LogIndex::NONE => None,
            Some((_, rank)) if matches => log_id(rank, previous),
            // Nothing is removed before an entry shows where the logs part.
            Some(_) => Some(impossible(term, previous)),
            None => log_id(previous_term, previous),
        };
        let floor = known.filter(|_| matches).map_or(previous_term, |(_, rank)| rank);
        let (entries, differs) = self.take_entries(message, payloads, floor)?;
        // A term that no entry at this index has.
        let correction =
            differs.map(|index| Draft { prev_log_id: log_id(Term(u64::MAX), index), ..Draft::default() });
        let last = previous.plus(entries.len() as u64);
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
        let draft = Draft { prev_log_id, entries, leader_commit };
        Ok(Prepared { correction, draft, tail, last, previous })
    }

    /// The entries of a message as openraft takes them; those before them rank up to `floor`. Also the first of them that is
    /// another entry here, which openraft would take for the same.
    fn take_entries(
        &self,
        message: &AppendEntries,
        payloads: Vec<EntryData>,
        mut floor: Term,
    ) -> Result<(Vec<Entry>, Option<LogIndex>), Refusal> {
        let committed = self.applied.borrow().index;
        let mut entries = Vec::with_capacity(message.entries.len());
        let mut differs = None;
        let mut index = message.previous_index;
        for (header, payload) in message.entries.iter().zip(payloads) {
            index = index.next();
            if header.term > message.term {
                return refuse(format!(
                    "entry {index} has term {}, its leader {}",
                    header.term, message.term
                ));
            }
            let stored =
                types::Entry { term: header.term, kind: header.kind, data: payload, proposals: None };
            let mine = self.log.terms_at(index);
            let same = mine.filter(|(stored, _)| *stored == header.term);
            if mine.is_some() && same.is_none() && index <= committed {
                return refuse(contradiction(index, header.term));
            }
            let entry = Entry::from_stored(index, stored, same.map_or(floor, |(_, rank)| rank))
                .map_err(|error| Refusal(error.to_string()))?;
            if same.is_none() && differs.is_none() && mine.is_some_and(|(_, rank)| rank == entry.rank()) {
                differs = Some(index);
            }
            floor = entry.rank();
            entries.push(entry);
        }
        Ok((entries, differs))
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
        let label = self.board.label_of(from.id, message.term);
        let follows = committed && (vote.term, vote.voted_for) == (message.term.0, label.0);
        follows.then(|| AppendEntriesResult {
            term: message.term,
            rejected: message.previous_index,
            last_index: self.log.last().0,
        })
    }

    /// Entries or a heartbeat of a leader; the payload of each entry.
    pub(super) fn append(
        &self,
        from: &Sender,
        message: AppendEntries,
        payloads: Vec<EntryData>,
    ) -> BoxFuture<'static, Result<Option<AppendEntriesResult>, Refusal>> {
        if let Some(answer) = self.answer_fence(from, &message) {
            self.heard(from, message.term);
            return Box::pin(std::future::ready(Ok(Some(answer))));
        }
        let prepared = match self.prepare(from, &message, payloads) {
            Ok(prepared) => prepared,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        let Prepared { correction, draft, tail, last, previous } = prepared;
        if Terms::of(&self.log).compare(message.term) != Claim::Past {
            self.log.take_up(message.term);
            self.heard(from, message.term);
        }
        let vote = self.vote_of(from, message.term);
        if let Some(correction) = correction {
            warn!(
                leader = from.id.0,
                index = last.0,
                "entries of another leader with terms that fall are removed"
            );
            drop(self.hand_over(correction.of(vote)));
        }
        if tail.is_some() {
            *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = tail;
        }
        let answer = self.hand_over(draft.of(vote));
        let log = self.log.clone();
        let tails = Arc::clone(&self.tail);
        let term = message.term;
        Box::pin(async move {
            // openraft has stopped: there is nothing to say any more.
            let Some(answer) = answer.await else { return Ok(None) };
            let last_index = log.last().0;
            let acknowledges = match &answer {
                AppendEntriesResponse::Success => Some(last),
                AppendEntriesResponse::PartialSuccess(upto) => Some(position(upto.as_ref()).1.min(last)),
                AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
            };
            // A leader of an earlier term learns of the later one by other answers.
            if let Some(index) = acknowledges
                && !log.may_acknowledge(term, index).await
            {
                return Ok(None);
            }
            let result = match answer {
                AppendEntriesResponse::Success => {
                    AppendEntriesResult { term, rejected: LogIndex::NONE, last_index: last }
                }
                AppendEntriesResponse::PartialSuccess(upto) => {
                    let (_, upto) = position(upto.as_ref());
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

    fn heard(&self, from: &Sender, term: Term) {
        self.board.heard(from, term, self.log.configuration().0.is_voter(from.id));
    }

    /// What openraft is told of who leads.
    pub(super) fn vote_of(&self, from: &Sender, term: Term) -> Vote<LeaderId> {
        Vote::new_committed(term.0, self.board.label_of(from.id, term).0)
    }

    /// A leader of `term` is still sending a snapshot.
    pub(super) fn receiving(&self, from: &Sender, term: Term) {
        self.log.take_up(term);
        self.heard(from, term);
        let draft = Draft { prev_log_id: Some(impossible(term, LogIndex::NONE)), ..Draft::default() };
        drop(self.hand_over(draft.of(self.vote_of(from, term))));
    }

    /// What was handed on last counts no more: the log is about to be replaced.
    pub(super) fn forget_tail(&self) {
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
