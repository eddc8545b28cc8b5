//! Snapshots: when they are due, taken, sent, received, and their files.

mod catalogue;
mod files;
mod paced;
mod policy;
mod receive;
mod send;
mod store;
mod take;

pub(crate) use catalogue::{Current, RaftSnapshotMeta, Received, Snapshots, Taking, stored_membership};
pub use catalogue::{RaftSnapshot, SnapshotData};
pub use files::SnapshotFiles;
pub use policy::{SnapshotPace, SnapshotPolicy};
pub(crate) use receive::SnapshotReceiver;
pub(crate) use send::{SendError, send_snapshot};
pub use store::{ReceivedSnapshot, SnapshotStore};
pub(crate) use take::SnapshotBuilder;
