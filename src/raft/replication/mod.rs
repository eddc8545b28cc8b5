//! openraft's way to other nodes.

mod client;
mod network;
mod session;

pub(crate) use client::{Network, term_only};
