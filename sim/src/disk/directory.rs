//! An open directory of the simulated file system: names, and files without one.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dqlite::storage::disk::{
    DirEntryInfo, DirectoryStatus, Disk, DiskDirectory, DiskFile, DiskLock, Locking, OpenMode, Stat,
};
use dqlite::types::scratch::ScratchFile;

use super::file::SimFile;
use super::{Naming, SimDisk, name_durably};

impl Disk for SimDisk {
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn DiskDirectory>> {
        let mut state = self.enter("open directory", path);
        state.step("open directory", path, &[], false)?;
        if !state.directories.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Arc::new(SimDirectory { disk: self.clone(), path: path.to_owned() }))
    }
}

/// An open directory.
#[derive(Debug)]
struct SimDirectory {
    disk: SimDisk,
    path: PathBuf,
}

impl SimDirectory {
    fn file(&self, path: PathBuf, inode: usize, unnamed: bool) -> SimFile {
        SimFile { disk: self.disk.clone(), path, inode, unnamed }
    }

    fn create_without_name(&self) -> io::Result<SimFile> {
        let mut state = self.disk.enter("create unnamed", &self.path);
        state.step("create unnamed", &self.path, &[], true)?;
        let inode = state.create();
        drop(state);
        Ok(self.file(self.path.join("unnamed"), inode, true))
    }
}

impl DiskDirectory for SimDirectory {
    fn status(&self) -> io::Result<DirectoryStatus> {
        self.disk.enter("status", &self.path).step("status", &self.path, &[], false)?;
        Ok(DirectoryStatus { owner_may_write: true, is_removed: false })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(if self.disk.lock().has_no_space() { 0 } else { u64::MAX })
    }

    fn list(&self) -> io::Result<Vec<DirEntryInfo>> {
        let mut state = self.disk.enter("list", &self.path);
        state.step("list", &self.path, &[], false)?;
        let files = state.names.iter().filter(|(path, _)| path.parent() == Some(&self.path));
        let info = |(path, inode): (&PathBuf, &usize)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let stat = Stat { bytes: state.inodes[*inode].content.len() as u64, is_file: true };
            Some(DirEntryInfo { name, stat })
        };
        Ok(files.filter_map(info).collect())
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        let mut state = self.disk.enter("open", &path);
        let found = state.names.get(&path).copied();
        let creates = found.is_none() && matches!(mode, OpenMode::CreateWrite | OpenMode::CreateExclusive);
        state.step("open", &path, &[], creates)?;
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateExclusive) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(ErrorKind::NotFound.into()),
            (None, _) => {
                let inode = state.create();
                state.link(path.clone(), inode);
                inode
            }
        };
        Ok(Box::new(self.file(path, inode, false)))
    }

    fn create_unnamed(&self) -> io::Result<Option<Box<dyn DiskFile>>> {
        if self.disk.lock().names_all {
            return Ok(None);
        }
        Ok(Some(Box::new(self.create_without_name()?)))
    }

    fn create_scratch(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(self.create_without_name()?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        let mut state = self.disk.enter("rename", &from);
        state.step("rename", &from, &[], false)?;
        let inode = state.names.get(&from).copied().ok_or(ErrorKind::NotFound)?;
        let change = Naming::Rename { from, to, inode };
        name_durably(&mut state.names, &change);
        state.pending.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let mut state = self.disk.enter("remove", &path);
        state.step("remove", &path, &[], false)?;
        state.unlink(&path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.enter("sync directory", &self.path);
        state.step("sync directory", &self.path, &[], false)?;
        let pending = std::mem::take(&mut state.pending);
        let mut names = std::mem::take(&mut state.durable_names);
        pending.iter().for_each(|change| name_durably(&mut names, change));
        state.durable_names = names;
        Ok(())
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        let path = self.path.join(name);
        let mut state = self.disk.enter("stat", &path);
        state.step("stat", &path, &[], false)?;
        let inode = state.names.get(&path).ok_or(ErrorKind::NotFound)?;
        Ok(Stat { bytes: state.inodes[*inode].content.len() as u64, is_file: true })
    }

    fn lock(&self, name: &str) -> io::Result<Locking> {
        let path = self.path.join(name);
        let mut state = self.disk.enter("lock", &path);
        state.step("lock", &path, &[], false)?;
        if !state.names.contains_key(&path) {
            let inode = state.create();
            state.link(path.clone(), inode);
        }
        if !state.locks.insert(path.clone()) {
            return Ok(Locking::Taken { by: None });
        }
        Ok(Locking::Held(Box::new(SimLock { disk: self.disk.clone(), path })))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}
