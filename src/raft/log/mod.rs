//! The log: in memory, as openraft writes and reads it, and the way to the log thread.

mod sender;
mod state;
mod store;
mod view;

pub use sender::{LogPhase, LogSender};
pub(crate) use store::LogStore;
pub(crate) use view::LogView;
