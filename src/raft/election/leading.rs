//! How long this node leads: a leader that no majority answers gives up, which openraft leaves to its user.
//! openraft-mapping 4.5.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::board::LeaderBoard;
use super::disk::DiskWatch;
use super::times::Times;
use super::transfer::Transfer;
use crate::raft::log::LogView;
use crate::raft::rounds::Contacts;
use crate::raft::types::Leadership;
use crate::types::{NodeId, Term};

/// Ends leadership that has no majority any more.
pub(crate) struct Leading {
    pub(crate) id: NodeId,
    pub(crate) log: LogView,
    pub(crate) board: LeaderBoard,
    pub(crate) contacts: Contacts,
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) disk: DiskWatch,
    pub(crate) times: Times,
}

impl Leading {
    /// Until openraft ends.
    pub(crate) async fn run(mut self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let now = leadership.borrow_and_update().clone();
            match now {
                Leadership::Stopped => return,
                Leadership::Leading(term) => self.lead_in(term, &mut leadership).await,
                Leadership::Other => {}
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// Until leadership has changed, which the caller sees.
    async fn lead_in(&mut self, term: Term, leadership: &mut watch::Receiver<Leadership>) {
        self.disk.begin();
        loop {
            let due = Instant::now() + self.times.beat();
            tokio::select! {
                biased;
                // Seen again by the caller.
                _ = leadership.changed() => {
                    leadership.mark_changed();
                    return;
                }
                () = sleep_until(due) => self.board.woke(due),
            }
            self.transfer.retire_if_not_voter();
            self.disk.look(term);
            let held = self.contacts.held(&self.log.configuration(), self.id);
            if !self.board.is_in_contact(held) {
                warn!(term = term.0, "no majority answers: leadership ends");
                self.transfer.step_down().await;
                return;
            }
        }
    }
}
