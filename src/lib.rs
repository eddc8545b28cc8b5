//! Replicated SQLite behind the C interface of `libdqlite.so.0`.
//!
//! A folder is a layer; a layer uses only layers further down this list (`tests/layering.rs`).
//! The map is `docs/architecture.md`.

pub mod client;
pub mod executor;
pub mod ffi;
pub mod gateway;
pub mod host;
pub mod memory;
pub mod node;
pub mod pages;
pub mod peers;
pub mod protocol;
pub mod raft;
pub mod server;
pub mod state_machine;
pub mod storage;
pub mod transport;
pub mod types;
pub mod vfs;
