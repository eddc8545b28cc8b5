//! What a start repairs: segments that a crash left open are closed, damaged ones are set aside. spec: disk-format 4.4, 7.4.

use super::directory::Directory;
use super::disk::OpenMode;
use super::error::StorageError;
use super::open_segment::close_file;
use super::segment::OpenContent;
use crate::types::LogIndex;
use crate::types::clock::WallClock;

/// Makes a closed segment of an open one of `bytes` that was found, or removes it if it has no entries.
pub(super) fn close_found(
    directory: &Directory,
    name: &str,
    first: LogIndex,
    good: &OpenContent,
    bytes: usize,
) -> Result<(), StorageError> {
    let last = first.plus(good.entries.len() as u64).previous();
    close_file(directory, name, (!good.entries.is_empty()).then_some((first, last)), || {
        let mut file = directory.disk().open(&directory.file(name), OpenMode::Write)?;
        if good.end < bytes {
            file.set_len(good.end as u64)?;
        }
        file.sync_all()
    })
}

/// Renames segments so that nothing reads them.
pub(super) fn set_aside<'a>(
    directory: &Directory,
    wall_clock: &dyn WallClock,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), StorageError> {
    let now = wall_clock.since_epoch().as_nanos();
    for name in names {
        directory.rename(name, &format!("corrupt-{now}-{name}"))?;
    }
    directory.sync()
}
