//! openraft: types, engine, its storage and state machine traits.

#[path = "replication/session.rs"]
mod append_session;
#[path = "membership/deletion.rs"]
pub mod deletion;
#[path = "election/candidate.rs"]
mod elections;
pub mod engine;
#[path = "engine/options.rs"]
mod engine_options;
#[path = "election/view.rs"]
mod failover;
#[path = "inbound/appends.rs"]
mod inbound;
#[path = "types/leader_id.rs"]
pub mod leader_id;
#[path = "log/sender.rs"]
mod log_sender;
#[path = "log/state.rs"]
mod log_state;
#[path = "log/store.rs"]
mod log_store;
#[path = "log/view.rs"]
mod log_view;
pub mod machine;
#[path = "membership/changes.rs"]
pub mod membership;
#[path = "replication/network.rs"]
mod network;
#[path = "snapshot/paced.rs"]
mod paced;
#[path = "propose/queue.rs"]
pub mod proposal_queue;
#[path = "propose/proposer.rs"]
pub mod proposer;
#[path = "rounds/reads.rs"]
mod reads;
#[path = "snapshot/catalogue.rs"]
pub mod snapshot;
#[path = "snapshot/files.rs"]
pub mod snapshot_files;
#[path = "snapshot/receive.rs"]
mod snapshot_receive;
#[path = "snapshot/send.rs"]
mod snapshot_send;
#[path = "apply/state_machine.rs"]
mod state_machine;
#[path = "types/status.rs"]
pub mod status;
#[cfg(test)]
#[path = "testing/parts.rs"]
pub(crate) mod testing;
#[path = "election/leading.rs"]
mod timers;
#[path = "types/entry.rs"]
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
