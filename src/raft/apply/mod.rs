//! From committed entries to the replicated state, and openraft itself, whose type names the state machine.

mod consensus;
mod state_machine;
#[cfg(test)]
mod storage_tests;

pub(crate) use consensus::{Consensus, leading_term, matched};
pub use state_machine::Applied;
pub(crate) use state_machine::{StateMachine, loaded_snapshot};
