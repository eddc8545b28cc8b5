//! Stands for elections when the table says so. openraft's own timers and pre-votes are off: they would decide beside it.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::board::LeaderBoard;
use super::question::Question;
use super::standing::Standing;
use super::table::{Because, Stand};
use super::times::Times;
use crate::peers::Peers;
use crate::peers::message::Message;
use crate::peers::replicator::Target;
use crate::raft::apply::{Consensus, leading_term};
use crate::raft::log::LogView;
use crate::raft::types::Scope;
use crate::types::NodeId;

/// Stands for elections.
pub(crate) struct Candidate {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) peers: Peers,
    pub(crate) board: LeaderBoard,
    pub(crate) standing: Standing,
    pub(crate) question: Question,
    pub(crate) scope: Scope,
    pub(crate) times: Times,
}

impl Candidate {
    /// Until openraft ends.
    pub(crate) async fn run(self) {
        let mut changes = self.board.changes();
        loop {
            changes.mark_unchanged();
            match self.standing.stand() {
                Stand::No(Because::NotDurable) => {
                    tokio::select! {
                        () = self.log.all_durable() => {}
                        () = self.wait(&mut changes, self.times.election) => {}
                    }
                }
                Stand::No(Because::Stands) => self.see_out(&mut changes).await,
                // Roles and disks change without a word: they are looked at now and then.
                Stand::No(_) => self.wait(&mut changes, self.times.election).await,
                Stand::Later(after) => self.wait(&mut changes, after).await,
                Stand::AskLeader => self.question.ask().await,
                Stand::Now => {
                    if self.would_win().await && self.standing.stand() == Stand::Now {
                        if let Err(error) = self.be_elected().await {
                            warn!(error, "no election");
                            return;
                        }
                    } else {
                        sleep(self.times.retry(self.scope.random().next_u64())).await;
                    }
                }
            }
        }
    }

    /// Waits for so long, or until something else is believed. Notices when this node was not running meanwhile.
    async fn wait(&self, changes: &mut watch::Receiver<u64>, after: Duration) {
        // The shorter a wait, the more of a pause is seen.
        let due = Instant::now() + after.min(self.times.fresh() / 2);
        tokio::select! {
            biased;
            // The board is this component's own: it does not end.
            _ = changes.changed() => {}
            () = sleep_until(due) => self.board.woke(due),
        }
    }

    /// Has openraft stand, and waits for what becomes of it.
    async fn be_elected(&self) -> Result<(), String> {
        let mut changes = self.board.changes();
        let Some(term) = self.standing.term() else { return Ok(()) };
        info!(term = term.0, "standing for election");
        self.raft.trigger().elect(false).await.map_err(|error| error.to_string())?;
        let decided = async {
            while leading_term(&self.raft, self.id) != Some(term) && !self.board.has_leader(term) {
                // As above.
                let _ = changes.changed().await;
            }
        };
        if timeout(self.times.round(), decided).await.is_err() {
            self.board.not_elected(term);
        }
        Ok(())
    }

    /// An election that nobody here waits for: a leader has handed over, or the vote was stored when the election was given up for lost.
    /// It ends as others do, else this node would stand in it for ever.
    async fn see_out(&self, changes: &mut watch::Receiver<u64>) {
        let (term, end) = (self.board.term(), Instant::now() + self.times.round());
        let stands = || self.standing.stand() == Stand::No(Because::Stands) && self.board.term() == term;
        while stands() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.board.not_elected(term);
                return;
            }
            self.wait(changes, left).await;
        }
    }

    /// Whether a majority would vote for this node now.
    async fn would_win(&self) -> bool {
        let Some(term) = self.standing.term() else { return false };
        let configuration = self.log.configuration().0;
        let request = self.standing.pre_vote(term);
        self.board.set_candidacy(Some((request.last_term, request.last_index)));
        let _ends = Candidacy(&self.board);
        let mut votes: FuturesUnordered<_> = configuration
            .voters()
            .filter(|server| server.id != self.id)
            .map(|server| {
                let target = Target::of(&self.peers, server);
                let answer = target.peer.expect_vote(request);
                async move {
                    target.send_message(&Message::RequestVote(request)).ok()?;
                    let answer = timeout(self.times.vote(), answer).await.ok()?.ok()?;
                    answer.granted.then_some(())
                }
            })
            .collect();
        let needed = configuration.majority();
        let mut granted = usize::from(configuration.is_voter(self.id));
        while granted < needed {
            match votes.next().await {
                Some(Some(())) => granted += 1,
                Some(None) => {}
                None => return false,
            }
        }
        // The log of the pre-vote is that of the vote.
        self.log.last().0 == request.last_index && self.standing.term() == Some(term)
    }
}

/// While it lives, this node asks for pre-votes.
struct Candidacy<'b>(&'b LeaderBoard);

impl Drop for Candidacy<'_> {
    fn drop(&mut self) {
        self.0.set_candidacy(None);
    }
}
