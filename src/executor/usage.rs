//! What the sessions of a node hold and wait for at this moment.

use std::time::Duration;

use super::Executor;

/// What is held and waited for. All of it is zero when no client is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Permits to be inside SQLite that are taken.
    pub permits: usize,
    /// Those who wait for a permit.
    pub waiting_for_permit: usize,
    /// Turns of writers that are taken.
    pub turns: usize,
    /// Those who wait for a turn.
    pub waiting_for_turn: usize,
    /// The longest time for which a turn has been held by now, those held by open transactions of clients left out.
    pub turn_held_for: Duration,
    /// Transactions that are proposed and not yet applied.
    pub transactions: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Those who wait for room for a transaction.
    pub waiting_for_room: usize,
    /// Connections of SQLite that are open.
    pub connections: usize,
}

impl Executor {
    /// What sessions hold and wait for.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (permits, waiting_for_permit) = self.permits.usage();
        let (turns, waiting_for_turn) = self.turns.usage();
        let (transactions, bytes, waiting_for_room) = self.store.room().usage();
        Usage {
            permits,
            waiting_for_permit,
            turns,
            waiting_for_turn,
            turn_held_for: self.turns.held_for(),
            transactions,
            bytes,
            waiting_for_room,
            connections: self.store.connections(),
        }
    }
}
