//! Addresses, dial, listen, connect callback.

pub mod address;
pub mod client_stream;
pub mod dial;
pub mod listener;
pub mod quiet;
pub mod spares;
