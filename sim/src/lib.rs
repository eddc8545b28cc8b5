//! Whole nodes on a simulated disk and clock: a seed replays exactly.

pub mod baton;
pub mod c_node;
pub mod campaign;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod mixed;
mod nemesis;
pub mod network;
pub mod node;
pub mod scenario;
pub mod sessions;
pub mod stream;
