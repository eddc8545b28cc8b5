//! The data directory: segments, metadata, snapshot files, load and recovery, the log.

pub mod bootstrap;
mod catalogue;
pub mod checksum;
pub mod directory;
pub mod disk;
mod erasure;
pub mod error;
mod housekeeping;
pub mod load;
pub mod log;
mod log_segments;
pub mod metadata;
mod open_segment;
mod operations;
pub mod recover;
pub mod scratch;
pub mod segment;
pub mod segment_content;
mod settle;
pub mod snapshot;
pub mod snapshot_meta;
mod truncation;
mod vault;

#[cfg(test)]
mod payload_tests;
#[cfg(test)]
mod tests;
