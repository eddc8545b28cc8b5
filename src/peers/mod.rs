//! Raft messages between nodes.
