//! What a start repairs, with the lock held: leftovers are removed, damaged segments are set aside, those that a crash left open are
//! closed. Whenever it is cut off, the next survey comes to the same end. spec: disk-format 4.4, 7.1, 7.4.

use super::directory::{Directory, DirectoryLock, TEMPORARY_PREFIX, is_listed};
use super::disk::OpenMode;
use super::error::StorageError;
use super::metadata::{METADATA_BYTES, METADATA_NAMES};
use super::open_segment::close_file;
use super::plan::{FoundOpen, Plan};
use super::snapshot_meta::{SnapshotName, meta_name_of};
use crate::types::clock::WallClock;

/// Does what a survey found to be necessary. Afterwards there is no open segment. The survey may have taken long, and so may each of
/// these: the lock is asked for before each.
pub(super) fn settle(
    directory: &Directory,
    lock: &DirectoryLock,
    plan: &Plan,
    wall_clock: &dyn WallClock,
) -> Result<(), StorageError> {
    lock.check()?;
    clean_up(directory)?;
    let now = wall_clock.since_epoch().as_nanos();
    // From the newest down: what is left at any time is read as before.
    for segment in plan.set_aside.iter().rev() {
        lock.check()?;
        directory.rename(&segment.name, &format!("corrupt-{now}-{}", segment.name))?;
        directory.sync()?;
    }
    for name in plan.stale.iter().rev() {
        lock.check()?;
        directory.remove_if_there(name)?;
        directory.sync()?;
    }
    plan.close.iter().try_for_each(|open| {
        lock.check()?;
        close_found(directory, open)
    })
}

/// Makes a closed segment of an open one, or removes it if it has no entries.
fn close_found(directory: &Directory, found: &FoundOpen) -> Result<(), StorageError> {
    let FoundOpen { name, entries, end, bytes } = found;
    close_file(directory, name, *entries, || {
        let mut file = directory.place().open(name, OpenMode::Write)?;
        if end < bytes {
            file.set_len(*end as u64)?;
        }
        file.sync_all()
    })
}

/// Removes `tmp-*`, snapshot data without `.meta`, `.meta` without data, metadata cut off by a crash.
fn clean_up(directory: &Directory) -> Result<(), StorageError> {
    let files = directory.list()?;
    let has = |name: &str| is_listed(&files, name);
    for (name, bytes) in &files {
        let orphan = if let Some(snapshot) = SnapshotName::parse(name) {
            !has(&meta_name_of(name)) && !has(&snapshot.meta_name())
        } else if SnapshotName::parse_meta(name).is_some() {
            !name.strip_suffix(".meta").is_some_and(has)
        } else {
            name.starts_with(TEMPORARY_PREFIX)
        };
        if orphan {
            // Such a file is never read: that it stays does no harm. spec: disk-format 7.1 "errors are ignored".
            let _ = directory.remove(name);
        }
        if METADATA_NAMES.contains(&name.as_str()) && *bytes < METADATA_BYTES as u64 {
            directory.remove(name)?;
        }
    }
    Ok(())
}
