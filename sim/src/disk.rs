//! A file system in memory that forgets what was not synced when the power is cut, and fails on demand. Names and content
//! are durable separately: a name after a sync of the directory, content after a sync of its file. What was not synced
//! is lost or kept at random, each operation by itself, written bytes by sectors.

mod directory;
mod file;
pub mod rot;
pub mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use schedule::{Bad, Call, Happened, Schedule, Trouble};

use crate::baton;

/// Bytes that are kept or lost together.
const SECTOR_BYTES: usize = 512;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

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

#[derive(Clone, Debug, Default)]
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
    /// There are no files without a name.
    names_all: bool,
    /// When it is bad, and how.
    bad: Option<Bad>,
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
                Fault::Error => return Err(io::Error::from_raw_os_error(EIO)),
                Fault::NoSpace { operations } => self.no_space_left = operations,
            }
        }
        if needs_space && self.no_space_left > 0 {
            self.no_space_left -= 1;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let call = Call::of(what, path, needs_space);
        match self.bad.as_mut().and_then(|bad| bad.error(call)) {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(()),
        }
    }

    fn has_no_space(&self) -> bool {
        self.bad.as_ref().is_some_and(Bad::has_no_space)
    }

    fn change(&mut self, inode: usize, change: Change) {
        let inode = &mut self.inodes[inode];
        apply(&mut inode.content, &change);
        inode.pending.push(change);
    }

    /// An empty file without a name.
    fn create(&mut self) -> usize {
        self.inodes.push(Inode::default());
        self.inodes.len() - 1
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

    /// Nothing is planned any more.
    pub fn plan_nothing(&self) {
        self.lock().fault = None;
    }

    /// From now on entries that are synced do not become durable: a planted fault.
    pub fn forget(&self) {
        self.lock().forgets = true;
    }

    /// A file system where every file has a name from the beginning.
    pub fn name_all(&self) {
        self.lock().names_all = true;
    }

    /// From now on it is bad as a schedule says, whatever power cuts come.
    pub fn go_bad(&self, schedule: Schedule, seed: u64) {
        self.lock().bad = Some(Bad::new(schedule, seed));
    }

    /// It is bad in one way more from now on, for a while.
    pub fn go_bad_now(&self, trouble: Trouble, lasts: Duration) {
        if let Some(bad) = &mut self.lock().bad {
            bad.add(trouble, lasts);
        }
    }

    /// Whether it is bad now.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.lock().bad.as_ref().is_some_and(Bad::is_now)
    }

    /// How often it was.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.lock().bad.as_ref().map_or_else(Happened::default, Bad::happened)
    }

    /// The state for an operation, once it has taken the time that it takes.
    fn enter(&self, what: &str, path: &Path) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.off || !baton::can_wait() {
            return state;
        }
        let call = Call::of(what, path, false);
        let Some(wait) = state.bad.as_mut().and_then(|bad| bad.delay(call)) else { return state };
        drop(state);
        baton::wait(wait);
        self.lock()
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

    /// The file system after its process was killed: the system keeps what was written. The old one stays off.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let mut old = self.lock();
        old.off = true;
        let state = State { locks: BTreeSet::new(), off: false, fault: None, ..old.clone() };
        SimDisk { state: Arc::new(Mutex::new(state)) }
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
            names_all: old.names_all,
            bad: old.bad.clone(),
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }
}
