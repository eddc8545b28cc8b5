//! Addresses, dial, listen, connect callback.

pub mod address;
pub mod dial;
pub mod listener;
