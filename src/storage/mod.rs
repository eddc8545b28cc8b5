//! The data directory: segments, metadata, snapshot files, load and recovery, the log.

pub mod bootstrap;
mod catalogue;
pub mod checksum;
pub mod directory;
pub mod disk;
mod erasure;
pub mod error;
pub mod file_disk;
mod file_lock;
mod housekeeping;
pub mod load;
pub mod log;
mod log_segments;
mod mark;
pub mod metadata;
mod new_file;
mod open_segment;
mod plan;
pub mod recover;
mod removal;
pub mod scratch;
pub mod segment;
pub mod segment_content;
mod settle;
pub mod snapshot;
pub mod snapshot_meta;
pub mod space;
mod survey;
mod truncation;
pub mod vault;
mod zeros;

#[cfg(test)]
mod hole_tests;
#[cfg(test)]
mod payload_tests;
#[cfg(test)]
mod tests;
