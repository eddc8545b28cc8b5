//! What a start reads of a directory, and has repaired. spec: disk-format 7.

use super::directory::{Directory, DirectoryLock};
use super::error::StorageError;
pub use super::plan::SetAside;
use super::settle::settle;
pub use super::survey::{LoadOptions, Loaded};
use super::survey::{Survey, survey};

/// Loads the directory. After it there is no open segment. Nothing is changed if it fails before it repairs.
///
/// # Errors
/// Every damage that disk-format 7.5 answers with a failing start; holes in the log; a log without metadata.
pub fn load(
    directory: &Directory,
    lock: &DirectoryLock,
    options: &LoadOptions,
) -> Result<Loaded, StorageError> {
    let Survey { loaded, plan, log } = survey(directory, options)?;
    // Metadata is durable before the first entry.
    if let Some(log) = log.filter(|_| loaded.metadata.version == 0) {
        return Err(StorageError::MetadataMissing { log });
    }
    settle(directory, lock, &plan, options.wall_clock.as_ref())?;
    for segment in &plan.set_aside {
        tracing::warn!(%segment, "a segment was set aside");
    }
    Ok(loaded)
}
