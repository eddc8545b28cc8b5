//! What peers send, on its way to openraft.

mod appends;
mod route;
mod snapshots;

pub(crate) use appends::Appends;
pub(crate) use route::RaftInbound;
pub(crate) use snapshots::Installs;
