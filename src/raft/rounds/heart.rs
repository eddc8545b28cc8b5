//! The heart of a leader: one task that sends all heartbeats, by the clock and when a read waits for a proof. A beat is a
//! fence; its answer proves that the follower was in the leader's term after it was sent. openraft-mapping L6.

use std::cmp::Reverse;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::contact::Contacts;
use super::reads::{ReadGate, Reads};
use crate::peers::Peers;
use crate::peers::message::{AppendEntries, Message};
use crate::peers::replicator::Target;
use crate::raft::apply::{Consensus, committed, matched};
use crate::raft::log::LogView;
use crate::raft::types::{LateTimer, Leadership, StatusBoard};
use crate::types::config::READ_RESERVE_AFTER;
use crate::types::{LogIndex, NodeId, Role, Term};

/// Beats while this node leads.
pub(crate) struct Heart {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) peers: Peers,
    pub(crate) reads: Reads,
    pub(crate) contacts: Contacts,
    /// Between two beats.
    pub(crate) beat: Duration,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

/// A beat to one follower: whether it was answered.
type Beat = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Reads that wait for the answers of a majority.
struct Round {
    readers: Vec<oneshot::Sender<bool>>,
    since: Instant,
    term: Term,
    beats: FuturesUnordered<Beat>,
    /// Voters that are asked when an answer fails or is late.
    reserve: Vec<Target>,
}

impl Round {
    fn end(self, proved: bool) {
        for reader in self.readers {
            // Who gave up waiting does not want it.
            let _ = reader.send(proved);
        }
    }
}

impl Heart {
    /// Until openraft ends.
    pub(crate) async fn run(self, mut leadership: watch::Receiver<Leadership>) {
        let gate = self.reads.gate();
        loop {
            let now = leadership.borrow_and_update().clone();
            match now {
                Leadership::Stopped => return,
                Leadership::Leading(term) => {
                    self.contacts.begin(term, self.log.configuration().1);
                    tokio::select! {
                        biased;
                        changed = leadership.changed() => if changed.is_err() { return },
                        () = self.beat_in(term, &gate) => {}
                    }
                }
                Leadership::Other => tokio::select! {
                    biased;
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = gate.filled() => {}
                },
            }
            // Who does not lead any more, or in another term, proves nothing to those that waited.
            for reader in gate.take() {
                let _ = reader.send(false);
            }
        }
    }

    /// Never returns; a round that is dropped has proved nothing.
    async fn beat_in(&self, term: Term, gate: &ReadGate) {
        let mut beats = FuturesUnordered::new();
        let mut next = pin!(sleep_until(Instant::now()));
        let mut round: Option<Round> = None;
        let mut late = LateTimer::default();
        loop {
            tokio::select! {
                biased;
                Some(_) = beats.next() => {}
                proved = self.settle(round.as_mut(), &mut late), if round.is_some() => {
                    round.take().into_iter().for_each(|round| round.end(proved));
                    round = self.begin_round(term, gate);
                }
                () = gate.filled(), if round.is_none() => round = self.begin_round(term, gate),
                () = &mut next => {
                    next.as_mut().reset(Instant::now() + self.beat);
                    self.beat(term, &beats);
                }
            }
        }
    }

    /// One beat to everybody who follows.
    fn beat(&self, term: Term, beats: &FuturesUnordered<Beat>) {
        let configuration = self.log.configuration().0;
        let followers = configuration
            .servers()
            .iter()
            .filter(|server| server.id != self.id && server.role != Role::Spare);
        let committed = committed(&self.raft);
        for server in followers {
            let target = Target::of(&self.peers, server);
            self.tell_commit(&target, term, committed);
            beats.push(self.fence(target, term));
        }
    }

    /// A fence to a follower, sent when it is first polled. What it proves counts whoever waits for it.
    fn fence(&self, target: Target, term: Term) -> Beat {
        let (contacts, patience) = (self.contacts.clone(), self.patience);
        let sent = Instant::now();
        Box::pin(async move {
            let is_answered = target.fence(term, patience).await.is_ok();
            if is_answered {
                contacts.answered(target.id, term, sent);
            }
            is_answered
        })
    }

    /// Tells the commit index once more, in case a message was lost, where the follower's log is known to be a part of this
    /// one: its answer then says nothing wrong. L1, L7. The fence behind it finds out what is wrong.
    fn tell_commit(&self, target: &Target, term: Term, committed: LogIndex) {
        let matched = matched(&self.raft, target.id);
        let Some((previous_term, _)) =
            self.log.terms_at(matched).filter(|(_, rank)| *rank == term && matched != LogIndex::NONE)
        else {
            return;
        };
        let commit = committed.min(matched);
        let append =
            AppendEntries { term, previous_index: matched, previous_term, commit, entries: Vec::new() };
        // A queue that is full holds messages that tell it.
        let _ = target.send_message(&Message::AppendEntries(append));
    }

    /// A round for those that wait now; none if nobody does. No more voters are asked than are needed, those that were
    /// reached last.
    fn begin_round(&self, term: Term, gate: &ReadGate) -> Option<Round> {
        let readers = gate.take();
        if readers.is_empty() {
            return None;
        }
        let configuration = self.log.configuration().0;
        let others = configuration.voters().filter(|server| server.id != self.id);
        let mut others: Vec<Target> = others.map(|server| Target::of(&self.peers, server)).collect();
        let needed = configuration.majority() - usize::from(configuration.is_voter(self.id));
        others.sort_by_key(|target| Reverse(self.contacts.of(target.id)));
        let reserve = others.split_off(needed.min(others.len()));
        let since = Instant::now();
        let beats = others.into_iter().map(|target| self.fence(target, term)).collect();
        Some(Round { readers, since, term, beats, reserve })
    }

    /// Whether a majority of the voters answered what was sent since the round began: they knew no later term.
    async fn settle(&self, round: Option<&mut Round>, late: &mut LateTimer) -> bool {
        let Some(round) = round else { return std::future::pending().await };
        loop {
            let quorum = self.contacts.quorum(&self.log.configuration().0, self.id);
            if quorum.is_some_and(|quorum| quorum >= round.since) {
                return self.status.serving_term() == Some(round.term);
            }
            let has_failed = tokio::select! {
                biased;
                answered = round.beats.next() => match answered {
                    Some(answered) => !answered,
                    None if round.reserve.is_empty() => return false,
                    None => true,
                },
                () = late.until(round.since + READ_RESERVE_AFTER), if !round.reserve.is_empty() => true,
            };
            if has_failed {
                for target in std::mem::take(&mut round.reserve) {
                    round.beats.push(self.fence(target, round.term));
                }
            }
        }
    }
}
