//! A leader with a bad disk: leadership goes to a node whose disk is known to work, and if nobody takes it this node falls silent.
//! Without such a node it stays: writes wait or are refused, and reads go on.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::times::Times;
use super::transfer::Transfer;
use crate::raft::apply::{Consensus, committed, matched};
use crate::raft::log::{Health, LogView, Trouble};
use crate::raft::propose::EpochHooks;
use crate::raft::types::{LOOK_AGAIN, Scope, StatusBoard};
use crate::types::config::{DISK_HANDOVER_REST, DISK_HANDOVER_TARGETS, LOG_FAILING_MAX};
use crate::types::{LogIndex, NodeId, Term};

/// What it works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskParts {
    pub(crate) id: NodeId,
    pub(crate) raft: Consensus,
    pub(crate) log: LogView,
    pub(crate) status: StatusBoard,
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) hooks: Arc<dyn EpochHooks>,
    pub(crate) scope: Scope,
    pub(crate) times: Times,
}

/// Looks after the disk of a node while it leads.
pub(crate) struct DiskWatch {
    parts: DiskParts,
    health: Health,
    /// Leadership is being handed over for the disk.
    hands_over: Arc<AtomicBool>,
    /// When it was last.
    handed_over: Option<Instant>,
    /// Those who waited were answered, and nothing became durable since.
    has_answered: bool,
}

impl DiskWatch {
    pub(crate) fn new(parts: DiskParts) -> DiskWatch {
        let (health, hands_over) = (Health::default(), Arc::default());
        DiskWatch { parts, health, hands_over, handed_over: None, has_answered: false }
    }

    /// Leadership begins: what was seen before is over.
    pub(super) fn begin(&mut self) {
        self.health = Health::default();
    }

    /// To be called again and again while this node leads.
    pub(super) fn look(&mut self, term: Term) {
        let (now, log) = (Instant::now(), &self.parts.log);
        let look = log.look(committed(&self.parts.raft));
        self.health.look(now, &look);
        self.answer_those_who_wait(now);
        let Some(trouble) = self.health.trouble(now) else { return };
        let rests = self.handed_over.is_some_and(|at| now - at < DISK_HANDOVER_REST);
        // What is in trouble, and whoever has stored it can do without this node.
        let proof = (trouble != Trouble::IsFull).then(|| look.durable.next());
        if rests || proof.is_some_and(|index| !self.parts.can_do_without(index)) || self.parts.is_alone() {
            return;
        }
        if self.hands_over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.handed_over = Some(now);
        let (parts, ended) = (self.parts.clone(), Flag(Arc::clone(&self.hands_over)));
        self.parts.scope.spawn_until_stopped(async move {
            parts.hand_over(trouble, term, proof).await;
            drop(ended);
        });
    }

    /// A write that waits for the disk for long is answered: nobody knows what becomes of it.
    fn answer_those_who_wait(&mut self, now: Instant) {
        if self.health.stands_for(now) < LOG_FAILING_MAX {
            self.has_answered = false;
        } else if let Some(serving) = self.parts.status.serving()
            && !std::mem::replace(&mut self.has_answered, true)
        {
            warn!("the log cannot be written for long: what waits for it is answered");
            self.parts.hooks.end_this_epoch(serving.epoch, None);
        }
    }
}

/// Set until this is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl DiskParts {
    fn is_alone(&self) -> bool {
        self.log.configuration().0.is_only_voter(self.id)
    }

    /// Voters that have an entry, this node not counted, those with the most first.
    fn holders(&self, index: LogIndex) -> Vec<NodeId> {
        let configuration = self.log.configuration().0;
        let others = configuration.voters().filter(|server| server.id != self.id);
        let mut holders: Vec<(NodeId, LogIndex)> = others
            .map(|server| (server.id, matched(&self.raft, server.id)))
            .filter(|(_, matched)| *matched >= index)
            .collect();
        holders.sort_by_key(|(_, matched)| Reverse(*matched));
        holders.into_iter().map(|(id, _)| id).collect()
    }

    /// Whether a majority has an entry, this node not counted: their disks work.
    fn can_do_without(&self, index: LogIndex) -> bool {
        self.holders(index).len() >= self.log.configuration().0.majority()
    }

    /// An entry that others have stored since the trouble began; where nothing is written, one that is made for it.
    async fn prove(&self, proof: Option<LogIndex>) -> Option<LogIndex> {
        if proof.is_some() {
            return proof;
        }
        let written = timeout(self.times.election, self.raft.write_blank()).await.ok()?.ok()?;
        let index = LogIndex(written.log_id.index);
        let stored = async {
            while !self.can_do_without(index) {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(self.times.election, stored).await.ok()?;
        Some(index)
    }

    fn leads_in(&self, term: Term) -> bool {
        self.status.term() == term && !self.log.has_left(term)
    }

    async fn hand_over(&self, trouble: Trouble, term: Term, proof: Option<LogIndex>) {
        let Some(index) = self.prove(proof).await else { return };
        let because = trouble.text();
        for target in self.holders(index).into_iter().take(DISK_HANDOVER_TARGETS) {
            warn!(because, to = target.0, term = term.0, "leadership goes to another node");
            let handed = self.transfer.begin_within(Some(target), self.times.election / 3).await;
            if handed.is_ok() || !self.leads_in(term) {
                return;
            }
        }
        match trouble {
            Trouble::Fails | Trouble::Hangs => {
                warn!(because, term = term.0, "nobody takes leadership over: this node falls silent");
                self.transfer.step_down().await;
            }
            // It can lead.
            Trouble::IsSlow | Trouble::IsFull => info!(because, "nobody takes leadership over"),
        }
    }
}
