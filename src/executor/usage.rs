//! What the sessions of a node hold and wait for at this moment.

use std::sync::PoisonError;

use crate::types::config;

use super::Executor;

/// What is held and waited for. All of it is zero when no client is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Permits to be inside SQLite.
    pub permits: usize,
    /// Transactions that have room in flight.
    pub transactions: usize,
    /// Bytes that are proposed and not yet applied.
    pub bytes: usize,
    /// Databases whose writer's turn is taken.
    pub turns: usize,
    /// Writers that wait for a turn.
    pub waiting_for_turn: usize,
}

impl Executor {
    /// What sessions hold and wait for.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut held, mut waiting) = (0, 0);
        for turn in turns.values() {
            let (is_held, waiters) = turn.usage();
            held += usize::from(is_held);
            waiting += waiters;
        }
        Usage {
            permits: self.permits.taken(),
            transactions: config::IN_FLIGHT_TRANSACTIONS_MAX - self.in_flight.free(),
            bytes: self.in_flight.bytes(),
            turns: held,
            waiting_for_turn: waiting,
        }
    }
}
