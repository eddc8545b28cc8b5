//! openraft: types, engine, its storage and state machine traits. A folder imports only from those below it
//! (docs/architecture.md, "Inside raft").

mod apply;
mod election;
mod engine;
mod inbound;
mod log;
pub mod machine;
mod membership;
mod propose;
mod replication;
mod rounds;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
mod types;

pub use apply::Applied;
pub use engine::{CurrentConfiguration, Engine, EngineError, EngineOptions};
pub use log::{LogPhase, LogSender, LogSignals};
pub use machine::{Machine, SnapshotContent};
pub use membership::{DeletionPermit, DeletionRefused};
pub use propose::{EpochHooks, Proposed, Refused};
pub use rounds::Proof;
pub use snapshot::{ReceivedSnapshot, SnapshotFiles, SnapshotPace, SnapshotPolicy, SnapshotStore};
pub use types::{Change, ChangeError, Serving, SnapshotPosition, Status};
