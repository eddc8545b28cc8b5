//! openraft: types, engine, its storage and state machine traits.

pub mod engine;
pub mod leader_id;
mod log_sender;
mod log_store;
pub mod machine;
mod network;
pub mod proposer;
pub mod snapshot;
pub mod snapshot_files;
mod state_machine;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;

pub use engine::{CurrentConfiguration, Engine, EngineError, EngineOptions, NotLeader};
pub use log_sender::LogSender;
pub use machine::{Machine, SnapshotContent};
pub use proposer::{EpochHooks, Refused, RefusedReason};
pub use snapshot::{SnapshotPolicy, SnapshotPosition, SnapshotStore};
pub use snapshot_files::SnapshotFiles;
pub use state_machine::Applied;
pub use status::{Serving, Status};
