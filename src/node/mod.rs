//! A node's life: options, start, stop, handover, recover, role management.

pub mod core;
pub mod options;
pub mod run_parts;
pub mod running;
pub mod threads;

#[cfg(test)]
mod running_tests;
