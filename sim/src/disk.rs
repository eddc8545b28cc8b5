//! A file system in memory that forgets what was not synced when the power is cut, and fails on demand. Names and content
//! are durable separately: a name after a sync of the directory, content after a sync of its file. What was not synced
//! is lost or kept at random, each operation by itself, written bytes by sectors.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dqlite::storage::disk::{DirEntryInfo, Disk, DiskFile, DiskLock, OpenMode, Stat};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Bytes that are kept or lost together.
const SECTOR_BYTES: usize = 512;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut: this operation and all later ones fail.
    Cut,
    /// This operation fails with EIO; a sync that fails has lost what it was to make durable.
    Error,
    /// This operation and the next ones that need space fail with ENOSPC.
    NoSpace {
        /// How many operations that need space fail.
        operations: u64,
    },
}

/// A change of a file that no sync has covered.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What a sync makes durable.
    pending: Vec<Change>,
    /// A sync has failed: what is durable is not what the changes before `pending` made.
    has_lost: bool,
}

/// A change of a directory that no sync has covered.
#[derive(Clone, Debug)]
enum Naming {
    Link {
        name: PathBuf,
        inode: usize,
    },
    Unlink {
        name: PathBuf,
        inode: usize,
    },
    /// Both names change together on every file system.
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: usize,
    },
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<Naming>,
    directories: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    no_space_left: u64,
    off: bool,
    forgets: bool,
    trace: Vec<(String, u64)>,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            if content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Change::Length(length) => content.resize(*length, 0),
    }
}

/// The part of a write that reached the platter: each sector by itself.
fn torn(change: &Change, random: &mut SmallRng) -> Vec<Change> {
    let Change::Write { offset, bytes } = change else {
        return if random.random() { vec![change.clone()] } else { Vec::new() };
    };
    let style = random.random_range(0..4);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let sector = (offset + at) / SECTOR_BYTES;
        let end = ((sector + 1) * SECTOR_BYTES - offset).min(bytes.len());
        if style == 0 || (style == 1 && random.random()) {
            kept.push(Change::Write { offset: offset + at, bytes: bytes[at..end].to_vec() });
        } else if style == 2 && random.random_range(0..8) == 0 {
            break;
        } else if style == 2 {
            kept.push(Change::Write { offset: offset + at, bytes: bytes[at..end].to_vec() });
        }
        at = end;
    }
    kept
}

fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl State {
    /// Counts an operation and lets the planned fault happen.
    fn step(&mut self, what: &str, path: &Path, bytes: &[u8], needs_space: bool) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.trace.push((format!("{what} {}", path.display()), digest(bytes)));
        if let Some((at, fault)) = self.fault
            && at == self.operations
        {
            match fault {
                Fault::Cut => {
                    self.off = true;
                    return Err(io::Error::other("the power is off"));
                }
                Fault::Error => return Err(io::Error::from_raw_os_error(5)),
                Fault::NoSpace { operations } => self.no_space_left = operations,
            }
        }
        if needs_space && self.no_space_left > 0 {
            self.no_space_left -= 1;
            return Err(io::Error::new(ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    fn change(&mut self, inode: usize, change: Change) {
        let inode = &mut self.inodes[inode];
        apply(&mut inode.content, &change);
        inode.pending.push(change);
    }

    fn link(&mut self, name: PathBuf, inode: usize) {
        self.names.insert(name.clone(), inode);
        self.pending.push(Naming::Link { name, inode });
    }

    fn unlink(&mut self, name: &Path) -> Option<usize> {
        let inode = self.names.remove(name)?;
        self.pending.push(Naming::Unlink { name: name.to_owned(), inode });
        Some(inode)
    }
}

fn name_durably(names: &mut BTreeMap<PathBuf, usize>, change: &Naming) {
    match change {
        Naming::Link { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        Naming::Unlink { name, inode } => {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        }
        Naming::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

impl SimDisk {
    /// An empty file system with one directory.
    #[must_use]
    pub fn new(directory: &Path) -> SimDisk {
        let disk = SimDisk::default();
        disk.lock().directories.insert(directory.to_owned());
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a fault at the operation with this number, counted from 1.
    pub fn plan(&self, operation: u64, fault: Fault) {
        self.lock().fault = Some((operation, fault));
    }

    /// From now on entries that are synced do not become durable: a planted fault.
    pub fn forget(&self) {
        self.lock().forgets = true;
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Every operation with a digest of its bytes.
    #[must_use]
    pub fn trace(&self) -> Vec<(String, u64)> {
        self.lock().trace.clone()
    }

    /// The file system after the power comes back, as `seed` decides. The old one stays off.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> SimDisk {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut old = self.lock();
        old.off = true;
        let mut names = old.durable_names.clone();
        // Most file systems keep the order of names; none promises it.
        let in_order = random.random_range(0..3) > 0;
        let kept = random.random_range(0..=old.pending.len());
        for (position, change) in old.pending.iter().enumerate() {
            if if in_order { position < kept } else { random.random() } {
                name_durably(&mut names, change);
            }
        }
        let mut inodes = Vec::new();
        for inode in &old.inodes {
            let mut content = inode.durable.clone();
            for change in &inode.pending {
                for part in torn(change, &mut random) {
                    apply(&mut content, &part);
                }
            }
            inodes.push(Inode { durable: content.clone(), content, pending: Vec::new(), has_lost: false });
        }
        let directories = old.directories.clone();
        let state = State {
            inodes,
            names: names.clone(),
            durable_names: names,
            directories,
            forgets: old.forgets,
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }
}

impl Disk for SimDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntryInfo>> {
        let mut state = self.lock();
        state.step("list", directory, &[], false)?;
        let files = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let info = |(path, inode): (&PathBuf, &usize)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(DirEntryInfo { name, bytes: state.inodes[*inode].content.len() as u64, is_file: true })
        };
        Ok(files.filter_map(info).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let found = state.names.get(path).copied();
        let creates = found.is_none() && matches!(mode, OpenMode::CreateWrite | OpenMode::CreateExclusive);
        state.step("open", path, &[], creates)?;
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateExclusive) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(ErrorKind::NotFound.into()),
            (None, _) => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.link(path.to_owned(), inode);
                inode
            }
        };
        Ok(Box::new(SimFile { disk: self.clone(), path: path.to_owned(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step("rename", from, &[], false)?;
        let inode = state.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
        let change = Naming::Rename { from: from.to_owned(), to: to.to_owned(), inode };
        name_durably(&mut state.names, &change);
        state.pending.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step("remove", path, &[], false)?;
        state.unlink(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step("sync directory", directory, &[], false)?;
        let pending = std::mem::take(&mut state.pending);
        let mut names = std::mem::take(&mut state.durable_names);
        pending.iter().for_each(|change| name_durably(&mut names, change));
        state.durable_names = names;
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut state = self.lock();
        state.step("stat", path, &[], false)?;
        if state.directories.contains(path) {
            return Ok(Stat { bytes: 0, is_directory: true, owner_may_write: true });
        }
        let inode = state.names.get(path).ok_or(ErrorKind::NotFound)?;
        let bytes = state.inodes[*inode].content.len() as u64;
        Ok(Stat { bytes, is_directory: false, owner_may_write: true })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut state = SimDisk::lock(self);
        state.step("lock", path, &[], false)?;
        if !state.names.contains_key(path) {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.link(path.to_owned(), inode);
        }
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_owned() })))
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
        SimDisk::lock(&self.disk).locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
}

impl SimFile {
    fn sync(&mut self, what: &str) -> io::Result<()> {
        let mut state = SimDisk::lock(&self.disk);
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
        let mut state = SimDisk::lock(&self.disk);
        state.step("read", &self.path, &offset.to_le_bytes(), false)?;
        let content = &state.inodes[self.inode].content;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_vectored_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut state = SimDisk::lock(&self.disk);
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

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = SimDisk::lock(&self.disk);
        let length = usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?;
        let grows = state.inodes[self.inode].content.len() < length;
        state.step("set length", &self.path, &bytes.to_le_bytes(), grows)?;
        state.change(self.inode, Change::Length(length));
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<bool> {
        self.set_len(bytes).map(|()| true)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync("sync data")
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync("sync all")
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = SimDisk::lock(&self.disk);
        state.step("length", &self.path, &[], false)?;
        Ok(state.inodes[self.inode].content.len() as u64)
    }
}
