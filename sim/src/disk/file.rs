//! An open file of the simulated file system: what is written to it, and what of that a sync makes durable.

use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;

use dqlite::storage::disk::DiskFile;
use dqlite::types::scratch::ScratchFile;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Change, SimDisk, apply, torn};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) inode: usize,
    /// It may get a name.
    pub(super) unnamed: bool,
}

impl SimFile {
    fn write(&self, bytes: Vec<u8>, offset: u64) -> io::Result<()> {
        let mut state = self.disk.enter("write", &self.path);
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let grows = state.inodes[self.inode].content.len() < offset + bytes.len();
        match state.step("write", &self.path, &bytes, grows) {
            Ok(()) => {
                state.change(self.inode, Change::Write { offset, bytes });
                Ok(())
            }
            // A write that is cut off may have reached the disk in part.
            Err(error) => {
                if state.off {
                    state.inodes[self.inode].pending.push(Change::Write { offset, bytes });
                }
                Err(error)
            }
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.enter("set length", &self.path);
        let length = usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?;
        let grows = state.inodes[self.inode].content.len() < length;
        state.step("set length", &self.path, &bytes.to_le_bytes(), grows)?;
        state.change(self.inode, Change::Length(length));
        Ok(())
    }

    fn sync(&mut self, what: &str) -> io::Result<()> {
        let mut state = self.disk.enter(what, &self.path);
        let result = state.step(what, &self.path, &[], false);
        // Only entries are forgotten: a directory in disorder would not start at all.
        let is_segment = self.path.file_name().is_some_and(|name| name.to_string_lossy().contains("open-"));
        let (off, forgets) = (state.off, state.forgets && is_segment && what == "sync data");
        let inode = &mut state.inodes[self.inode];
        match &result {
            Ok(()) if forgets => {}
            Ok(()) => {
                let pending = std::mem::take(&mut inode.pending);
                if std::mem::take(&mut inode.has_lost) {
                    inode.durable = inode.content.clone();
                } else {
                    // A large file that is synced often is not copied each time.
                    pending.iter().for_each(|change| apply(&mut inode.durable, change));
                }
            }
            // The kernel forgets that these pages are dirty: a later sync does not write them.
            Err(_) if !off => {
                inode.has_lost = true;
                let mut random = SmallRng::seed_from_u64(inode.pending.len() as u64);
                for change in std::mem::take(&mut inode.pending) {
                    for part in torn(&change, &mut random) {
                        apply(&mut inode.durable, &part);
                    }
                }
            }
            Err(_) => {}
        }
        result
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.enter("read", &self.path);
        state.step("read", &self.path, &offset.to_le_bytes(), false)?;
        let content = &state.inodes[self.inode].content;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.write(slices.iter().flat_map(|slice| slice.iter().copied()).collect(), offset)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.resize(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<bool> {
        self.resize(bytes).map(|()| true)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync("sync data")
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync("sync all")
    }

    fn link(&mut self, name: &str) -> io::Result<()> {
        assert!(self.unnamed, "{} was made with a name", self.path.display());
        let path = self.path.with_file_name(name);
        let mut state = self.disk.enter("link", &path);
        state.step("link", &path, &[], false)?;
        if state.names.contains_key(&path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.link(path.clone(), self.inode);
        drop(state);
        self.path = path;
        Ok(())
    }

    fn duplicate(&self) -> io::Result<Box<dyn DiskFile>> {
        let SimFile { disk, path, inode, unnamed } = self;
        Ok(Box::new(SimFile { disk: disk.clone(), path: path.clone(), inode: *inode, unnamed: *unnamed }))
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.enter("length", &self.path);
        state.step("length", &self.path, &[], false)?;
        Ok(state.inodes[self.inode].content.len() as u64)
    }
}

impl ScratchFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            count if count == buffer.len() => Ok(()),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes.to_vec(), offset)
    }

    fn punch(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes)
    }
}
