//! The machine of sessions: clients that do anything that the client protocol allows, at random and by seed, while leaders
//! move, stop and lose their power. When all clients have gone, nothing may be held or waited for, and everything that
//! anybody was told must be what plain SQLite does in the order of the journal.

pub mod campaign;
mod client;
pub mod model;
mod observer;
pub mod plain;
mod plays;
mod recipe;
pub mod record;
pub mod run;
pub mod schema;
mod shared;
mod transaction;
mod trouble;
mod wire;

#[cfg(test)]
mod model_tests;

pub use run::{Report, history};
pub use shared::Counts;
