//! Files without a name in the data directory: made without one where the file system can, else removed at once. A name left
//! by a crash in between begins with `tmp-`, which every node ignores and the next start removes. spec: disk-format 7.1.

use std::io;
use std::sync::Arc;

use super::directory::Directory;
use super::disk::DiskDirectory;
use crate::types::scratch::{ScratchDisk, ScratchFile};

/// Unnamed files of one directory, whose lock the caller holds.
#[derive(Clone, Debug)]
pub struct UnnamedFiles {
    place: Arc<dyn DiskDirectory>,
}

impl UnnamedFiles {
    /// Files on the file system of `directory`.
    #[must_use]
    pub fn new(directory: &Directory) -> UnnamedFiles {
        UnnamedFiles { place: Arc::clone(directory.place()) }
    }
}

impl ScratchDisk for UnnamedFiles {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        self.place.create_scratch()
    }
}
