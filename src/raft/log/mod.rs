//! The log: in memory, as openraft writes and reads it, and the way to the log thread.

mod durable;
mod health;
mod sender;
mod state;
mod store;
mod view;

pub(crate) use health::{Health, Trouble};
pub use sender::{LogPhase, LogSender, LogSignals};
pub(crate) use store::LogStore;
pub(crate) use view::LogView;
