//! A leader's view of one follower's log, found and kept by messages whose answers cannot be matched to them.
//! spec: raft-wire 5.1, 7, 11; the rules are those of openraft-mapping 4.3, L1 to L8.
//!
//! What an answer proves. A *fence* (an append behind an impossible index) is refused at once with its own index: whoever
//! gets that answer knows that every message before it has been looked at, and that whatever was answered at once has
//! arrived. So a probe followed by a fence has an answer of its own. A success of upstream's says how long the follower's
//! log is, leftovers of an older leader included; it is believed up to the end of the only append under way, and beyond
//! that once an entry of this leader's own term is acknowledged: then the follower's log is a part of the leader's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::link::{Link, LinkFull, LinkState};
use super::links::Links;
use super::message::{AppendEntries, EntryHeader, Message};
use super::peer::{Answer, SharedPeer};
use super::set::Peers;
use crate::types::config::{APPENDS_IN_FLIGHT_BYTES_MAX, APPENDS_IN_FLIGHT_MAX};
use crate::types::{Chunk, Entry, LogIndex, NodeId, Server, Term};

/// Attempts at one probe before the follower counts as unreachable.
const PROBE_ATTEMPTS: usize = 3;

/// The leader's own log.
pub trait LeaderLog: Send + Sync {
    /// Index of the last entry.
    fn last_index(&self) -> LogIndex;

    /// Term of an entry as it is stored, also of the one before the first; None if it is not known any more.
    fn stored_term(&self, index: LogIndex) -> Option<Term>;
}

/// Where follower and leader agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// Not known.
    Unknown,
    /// Up to this index, at least.
    At(LogIndex),
    /// Somewhere before the first entry that the leader still has: a snapshot is needed.
    BeforeLog,
}

/// Why replication has to begin again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationError {
    /// The follower cannot be reached or does not answer.
    #[error("node {0}: {1}")]
    Unreachable(NodeId, String),
    /// The follower knows a higher term.
    #[error("term {0}")]
    HigherTerm(Term),
    /// The follower refused what it should have.
    #[error("node {0} refused the entries behind {1}")]
    Rejected(NodeId, LogIndex),
}

/// Entries under way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    last: LogIndex,
    bytes: usize,
}

/// What is needed to talk to a follower.
#[derive(Clone)]
pub struct Target {
    /// Follower.
    pub id: NodeId,
    /// Where it is dialled.
    pub address: Bytes,
    /// The way to it.
    pub links: Links,
    /// What is awaited from it.
    pub peer: SharedPeer,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Target {
    /// A node at an address.
    #[must_use]
    pub fn new(peers: &Peers, id: NodeId, address: Bytes) -> Target {
        Target { id, address, links: peers.links().clone(), peer: peers.peer(id) }
    }

    /// A server of the configuration.
    #[must_use]
    pub fn of(peers: &Peers, server: &Server) -> Target {
        Target::new(peers, server.id, Bytes::copy_from_slice(&server.address))
    }

    fn unreachable(&self, error: impl std::fmt::Display) -> ReplicationError {
        ReplicationError::Unreachable(self.id, error.to_string())
    }

    fn send(&self, chunks: Vec<Chunk>) -> Result<(), ReplicationError> {
        self.links.send(self.id, &self.address, chunks).map_err(|error: LinkFull| self.unreachable(error))
    }

    /// Sends a message without payload.
    ///
    /// # Errors
    /// The queue to the peer is full.
    pub fn send_message(&self, message: &Message) -> Result<(), ReplicationError> {
        self.send(vec![message.encode().into()])
    }

    fn link(&self) -> Arc<Link> {
        self.links.link(self.id, &self.address)
    }

    /// Proves that the follower is there and still in `term`: nothing of it was sent before this call.
    ///
    /// # Errors
    /// No answer within `patience`, or a higher term.
    pub async fn fence(&self, term: Term, patience: Duration) -> Result<Answer, ReplicationError> {
        let (fence, answer) =
            self.peer.fence(term).ok_or_else(|| self.unreachable("too many heartbeats without an answer"))?;
        let mut state = self.link().state();
        let failures = state.borrow_and_update().failures;
        self.send_message(&fence)?;
        let deadline = Instant::now() + patience;
        let answer = async {
            tokio::select! {
                biased;
                answer = answer => answer.map_err(|_| self.unreachable("no answer")),
                _ = state.wait_for(|state| state.failures > failures) => Err(self.unreachable("cannot be dialled")),
            }
        };
        let answer =
            timeout_at(deadline, answer).await.map_err(|_| self.unreachable("no answer in time"))??;
        if answer.result.term > term {
            Err(ReplicationError::HigherTerm(answer.result.term))
        } else {
            Ok(answer)
        }
    }
}

/// One leader's replication to one follower.
pub struct Replicator {
    target: Target,
    term: Term,
    log: Arc<dyn LeaderLog>,
    patience: Duration,
    matched: Matched,
    /// An entry of this term is acknowledged: whatever the follower has is a part of the leader's log.
    clean: bool,
    /// Highest index that was ever acknowledged to the caller.
    acknowledged: LogIndex,
    /// Index behind which the caller last learned that it cannot go on.
    refused: Option<LogIndex>,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    link: Option<watch::Receiver<LinkState>>,
    answered: Option<watch::Receiver<u64>>,
    /// Connection that `sent` went out on.
    generation: u64,
    /// Connection of the follower on which `matched` was found: on another one, answers are missing.
    speaks_on: u64,
    /// When `sent` was last known to make progress.
    progress: Instant,
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicator").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Replicator {
    /// Nothing is known of the follower. `patience` is how long an answer may take.
    #[must_use]
    pub fn new(target: Target, term: Term, log: Arc<dyn LeaderLog>, patience: Duration) -> Replicator {
        Replicator {
            target,
            term,
            log,
            patience,
            matched: Matched::Unknown,
            clean: false,
            acknowledged: LogIndex::NONE,
            refused: None,
            sent: VecDeque::new(),
            sent_bytes: 0,
            link: None,
            answered: None,
            generation: 0,
            speaks_on: 0,
            progress: Instant::now(),
        }
    }

    /// Where follower and leader agree.
    #[must_use]
    pub fn matched(&self) -> Matched {
        self.matched
    }

    /// Term of the leader.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether `index` is acknowledged; what was said once stays said.
    pub fn is_acknowledged(&mut self, index: LogIndex) -> bool {
        let Matched::At(matched) = self.matched else { return false };
        if index > matched {
            return false;
        }
        self.acknowledged = self.acknowledged.max(index);
        true
    }

    /// Forgets what is under way: nothing is known of it.
    pub fn reset(&mut self) {
        self.matched = Matched::Unknown;
        self.clean = false;
        self.sent.clear();
        self.sent_bytes = 0;
        self.link = None;
    }

    /// The caller was told that the follower does not have `previous`.
    pub fn refuse(&mut self, previous: LogIndex) {
        self.refused = Some(previous);
    }

    /// Finds where the logs agree, if that is not known. `previous` is what the caller takes for granted next: if that
    /// is not less than what was refused, or more than was ever sent, the follower got more by another way, a snapshot.
    ///
    /// # Errors
    /// The follower does not answer or is in a higher term.
    pub async fn find(&mut self, previous: LogIndex) -> Result<(), ReplicationError> {
        let got_more = match self.refused {
            Some(refused) => previous >= refused,
            None => previous > self.sent_upto(),
        };
        if got_more || self.matched != Matched::Unknown && self.speaks_elsewhere() {
            self.reset();
        }
        if self.matched != Matched::Unknown {
            return Ok(());
        }
        self.answered = Some(self.target.peer.listen(self.term));
        self.sent.clear();
        self.sent_bytes = 0;
        let (found, connection) = self.probe().await?;
        self.speaks_on = connection;
        // A follower whose log ends before the leader's begins may have all that it acknowledged: nobody can tell.
        if let Matched::At(index) = found
            && index < self.acknowledged
        {
            // An operator's mistake or a disk that lies; what is missing is sent again.
            let (id, acknowledged) = (self.target.id.0, self.acknowledged.0);
            warn!(id, acknowledged, found = index.0, "a follower has lost entries that it had acknowledged");
            self.acknowledged = index;
        }
        self.refused = None;
        let state = self.target.link().state();
        self.generation = state.borrow().generation;
        self.link = Some(state);
        self.matched = found;
        if let Matched::At(index) = found {
            self.see_own_term(index);
        }
        Ok(())
    }

    /// Waits until the follower's answers come on another connection than when it was looked at: it may have started anew, with
    /// less than it had.
    pub async fn moved(&mut self) {
        while self.target.peer.speaks_in(self.term).is_none_or(|connection| connection == self.speaks_on) {
            changed(self.answered.as_mut()).await;
        }
    }

    /// Looks at an idle follower again. The entry that it had acknowledged and has no more, if so.
    ///
    /// # Errors
    /// The follower does not answer or is in a higher term.
    pub async fn look_again(&mut self) -> Result<Option<LogIndex>, ReplicationError> {
        let acknowledged = self.acknowledged;
        self.reset();
        self.find(LogIndex::NONE).await?;
        let has_lost = match self.matched {
            Matched::At(index) => index < acknowledged,
            Matched::BeforeLog | Matched::Unknown => acknowledged > LogIndex::NONE,
        };
        if has_lost {
            self.refused = Some(acknowledged);
        }
        Ok(has_lost.then_some(acknowledged))
    }

    fn see_own_term(&mut self, index: LogIndex) {
        self.clean = self.clean || self.log.stored_term(index) == Some(self.term) && index != LogIndex::NONE;
    }

    /// The follower's answers come on another connection than when it was looked at, or on none: some may be lost.
    fn speaks_elsewhere(&self) -> bool {
        self.target.peer.speaks_in(self.term) != Some(self.speaks_on)
    }

    /// Where the logs agree, and the connection on which that was answered.
    async fn probe(&self) -> Result<(Matched, u64), ReplicationError> {
        let first = self.target.fence(self.term, self.patience).await?;
        let mut connection = first.connection;
        if first.result.last_index == LogIndex::NONE {
            return Ok((Matched::At(LogIndex::NONE), connection));
        }
        let mut next = first.result.last_index.min(self.log.last_index());
        let mut attempts = 0;
        loop {
            if next == LogIndex::NONE {
                return Err(self.target.unreachable("its log and this one have nothing in common"));
            }
            let Some(previous_term) = self.log.stored_term(next) else {
                return Ok((Matched::BeforeLog, connection));
            };
            let probe = AppendEntries {
                term: self.term,
                previous_index: next,
                previous_term,
                // L1: nothing behind `next` is known to be the follower's.
                commit: LogIndex::NONE,
                entries: Vec::new(),
            };
            while self.target.peer.try_next(self.term).is_some() {}
            self.target.send_message(&Message::AppendEntries(probe))?;
            let fence = self.target.fence(self.term, self.patience).await?;
            let same_connection = fence.connection == connection;
            connection = fence.connection;
            let mut succeeded = false;
            let mut rejected = None;
            while let Some(answer) = self.target.peer.try_next(self.term) {
                succeeded |= answer.result.rejected == LogIndex::NONE && answer.result.last_index >= next;
                if answer.result.rejected == next {
                    rejected = Some(answer.result.last_index);
                }
            }
            match rejected {
                Some(last) => {
                    next = next.previous().min(last);
                    attempts = 0;
                }
                // The answer may have been lost with a connection: then a success is one to an earlier message.
                None if succeeded && same_connection => {
                    return Ok((Matched::At(next), connection));
                }
                None => {
                    attempts += 1;
                    if attempts >= PROBE_ATTEMPTS {
                        return Err(self.target.unreachable(format!("no answer to a probe at {next}")));
                    }
                }
            }
        }
    }

    /// Whether more entries may be sent now: one append at a time until the follower's log is known to be a part of
    /// the leader's, then up to a bound.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let full = self.sent.len() >= APPENDS_IN_FLIGHT_MAX || self.sent_bytes >= APPENDS_IN_FLIGHT_BYTES_MAX;
        if self.clean { !full } else { self.sent.is_empty() }
    }

    /// Index up to which the follower has the log, or will once it has taken what is under way.
    #[must_use]
    pub fn sent_upto(&self) -> LogIndex {
        let matched = if let Matched::At(matched) = self.matched { matched } else { LogIndex::NONE };
        self.sent.back().map_or(matched, |sent| sent.last.max(matched))
    }

    /// Whether the follower's log is known to be a part of the leader's.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Whether answers are awaited.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Sends entries that follow `previous`, which is acknowledged or under way; none to tell the commit index.
    ///
    /// # Errors
    /// The queue to the follower is full, or `previous` is not known any more.
    pub fn send(
        &mut self,
        previous: LogIndex,
        entries: &[&Entry],
        commit: LogIndex,
    ) -> Result<(), ReplicationError> {
        let previous_term = self.log.stored_term(previous);
        let previous_term = previous_term
            .ok_or_else(|| self.target.unreachable(format!("the term of entry {previous} is not known")))?;
        let last = previous.plus(entries.len() as u64);
        let headers = entries.iter().map(|entry| EntryHeader {
            term: entry.term,
            kind: entry.kind,
            // An entry is at most ENTRY_MAX_BYTES long.
            bytes: entry.data.len() as u32,
        });
        let append = AppendEntries {
            term: self.term,
            previous_index: previous,
            previous_term,
            // L1: upstream commits up to here whatever its log holds behind `last`.
            commit: commit.min(last),
            entries: headers.collect(),
        };
        let mut chunks: Vec<Chunk> = vec![Message::AppendEntries(append).encode().into()];
        for entry in entries {
            chunks.extend(entry.data.chunks().iter().cloned());
        }
        let bytes = chunks.iter().map(Chunk::len).sum();
        self.target.send(chunks)?;
        if !entries.is_empty() {
            if self.sent.is_empty() {
                self.progress = Instant::now();
            }
            self.sent.push_back(Sent { last, bytes });
            self.sent_bytes += bytes;
        }
        Ok(())
    }

    /// Takes the answers that are there. Whether `matched` has moved.
    ///
    /// # Errors
    /// The follower refused something, or the connection was lost: begin again with `find`.
    pub fn take_answers(&mut self) -> Result<bool, ReplicationError> {
        let mut moved = false;
        while let Some(Answer { result, .. }) = self.target.peer.try_next(self.term) {
            if result.rejected != LogIndex::NONE {
                self.reset();
                return Err(ReplicationError::Rejected(self.target.id, result.rejected));
            }
            moved |= self.acknowledge(result.last_index);
        }
        let state = self.link.as_mut().map(|link| *link.borrow_and_update());
        let lost = state.is_none_or(|state| state.generation != self.generation || !state.connected);
        if lost && !self.sent.is_empty() {
            self.reset();
            return Err(self.target.unreachable("the connection was lost"));
        }
        if !self.sent.is_empty() && self.speaks_elsewhere() {
            self.reset();
            return Err(self.target.unreachable("its answers come on another connection"));
        }
        if let Some(state) = state.filter(|state| state.connected) {
            self.generation = state.generation;
        }
        Ok(moved)
    }

    fn acknowledge(&mut self, last: LogIndex) -> bool {
        let (Matched::At(matched), Some(newest)) = (self.matched, self.sent.back()) else { return false };
        // Only what was sent can have been verified; L7.
        let proven = last.min(newest.last);
        if proven <= matched {
            return false;
        }
        self.matched = Matched::At(proven);
        self.progress = Instant::now();
        while let Some(front) = self.sent.front().copied().filter(|front| front.last <= proven) {
            self.sent.pop_front();
            self.sent_bytes -= front.bytes;
        }
        self.see_own_term(proven);
        true
    }

    /// Waits for an answer or a change of the connection. An append that goes unanswered is asked about.
    ///
    /// # Errors
    /// The follower has answered nothing at all for `patience`.
    pub async fn wait(&mut self) -> Result<(), ReplicationError> {
        let waiting = self.is_waiting();
        let deadline = self.progress + self.patience;
        tokio::select! {
            biased;
            () = changed(self.answered.as_mut()) => return Ok(()),
            () = changed(self.link.as_mut()) => return Ok(()),
            () = tokio::time::sleep_until(deadline), if waiting => {}
        }
        let silent = self.target.peer.heard(self.term).is_none_or(|heard| heard.elapsed() >= self.patience);
        if silent {
            self.reset();
            return Err(self.target.unreachable("no answer to an append in time"));
        }
        // It answers, but not this: upstream drops entries without a word while it installs a snapshot. An empty append
        // at the end of what was sent is refused then, and tells.
        let newest = self.sent.back().map(|sent| sent.last).unwrap_or_default();
        self.progress = Instant::now();
        self.send(newest, &[], LogIndex::NONE)
    }
}

async fn changed<T>(watched: Option<&mut watch::Receiver<T>>) {
    let ended = match watched {
        Some(watched) => watched.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending().await
    }
}

#[cfg(test)]
#[path = "replicator_tests.rs"]
mod tests;
