//! All databases of a node by name, and the epoch that they share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::database::Database;
use super::epoch::EpochEnd;
use super::header::{self, PageOneError};
use super::page::{PageRef, PageSpace};
use super::room::Room;
use super::tree::Root;
use crate::types::config::{DATABASE_NAME_MAX_BYTES, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_TRANSACTIONS_MAX};

/// Why a name is no database name. spec: state-machine 1.5.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes.
    #[error("empty database name")]
    Empty,
    /// Too long.
    #[error("database name of {0} bytes, at most 504")]
    Long(usize),
    /// A byte 0.
    #[error("database name with a NUL byte")]
    Nul,
    /// A name that means something else to SQLite.
    #[error("database name {0:?} means no file to SQLite")]
    Special(String),
    /// A name that ends in `-wal` or `-journal`.
    #[error("database name {0:?} ends like a WAL or a journal")]
    Suffix(String),
}

/// Checks a name that a client opens. spec: state-machine 1.5, client-protocol 11.1.
///
/// # Errors
/// One for each refused kind of name.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    check_stored_name(name)?;
    let text = || String::from_utf8_lossy(name).into_owned();
    if name == b":memory:" || name.starts_with(b"file:") {
        return Err(NameError::Special(text()));
    }
    if name.ends_with(b"-wal") || name.ends_with(b"-journal") {
        return Err(NameError::Suffix(text()));
    }
    Ok(())
}

/// Checks a name from the log or a snapshot, where a C node may have put any that SQLite takes.
fn check_stored_name(name: &[u8]) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > DATABASE_NAME_MAX_BYTES {
        return Err(NameError::Long(name.len()));
    }
    if name.contains(&0) {
        return Err(NameError::Nul);
    }
    Ok(())
}

/// Why a set of databases cannot replace the present one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// A refused name.
    #[error("snapshot: {0}")]
    Name(#[from] NameError),
    /// One name twice.
    #[error("snapshot: database {0:?} occurs twice")]
    Twice(String),
    /// A database without pages.
    #[error("snapshot: database {0:?} has no page")]
    NoPage(String),
    /// More pages than SQLite can number.
    #[error("snapshot: database {0:?} has {1} pages")]
    TooManyPages(String, usize),
    /// A refused page 1.
    #[error("snapshot: database {0:?}: {1}")]
    PageOne(String, PageOneError),
    /// Page 1 cannot be read.
    #[error("snapshot: database {0:?}: page 1: {1}")]
    Unreadable(String, String),
}

struct Named {
    database: Arc<Database>,
    attached: usize,
}

impl Named {
    /// Whether nobody uses it and nothing is in it any more, or yet: it goes.
    fn is_left(&self) -> bool {
        self.attached == 0 && self.database.remove_if_void()
    }
}

/// All databases of a node.
pub struct PageStore {
    own: Weak<PageStore>,
    space: PageSpace,
    room: Arc<Room>,
    named: Mutex<BTreeMap<Vec<u8>, Named>>,
    epoch: Epoch,
}

/// The epoch. Every request asks for it many times, those that wait are told of its end.
struct Epoch {
    now: AtomicU64,
    told: watch::Sender<u64>,
}

impl Epoch {
    fn first() -> Epoch {
        Epoch { now: AtomicU64::new(1), told: watch::Sender::new(1) }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    /// Whoever is woken finds the new one.
    fn set(&self, epoch: u64) {
        self.now.store(epoch, Ordering::Release);
        self.told.send_replace(epoch);
    }
}

impl std::fmt::Debug for PageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageStore").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl PageStore {
    /// A store in memory without databases, in epoch 1.
    #[must_use]
    pub fn new() -> Arc<PageStore> {
        PageStore::in_space(PageSpace::memory())
    }

    /// A store without databases, in epoch 1, whose pages live in `space`.
    #[must_use]
    pub fn in_space(space: PageSpace) -> Arc<PageStore> {
        Arc::new_cyclic(|own| PageStore {
            own: own.clone(),
            space,
            room: Room::new(IN_FLIGHT_TRANSACTIONS_MAX, IN_FLIGHT_BYTES_MAX),
            named: Mutex::new(BTreeMap::new()),
            epoch: Epoch::first(),
        })
    }

    /// Where its pages live.
    #[must_use]
    pub fn space(&self) -> &PageSpace {
        &self.space
    }

    /// Room in flight, of all databases together.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database with this name, for a connection; if there is none, one whose only page is `empty_page`. One that is deleted, or
    /// was never written, is removed when its last connection is gone.
    ///
    /// # Errors
    /// A refused name.
    pub fn attach(&self, name: &[u8], empty_page: &PageRef) -> Result<Attached, NameError> {
        check_stored_name(name)?;
        let mut named = self.lock();
        let epoch = self.epoch();
        let found = named.entry(name.to_vec()).or_insert_with(|| {
            let root = Root::from_pages([empty_page.clone()], 1);
            let (name, own, room) = (name.to_vec(), self.own.clone(), Arc::clone(&self.room));
            let database = Database::new(name, own, empty_page.clone(), room, root, false, epoch);
            Named { database, attached: 0 }
        });
        found.attached += 1;
        Ok(Attached { database: Arc::clone(&found.database), store: self.own.clone() })
    }

    /// The database with this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Arc<Database>> {
        self.lock().get(name).map(|found| Arc::clone(&found.database))
    }

    /// All databases, by name.
    #[must_use]
    pub fn databases(&self) -> Vec<Arc<Database>> {
        self.lock().values().map(|found| Arc::clone(&found.database)).collect()
    }

    /// Name and committed root of every database, for a snapshot: all nodes have the same. What was only opened is none yet.
    #[must_use]
    pub fn pin_committed(&self) -> Vec<(Vec<u8>, Root)> {
        let named = self.lock();
        let written = named.iter().filter(|(_, found)| found.database.is_written());
        written.map(|(name, found)| (name.clone(), found.database.committed().root)).collect()
    }

    /// Makes the set of databases equal to these images. Versions disappear: the epoch ends.
    pub fn replace_all(&self, images: DatabaseImages) {
        let mut roots = images.roots;
        let mut named = self.lock();
        let epoch = self.epoch() + 1;
        named.retain(|name, found| {
            let root = roots.remove(name);
            found.database.replace(root.as_ref().map(|(_, root)| root), epoch);
            root.is_some()
        });
        for (name, (first, root)) in roots {
            let (own, room) = (self.own.clone(), Arc::clone(&self.room));
            let database = Database::new(name.clone(), own, first, room, root, true, epoch);
            named.insert(name, Named { database, attached: 0 });
        }
        self.epoch.set(epoch);
    }

    /// The epoch: one stretch in which no version disappeared.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.now()
    }

    /// Reports every change of the epoch: versions disappeared, connections are to be closed.
    #[must_use]
    pub fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.epoch.told.subscribe()
    }

    /// Throws every head away (leadership lost, a proposal refused) and starts the next epoch, which it returns. Who
    /// waits for a version learns that it was surely not appended if its sequence is `refused_from` or later or was
    /// never assigned.
    pub fn end_epoch(&self, refused_from: Option<u64>) -> u64 {
        let mut named = self.lock();
        self.end_epoch_of(&mut named, refused_from)
    }

    /// The same with this epoch, unless it has ended.
    pub fn end_this_epoch(&self, epoch: u64, refused_from: Option<u64>) {
        let mut named = self.lock();
        if self.epoch() == epoch {
            self.end_epoch_of(&mut named, refused_from);
        }
    }

    fn end_epoch_of(&self, named: &mut BTreeMap<Vec<u8>, Named>, refused_from: Option<u64>) -> u64 {
        let epoch = self.epoch() + 1;
        for found in named.values() {
            found.database.discard(epoch, refused_from);
        }
        named.retain(|_, found| !found.is_left());
        self.epoch.set(epoch);
        epoch
    }

    /// Pages that only old pins keep alive, in all databases; an upper bound.
    #[must_use]
    pub fn pages_kept_by_old_pins(&self) -> u64 {
        self.databases().iter().map(|database| database.pages_kept_by_old_pins()).sum()
    }

    /// Connections that hold a database.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().values().map(|found| found.attached).sum()
    }

    /// Removes a database whose deletion is applied, if no connection uses it; else it goes with the last of them.
    pub fn remove_deleted(&self, name: &[u8]) {
        let mut named = self.lock();
        if named.get(name).is_some_and(Named::is_left) {
            named.remove(name);
        }
    }

    fn detach(&self, database: &Arc<Database>) {
        let mut named = self.lock();
        let Some(found) = named.get_mut(database.name()) else {
            return;
        };
        if !Arc::ptr_eq(&found.database, database) {
            return;
        }
        found.attached = found.attached.saturating_sub(1);
        if found.is_left() {
            named.remove(database.name());
        }
    }
}

impl EpochEnd for PageStore {
    fn end(&self) {
        self.end_epoch(None);
    }

    fn end_this(&self, epoch: u64) {
        self.end_this_epoch(epoch, None);
    }
}

/// A connection's hold on a database.
#[derive(Debug)]
pub struct Attached {
    database: Arc<Database>,
    store: Weak<PageStore>,
}

impl Attached {
    /// The database.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.detach(&self.database);
        }
    }
}

/// Whole databases that may replace those of a store.
#[derive(Debug)]
pub struct DatabaseImages {
    roots: BTreeMap<Vec<u8>, (PageRef, Root)>,
}

impl DatabaseImages {
    /// Takes names and pages from 1 on.
    ///
    /// # Errors
    /// A name, an image or a page 1 is refused.
    pub fn check(databases: Vec<(Vec<u8>, Vec<PageRef>)>) -> Result<DatabaseImages, ReplaceError> {
        let mut roots = BTreeMap::new();
        for (name, pages) in databases {
            check_stored_name(&name)?;
            let text = String::from_utf8_lossy(&name).into_owned();
            let Some(first) = pages.first().cloned() else {
                return Err(ReplaceError::NoPage(text));
            };
            if u32::try_from(pages.len()).is_err() {
                return Err(ReplaceError::TooManyPages(text, pages.len()));
            }
            first
                .with(header::check)
                .map_err(|error| ReplaceError::Unreadable(text.clone(), error.to_string()))?
                .map_err(|error| ReplaceError::PageOne(text.clone(), error))?;
            if roots.insert(name, (first, Root::from_pages(pages, 1))).is_some() {
                return Err(ReplaceError::Twice(text));
            }
        }
        Ok(DatabaseImages { roots })
    }
}
