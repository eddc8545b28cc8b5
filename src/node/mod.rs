//! A node's life: options, start, stop, handover, recover, role management.

pub mod background;
pub mod core;
pub mod environment;
pub mod error_text;
pub mod failure;
pub mod handle;
pub mod node_id;
pub mod options;
pub mod pool;
pub mod roles;
pub mod run_parts;
pub mod running;
pub mod threads;
pub mod trace;

#[cfg(test)]
mod core_disk_tests;
#[cfg(test)]
mod core_testing;
#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod ended_tests;
#[cfg(test)]
mod guess_tests;
#[cfg(test)]
mod long_statement_tests;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod query_tests;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
mod statement_tests;
#[cfg(test)]
mod stop_tests;
