//! The way of proposals into the log.

mod merge;
mod proposer;
mod queue;

pub use merge::Proposed;
pub use proposer::EpochHooks;
pub(crate) use proposer::{EpochEnd, Proposer};
pub(crate) use queue::ProposalQueue;
pub use queue::Refused;
