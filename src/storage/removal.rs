//! What a snapshot makes unnecessary, and how it goes. spec: disk-format 5.4.

use super::catalogue::{Catalogue, ClosedSegment};
use super::directory::{Directory, is_listed};
use super::erasure::Erasing;
use super::error::StorageError;
use super::snapshot_meta::SnapshotName;
use crate::types::LogIndex;

/// Snapshots that stay. spec: disk-format 5.4.
const SNAPSHOTS_KEPT: usize = 2;

/// The closed segments of a directory, by first index.
pub(super) fn closed_segments(directory: &Directory) -> Result<Vec<ClosedSegment>, StorageError> {
    Ok(Catalogue::of(&directory.list()?).closed)
}

/// Removes closed segments from the oldest on while they end before `keep_from`; their bytes are erased later.
pub(super) fn remove_before(
    directory: &Directory,
    keep_from: LogIndex,
    erasing: &mut Erasing,
) -> Result<(), StorageError> {
    for segment in closed_segments(directory)? {
        if segment.last >= keep_from {
            break;
        }
        erasing.take_name(directory, &segment.name)?;
    }
    directory.sync()
}

/// Keeps the newest two complete snapshots, by term, index and time stamp; the bytes of others are erased later.
/// spec: disk-format 5.4.
pub(super) fn remove_old_snapshots(directory: &Directory, erasing: &mut Erasing) -> Result<(), StorageError> {
    let files = directory.list()?;
    let metas = files.iter().filter_map(|(name, _)| SnapshotName::parse_meta(name));
    // One whose data has no name yet is none.
    let mut snapshots: Vec<SnapshotName> =
        metas.filter(|name| is_listed(&files, &name.data_name())).collect();
    snapshots.sort_unstable();
    let old = snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
    for name in &snapshots[..old] {
        directory.remove_if_there(&name.meta_name())?;
        erasing.take_name(directory, &name.data_name())?;
    }
    directory.sync()
}
