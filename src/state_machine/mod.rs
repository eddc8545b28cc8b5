//! The replicated state: commands, their application to the page store, and the content of snapshots.

pub mod command;
pub mod content;
pub mod databases;
mod fields;
pub mod frames;
