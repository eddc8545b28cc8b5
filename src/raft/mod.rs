//! openraft: types, engine, its storage and state machine traits.

mod apply;
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
mod log;
pub mod machine;
#[path = "membership/changes.rs"]
pub mod membership;
mod propose;
mod replication;
mod rounds;
mod snapshot;
#[cfg(test)]
#[path = "testing/parts.rs"]
pub(crate) mod testing;
#[path = "election/leading.rs"]
mod timers;
mod types;

pub use apply::Applied;
pub use deletion::{DeletionPermit, DeletionRefused};
pub use engine::{CurrentConfiguration, Engine};
pub use engine_options::{EngineError, EngineOptions};
pub use log::{LogPhase, LogSender};
pub use machine::{Machine, SnapshotContent};
pub use propose::{EpochHooks, Proposed, Refused, RefusedReason};
pub use rounds::Proof;
pub use snapshot::{ReceivedSnapshot, SnapshotFiles, SnapshotPace, SnapshotPolicy, SnapshotStore};
pub use types::{Change, ChangeError, Serving, SnapshotPosition, Status};
