//! Raft messages between nodes.

pub mod message;
