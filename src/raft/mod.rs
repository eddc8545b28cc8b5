//! openraft: types, engine, its storage and state machine traits.

mod append_session;
pub mod deletion;
mod elections;
pub mod engine;
mod engine_options;
mod failover;
mod inbound;
pub mod leader_id;
mod log_sender;
mod log_state;
mod log_store;
mod log_view;
pub mod machine;
pub mod membership;
mod network;
mod paced;
pub mod proposal_queue;
pub mod proposer;
mod reads;
pub mod snapshot;
pub mod snapshot_files;
mod snapshot_receive;
mod snapshot_send;
mod state_machine;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
mod timers;
pub mod types;

pub use deletion::{DeletionPermit, DeletionRefused};
pub use engine::{CurrentConfiguration, Engine};
pub use engine_options::{EngineError, EngineOptions};
pub use log_sender::{LogPhase, LogSender};
pub use machine::{Machine, SnapshotContent};
pub use membership::ChangeError;
pub use proposal_queue::{Proposed, Refused, RefusedReason};
pub use proposer::EpochHooks;
pub use reads::Proof;
pub use snapshot::{SnapshotPace, SnapshotPolicy, SnapshotPosition, SnapshotStore};
pub use snapshot_files::SnapshotFiles;
pub use state_machine::Applied;
pub use status::{Serving, Status};
