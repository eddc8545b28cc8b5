//! Files without a name in the data directory: made without one where the file system can, else removed at once. A name left
//! by a crash in between begins with `tmp-`, which every node ignores and the next start removes. spec: disk-format 7.1.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::scratch::{ScratchDisk, ScratchFile};

/// Begin of the name of a file for the moment before it is removed; a number follows.
const TEMPORARY_PREFIX: &str = "tmp-unnamed-";
/// Permissions, for that moment.
const FILE_MODE: u32 = 0o600;

/// Unnamed files of one directory, whose lock the caller holds.
#[derive(Clone, Debug)]
pub struct UnnamedFiles {
    directory: PathBuf,
    /// Numbers of the names.
    next: Arc<AtomicU64>,
}

impl UnnamedFiles {
    /// Files on the file system of `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> UnnamedFiles {
        UnnamedFiles { directory: directory.to_path_buf(), next: Arc::default() }
    }

    fn create_without_name(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .custom_flags(libc::O_TMPFILE)
            .open(&self.directory)
    }

    fn create_and_remove(&self) -> io::Result<File> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{TEMPORARY_PREFIX}{number}"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

impl ScratchDisk for UnnamedFiles {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        // Whatever the reason was that there is none without a name: the other way shows whether there can be one.
        let file = self.create_without_name().or_else(|_| self.create_and_remove())?;
        Ok(Box::new(Unnamed(file)))
    }
}

#[derive(Debug)]
struct Unnamed(File);

impl ScratchFile for Unnamed {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_file_leaves_no_name_either_way() {
        let folder = tempfile::tempdir().unwrap();
        let files = UnnamedFiles::new(folder.path());
        // Left by a crash between its two steps.
        std::fs::write(folder.path().join("tmp-unnamed-0"), b"old").unwrap();
        let removed = files.create_and_remove().unwrap();
        assert_eq!(removed.metadata().unwrap().len(), 0);

        let file = files.create().unwrap();

        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        file.write_all_at(b"abc", 10).unwrap();
        let mut read = [9; 4];
        file.read_exact_at(&mut read, 9).unwrap();
        assert_eq!(read, *b"\0abc");
        file.set_len(11).unwrap();
        assert_eq!(file.read_exact_at(&mut read, 9).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn there_is_no_file_without_its_directory() {
        let folder = tempfile::tempdir().unwrap();

        let error = UnnamedFiles::new(&folder.path().join("none")).create().unwrap_err();

        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
