//! What all of consensus shares: openraft's types, entries and where they stand, the node's status.

mod change;
mod entry;
mod late_timer;
mod leader_id;
mod position;
mod runtime;
mod scope;
mod status;
mod type_config;

pub(crate) use change::LOOK_AGAIN;
pub use change::{Change, ChangeError};
pub use entry::{Entry, EntryError, Node, Payload, Proposal, RaftStoredMembership, membership_of};
pub(crate) use late_timer::LateTimer;
pub use leader_id::LeaderId;
pub use position::{RaftLogId, SnapshotPosition, log_id, log_index, position, raft_index};
pub(crate) use scope::Scope;
pub(crate) use status::{Leadership, StatusBoard};
pub use status::{Serving, Status};
pub use type_config::{OutcomeSender, Runtime, TypeConfig};
