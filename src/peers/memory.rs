//! The bytes of messages that are not here whole, of all connections together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::limits::{Receiving, Unfinished};
use super::message::Message;
use crate::types::Term;
use crate::types::config::UNFINISHED_FREE_BYTES;

/// What all connections share.
#[derive(Debug, Default)]
pub(super) struct Memory {
    unfinished: Mutex<Unfinished>,
    released: Notify,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection holds of it.
pub(super) struct Share {
    memory: Arc<Memory>,
    number: u64,
    holds: bool,
    /// Whether the sender is the leader that is followed, in this term.
    leads: Box<dyn Fn(Term) -> bool + Send + Sync>,
}

impl Share {
    /// Nothing yet.
    pub(super) fn new(
        memory: Arc<Memory>,
        number: u64,
        leads: impl Fn(Term) -> bool + Send + Sync + 'static,
    ) -> Share {
        Share { memory, number, holds: false, leads: Box::new(leads) }
    }

    /// Waits until so many bytes of this message may be held; may be dropped half-way. Small messages need not wait: members'
    /// votes come whatever strangers hold.
    pub(super) async fn hold(&mut self, message: Option<&Message>, bytes: usize) {
        if bytes <= UNFINISHED_FREE_BYTES {
            return;
        }
        loop {
            // Before it looks, so that nothing is missed.
            let released = self.memory.released.notified();
            let from_leader = match message {
                Some(Message::AppendEntries(append)) => (self.leads)(append.term),
                _ => false,
            };
            let receiving = if from_leader { Receiving::FromLeader } else { Receiving::FromOther };
            if self.memory.lock().may_hold(self.number, receiving, bytes) {
                self.holds = true;
                return;
            }
            released.await;
        }
    }

    /// The message is whole, or is given up.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.memory.lock().release(self.number);
            self.memory.released.notify_waiters();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}
