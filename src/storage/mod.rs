//! The data directory: segments, metadata, snapshot files, load and recovery, the log.

pub mod bootstrap;
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
pub mod snapshot;
pub mod snapshot_meta;
mod truncation;

#[cfg(test)]
mod payload_tests;
#[cfg(test)]
mod tests;
