//! One stretch of openraft's stream of appends to a follower: requests in, results out in their order.
//! openraft-mapping L4, L5, L8.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use super::client::{PeerClient, rpc_error, term_only};
use crate::peers::replicator::{Matched, ReplicationError};
use crate::raft::types::{RaftLogId, TypeConfig, log_id, position};
use crate::types::{Entry, LogIndex, Term};

type Request = AppendEntriesRequest<TypeConfig>;
type Outcome = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// What happened to a request.
enum Handled {
    /// Its result comes later.
    Sent,
    /// This is its result, and the last of the session.
    Last(Outcome),
}

/// The session.
pub(super) struct AppendSession<'c, S> {
    client: &'c mut PeerClient,
    input: S,
    input_ended: bool,
    parked: Option<Request>,
    /// Last log ids of the requests that have no result yet.
    waiting: VecDeque<Option<RaftLogId>>,
    ended: bool,
}

impl<'c, S: Stream<Item = Request> + Unpin> AppendSession<'c, S> {
    pub(super) fn new(client: &'c mut PeerClient, input: S) -> AppendSession<'c, S> {
        AppendSession {
            client,
            input,
            input_ended: false,
            parked: None,
            waiting: VecDeque::new(),
            ended: false,
        }
    }

    /// The next result; None when the session is over.
    pub(super) async fn next(&mut self) -> Option<Outcome> {
        if self.ended {
            return None;
        }
        let outcome = self.step().await;
        self.ended = !matches!(outcome, Some(Ok(Ok(_))));
        if matches!(outcome, Some(Err(_))) {
            // openraft begins again: so does the search.
            if let Some(replicator) = self.client.current() {
                replicator.reset();
            }
        }
        outcome
    }

    async fn step(&mut self) -> Option<Outcome> {
        loop {
            if let Some(front) = self.waiting.front().copied()
                && let Some(replicator) = self.client.current()
                && replicator.is_acknowledged(position(front.as_ref()).1)
            {
                self.waiting.pop_front();
                return Some(Ok(Ok(front)));
            }
            let room = self.client.current().is_none_or(|replicator| replicator.has_room());
            if room && let Some(request) = self.parked.take() {
                match self.handle(request).await {
                    Handled::Sent => continue,
                    Handled::Last(outcome) => return Some(outcome),
                }
            }
            let may_read = !self.input_ended && self.parked.is_none();
            if !may_read && self.waiting.is_empty() && self.parked.is_none() {
                return None;
            }
            let is_waiting = self.client.current().is_some_and(|replicator| replicator.is_waiting());
            let woken = tokio::select! {
                biased;
                woken = wait(self.client, is_waiting) => woken,
                request = self.input.next(), if may_read => {
                    self.input_ended = request.is_none();
                    self.parked = request;
                    Ok(Woken::Otherwise)
                }
            };
            match woken {
                Ok(Woken::Otherwise) => {}
                Ok(Woken::Moved) => {
                    if let Some(outcome) = self.look_again().await {
                        return Some(outcome);
                    }
                }
                Err(error) => return Some(failed(&error)),
            }
        }
    }

    /// A follower of which nothing is awaited speaks on another connection: it may have been wiped, or put back to an older copy.
    /// openraft looks for the matching entry anew, and nobody counts what is gone.
    async fn look_again(&mut self) -> Option<Outcome> {
        let lost = match self.client.current()?.look_again().await {
            Ok(lost) => lost?,
            Err(error) => return Some(failed(&error)),
        };
        let rank = self.client.network.log.terms_at(lost).map_or(Term(1), |(_, rank)| rank);
        log_id(rank, lost).map(|lost| Ok(Err(StreamAppendError::Conflict(lost))))
    }

    async fn handle(&mut self, request: Request) -> Handled {
        let term = Term(request.vote.leader_id.term);
        let replicator = self.client.replicator(term);
        let (_, previous) = position(request.prev_log_id.as_ref());
        if let Err(error) = replicator.find(previous).await {
            return Handled::Last(failed(&error));
        }
        let upto = replicator.sent_upto();
        if previous > upto || replicator.matched() == Matched::BeforeLog {
            replicator.refuse(previous);
            return Handled::Last(match request.prev_log_id {
                Some(previous) => Ok(Err(StreamAppendError::Conflict(previous))),
                // L5: openraft does not expect that nothing conflicts.
                None => Err(rpc_error(&ReplicationError::Rejected(self.client.id(), LogIndex::NONE))),
            });
        }
        let (_, commit) = position(request.leader_commit.as_ref());
        let last = request.entries.last().map(|entry| entry.log_index()).unwrap_or(previous);
        let missing: Vec<&Entry> = request
            .entries
            .iter()
            .filter(|entry| entry.log_index() > upto)
            .map(|entry| entry.stored().as_ref())
            .collect();
        // A commit index alone is told only where its answer cannot be taken for more than it says.
        let tells_commit = replicator.is_clean() && upto > LogIndex::NONE;
        let sent = if missing.is_empty() && !tells_commit {
            Ok(())
        } else {
            replicator.send(previous.max(upto), &missing, commit)
        };
        if let Err(error) = sent {
            return Handled::Last(failed(&error));
        }
        let last_id = request.entries.last().map(openraft::entry::RaftEntry::log_id).or(request.prev_log_id);
        debug_assert_eq!(position(last_id.as_ref()).1, last);
        self.waiting.push_back(last_id);
        Handled::Sent
    }
}

/// What ended a wait.
enum Woken {
    /// The follower speaks on another connection.
    Moved,
    /// Anything else.
    Otherwise,
}

/// Waits for an answer; without one to wait for, until the follower speaks elsewhere.
async fn wait(client: &mut PeerClient, is_waiting: bool) -> Result<Woken, ReplicationError> {
    let Some(replicator) = client.current() else { return std::future::pending().await };
    if !is_waiting {
        replicator.moved().await;
        return Ok(Woken::Moved);
    }
    if !replicator.take_answers()? {
        replicator.wait().await?;
        replicator.take_answers()?;
    }
    Ok(Woken::Otherwise)
}

fn failed(error: &ReplicationError) -> Outcome {
    match error {
        ReplicationError::HigherTerm(term) => Ok(Err(StreamAppendError::HigherVote(term_only(*term)))),
        error => Err(rpc_error(error)),
    }
}
