//! From committed entries to the replicated state, and openraft itself, whose type names the state machine.

mod consensus;
mod due;
mod state_machine;
#[cfg(test)]
mod storage_tests;

pub(crate) use consensus::{Consensus, committed, leading_term, matched};
pub(crate) use due::SnapshotsDue;
pub use state_machine::Applied;
pub(crate) use state_machine::{StateMachine, loaded_snapshot};
