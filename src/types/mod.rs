//! What every layer shares: ids, terms, indices, pages numbers, raft entries and configurations with their bytes,
//! limits, clock, random source, tasks.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod configuration;
#[cfg(test)]
pub(crate) mod data_driven;
pub mod entry;
#[doc(hidden)]
pub mod fault;
pub mod id;
pub mod pause;
pub mod payload;
pub mod random;
pub mod scratch;
pub mod space;
pub mod tasks;
pub mod waiters;

pub use configuration::{Configuration, ConfigurationError, Role, Server};
pub use entry::{Entry, EntryData, EntryKind, ProposalRange, ProposalToken};
pub use id::{LogIndex, NodeId, PageNumber, Term};
pub use payload::Chunk;
