//! Zeros that are written into a segment ahead of its entries: a sync of entries is the fastest where the file system has nothing
//! to note but their bytes. Only a little is written ahead, since a snapshot may close the segment at any time.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use crate::types::config::{SYNC_BYTES_LARGE, WRITTEN_OUT_AT_ONCE_BYTES, ZEROS_AHEAD_BYTES};

/// What is written at once.
const ZEROS: &[u8; WRITTEN_OUT_AT_ONCE_BYTES as usize] = &[0; WRITTEN_OUT_AT_ONCE_BYTES as usize];

/// How a segment gets the zeros that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    /// They are written ahead: the syncs of entries are the fastest then.
    Written,
    /// The file system gives them: half as much is written.
    Allocated,
}

impl Zeros {
    /// What suits the segments to come after one with `bytes` in `syncs`. Pure.
    pub(super) fn after(bytes: u64, syncs: u64) -> Zeros {
        if bytes / syncs.max(1) >= SYNC_BYTES_LARGE { Zeros::Allocated } else { Zeros::Written }
    }
}

/// Makes a file of `bytes` zeros, durably; up to where they were written.
pub(super) fn fill(file: &mut dyn DiskFile, bytes: u64, zeros: Zeros) -> io::Result<u64> {
    let ahead = match (file.allocate(bytes)?, zeros) {
        (true, Zeros::Allocated) => 0,
        (true, Zeros::Written) => bytes.min(ZEROS_AHEAD_BYTES),
        // Space that is not there when entries come would be an error then.
        (false, _) => {
            file.set_len(bytes)?;
            bytes
        }
    };
    write_zeros(file, 0, ahead)?;
    file.sync_all()?;
    Ok(ahead)
}

/// The syncs of entries must not wait behind all of it: it goes bit by bit.
fn write_zeros(file: &mut dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = usize::try_from(to - offset).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_vectored_at(&[IoSlice::new(&ZEROS[..length])], offset)?;
        offset += length as u64;
        if offset < to {
            file.sync_data()?;
        }
    }
    Ok(())
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const OVER: u8 = 2;

/// A part of a segment that is to be filled. Entries must not be written into it while that is done.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    name: String,
    from: u64,
    to: u64,
    stage: Arc<AtomicU8>,
}

impl Filling {
    /// The part of the segment `name` that is next, if it is time: entries end at `used`, zeros at `zeroed`, room at `room`.
    pub(super) fn due(name: &str, used: u64, zeroed: u64, room: u64) -> Option<Filling> {
        let (from, to) = (zeroed.max(used), (used + ZEROS_AHEAD_BYTES).min(room));
        let is_due = zeroed < room && zeroed.saturating_sub(used) < ZEROS_AHEAD_BYTES / 2 && from < to;
        is_due.then(|| Filling { name: name.to_owned(), from, to, stage: Arc::default() })
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.to
    }

    /// Whether entries that end at `end` may be written: those zeros are not needed, or there already. Where it has not begun, it
    /// never will.
    pub(super) fn makes_way(&self, end: u64) -> bool {
        end <= self.from
            || self.stage.compare_exchange(WAITING, OVER, Ordering::AcqRel, Ordering::Acquire) != Err(RUNNING)
    }

    /// Fills the part, unless entries are there by now. The file is opened anew: an error that the system reports once for each
    /// opening must reach whoever writes entries, too.
    pub(super) fn run(&self, directory: &Directory) -> io::Result<()> {
        if self.stage.compare_exchange(WAITING, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(());
        }
        let fill = || {
            let mut file = directory.place().open(&self.name, OpenMode::Write)?;
            write_zeros(file.as_mut(), self.from, self.to)?;
            file.sync_data()
        };
        let filled = fill();
        self.stage.store(OVER, Ordering::Release);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_disk::FileDisk;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn zeros_are_due_when_half_of_them_is_used_and_end_with_the_room() {
        let due =
            |used, zeroed| Filling::due("open-1", used, zeroed, 8 * MIB).map(|part| (part.from, part.to));

        assert_eq!(due(0, MIB), None);
        assert_eq!(due(MIB / 2, MIB), None);
        assert_eq!(due(MIB / 2 + 1, MIB), Some((MIB, 3 * MIB / 2 + 1)));
        assert_eq!(due(2 * MIB, MIB), Some((2 * MIB, 3 * MIB)));
        assert_eq!(due(15 * MIB / 2, 15 * MIB / 2), Some((15 * MIB / 2, 8 * MIB)));
        assert_eq!(due(8 * MIB, 8 * MIB), None);
    }

    #[test]
    fn entries_are_never_overwritten_by_zeros_that_come_late() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        std::fs::write(folder.path().join("open-1"), vec![7; 3000]).unwrap();
        let part = Filling { name: "open-1".to_owned(), from: 1000, to: 2000, stage: Arc::default() };

        assert!(part.makes_way(1000), "it is behind the entries");
        assert!(part.makes_way(1500), "it has not begun");
        part.run(&directory).unwrap();

        assert_eq!(std::fs::read(folder.path().join("open-1")).unwrap(), [7; 3000]);
        let part = Filling { stage: Arc::default(), ..part };
        part.run(&directory).unwrap();
        assert!(part.makes_way(3000), "it is over");
        let content = std::fs::read(folder.path().join("open-1")).unwrap();
        assert_eq!((&content[..1000], &content[1000..2000]), (&[7; 1000][..], &[0; 1000][..]));
        part.stage.store(RUNNING, Ordering::Release);
        assert!(part.makes_way(1000) && !part.makes_way(1001));
    }
}
