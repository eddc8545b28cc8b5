//! A node's life: options, start, stop, handover, recover, role management.

mod accepting;
mod background;
pub mod core;
pub mod environment;
pub mod error_text;
pub mod failure;
pub mod handing_over;
pub mod handle;
pub mod keeper;
pub mod life;
pub mod log_thread;
mod lookout;
pub mod node_id;
mod opened;
pub mod opening;
pub mod options;
pub mod own_threads;
pub mod pool;
pub mod roles;
pub mod run_parts;
pub mod running;
mod sql_runtime;
pub mod start;
mod supervision;
pub mod threads;
mod tidying;
pub mod trace;
pub mod vault_thread;
mod writers;

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
mod directory_tests;
#[cfg(test)]
mod ended_tests;
#[cfg(test)]
mod guess_tests;
#[cfg(test)]
mod large_tests;
#[cfg(test)]
mod long_statement_tests;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod query_tests;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
mod statement_tests;
#[cfg(test)]
mod stop_tests;
