//! Whole nodes on a simulated disk and clock: a seed replays exactly.

pub mod bad_disks;
pub mod baton;
pub mod c_node;
pub mod campaign;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod disk_worker;
pub mod history;
pub mod mixed;
mod nemesis;
pub mod network;
pub mod node;
mod node_client;
pub mod scenario;
pub mod sessions;
mod siege;
pub mod stream;
mod workload;
