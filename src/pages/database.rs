//! One database: its two roots, the proposals between them and who waits for them.
//! `head` differs from `committed` exactly while a proposal is pending.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;

use super::header::{self, BadPage};
use super::overlay::Overlay;
use super::page::PageRef;
use super::store::PageStore;
use super::tree::{Root, WeakRoot};
use crate::types::config::PAGE_SIZE;
use crate::types::{PageNumber, ProposalToken};

/// Distance of the version after a discarded head: far from every number a SQLite cache may count up to.
const DISCARD_VERSION_GAP: u32 = 1000;

/// Distance of the version after pages of another proposer: never base + 1, which a writer's cache counts up to.
const APPLY_VERSION_GAP: u32 = 2;

/// A root and the epoch in which it was taken.
#[derive(Clone, Debug)]
pub struct Pin {
    /// The version.
    pub root: Root,
    /// Epoch of the store at that moment.
    pub epoch: u64,
}

/// What a transaction changed; the executor proposes it unless `pages` is empty.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Version that the transaction made; its entry makes it `committed`.
    pub version: u32,
    /// Epoch of the version.
    pub epoch: u64,
    /// Changed pages in order of their numbers; empty: nothing to propose.
    pub pages: Vec<(PageNumber, PageRef)>,
    /// Size in pages afterwards.
    pub page_count: u32,
    /// The version itself.
    pub root: Root,
    /// Where it happened.
    pub database: Arc<Database>,
}

/// The epoch of the pinned root has ended, or it is not the head: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {version} of epoch {epoch} is no longer the head")]
pub struct StaleEpoch {
    /// Version that was pinned.
    pub version: u32,
    /// Epoch in which it was pinned.
    pub epoch: u64,
}

/// Whether a discarded transaction may be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Surely not.
    No,
    /// Nobody knows.
    Maybe,
}

/// The version was thrown away with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the version was discarded with its epoch (appended: {appended:?})")]
pub struct Discarded {
    /// Whether its entry may be in the log.
    pub appended: Appended,
}

type Waiter = oneshot::Sender<Result<(), Discarded>>;

struct Pending {
    root: Root,
    token: Option<ProposalToken>,
    pages: usize,
    waiters: Vec<Waiter>,
}

/// A superseded root and how many pages the next one replaced.
struct Superseded {
    root: WeakRoot,
    replaced_pages: u64,
}

struct State {
    committed: Root,
    pending: VecDeque<Pending>,
    epoch: u64,
    removed: bool,
    reserved: Option<u64>,
    superseded: VecDeque<Superseded>,
    sweep_at: usize,
}

const SWEEP_MIN: usize = 16;

impl State {
    fn head(&self) -> &Root {
        self.pending.back().map_or(&self.committed, |pending| &pending.root)
    }

    fn set_committed(&mut self, root: Root, replaced_pages: usize) {
        let old = std::mem::replace(&mut self.committed, root);
        self.superseded.push_back(Superseded { root: old.weak(), replaced_pages: replaced_pages as u64 });
        drop(old);
        if self.superseded.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = SWEEP_MIN.max(self.superseded.len() * 2);
        }
    }

    /// Forgets roots that nobody holds; what they were replaced by counts for the older root that is still held.
    fn sweep(&mut self) {
        let mut kept: VecDeque<Superseded> = VecDeque::new();
        for entry in self.superseded.drain(..) {
            if entry.root.is_alive() {
                kept.push_back(entry);
            } else if let Some(older) = kept.back_mut() {
                older.replaced_pages += entry.replaced_pages;
            }
        }
        self.superseded = kept;
    }

    fn oldest_becomes_committed(&mut self) {
        if let Some(oldest) = self.pending.pop_front() {
            self.set_committed(oldest.root, oldest.pages);
            for waiter in oldest.waiters {
                // A waiter that went away needs no answer.
                let _ = waiter.send(Ok(()));
            }
        }
    }

    fn apply_empty_commits(&mut self) {
        while self.pending.front().is_some_and(|pending| pending.pages == 0) {
            self.oldest_becomes_committed();
        }
    }
}

/// One database of a node.
pub struct Database {
    name: Vec<u8>,
    store: Weak<PageStore>,
    empty_page: PageRef,
    state: Mutex<State>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &String::from_utf8_lossy(&self.name)).finish_non_exhaustive()
    }
}

impl Database {
    pub(super) fn new(
        name: Vec<u8>,
        store: Weak<PageStore>,
        empty_page: PageRef,
        root: Root,
        epoch: u64,
    ) -> Arc<Database> {
        Arc::new(Database {
            name,
            store,
            empty_page,
            state: Mutex::new(State {
                committed: root,
                pending: VecDeque::new(),
                epoch,
                removed: false,
                reserved: None,
                superseded: VecDeque::new(),
                sweep_at: SWEEP_MIN,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The result of the last applied entry.
    #[must_use]
    pub fn committed(&self) -> Pin {
        let state = self.lock();
        Pin { root: state.committed.clone(), epoch: state.epoch }
    }

    /// `committed` and what was executed here since.
    #[must_use]
    pub fn head(&self) -> Pin {
        let state = self.lock();
        Pin { root: state.head().clone(), epoch: state.epoch }
    }

    /// Whether the pinned root is the head, in the same epoch.
    #[must_use]
    pub fn is_head(&self, pin: &Pin) -> bool {
        let state = self.lock();
        !state.removed && pin.epoch == state.epoch && pin.root.version() == state.head().version()
    }

    /// Makes the overlay the next head. Page 1 is left as it was if only its counters differ; a commit that changes
    /// no page takes a version all the same and is applied with its base.
    ///
    /// # Errors
    /// The epoch of the pin has ended or the pin is not the head: nothing happens.
    pub fn commit(self: &Arc<Self>, pin: &Pin, overlay: Overlay) -> Result<Commit, StaleEpoch> {
        let base = pin.root.clone();
        let page_one_written = overlay.get(PageNumber(1)).cloned();
        let mut changed = overlay.into_pages();
        if let (Some(old), Some(written)) = (base.get(PageNumber(1)), changed.get(&1))
            && old.with(|old| written.with(|written| header::equal_but_for_counters(old, written)))
        {
            changed.remove(&1);
        }
        let page_count = match (changed.contains_key(&1), &page_one_written) {
            (true, Some(page)) => page.with(header::page_count).max(1),
            _ => base.page_count(),
        };
        changed.retain(|number, page| {
            *number <= page_count && base.get(PageNumber(*number)).is_none_or(|old| old != page)
        });
        let pages: Vec<_> = changed.into_iter().map(|(number, page)| (PageNumber(number), page)).collect();
        // The same rule as on every other node, so that the roots are equal everywhere.
        let root = base.laid_over(
            pages.iter().map(|(number, page)| (*number, page)),
            page_count,
            base.version().wrapping_add(1),
        );

        let mut state = self.lock();
        if state.removed || pin.epoch != state.epoch || base.version() != state.head().version() {
            return Err(StaleEpoch { version: base.version(), epoch: pin.epoch });
        }
        let version = root.version();
        state.pending.push_back(Pending {
            root: root.clone(),
            token: None,
            pages: pages.len(),
            waiters: Vec::new(),
        });
        state.apply_empty_commits();
        Ok(Commit { version, epoch: pin.epoch, pages, page_count, root, database: Arc::clone(self) })
    }

    /// Names the proposal of a pending version. To be called under the lock of the proposals' queue, before it can end
    /// the epoch. False if the version is pending no more.
    pub fn assign(&self, version: u32, token: ProposalToken) -> bool {
        let mut state = self.lock();
        if token.epoch != state.epoch {
            return false;
        }
        let found = state.pending.iter_mut().find(|pending| pending.root.version() == version);
        found.map(|pending| pending.token = Some(token)).is_some()
    }

    /// Waits until this version, pinned in this epoch, is applied: at once if it is not pending.
    ///
    /// # Errors
    /// The version was discarded, or belongs to another epoch.
    pub fn when_applied(
        &self,
        pin_epoch: u64,
        version: u32,
    ) -> impl Future<Output = Result<(), Discarded>> + Send + 'static + use<> {
        let mut state = self.lock();
        let outcome = if state.removed || pin_epoch != state.epoch {
            Err(Err(Discarded { appended: Appended::Maybe }))
        } else {
            match state.pending.iter_mut().find(|pending| pending.root.version() == version) {
                None => Err(Ok(())),
                Some(pending) => {
                    let (sender, receiver) = oneshot::channel();
                    pending.waiters.push(sender);
                    Ok(receiver)
                }
            }
        };
        async move {
            match outcome {
                Err(known) => known,
                // A sender that is dropped unanswered went with its database.
                Ok(receiver) => receiver.await.unwrap_or(Err(Discarded { appended: Appended::Maybe })),
            }
        }
    }

    /// Applies an own entry: true if it is the oldest pending proposal of this epoch, which then is `committed`.
    /// Otherwise nothing happens and the entry's pages are to be applied by `apply_pages`.
    pub fn apply_own(&self, token: ProposalToken) -> bool {
        let mut state = self.lock();
        let is_oldest = token.epoch == state.epoch
            && state.pending.front().is_some_and(|pending| pending.token == Some(token));
        if is_oldest {
            state.oldest_becomes_committed();
            state.apply_empty_commits();
        }
        is_oldest
    }

    /// Lays the pages of an entry over `committed`, which is the head, too, afterwards: a head with pending proposals
    /// is discarded first, with its epoch. spec: state-machine 2.2.
    ///
    /// # Errors
    /// A page number 0, a page 1 with another page size: nothing happens.
    pub fn apply_pages(&self, pages: Vec<(PageNumber, PageRef)>) -> Result<(), BadPage> {
        let mut page_one = None;
        for (number, page) in &pages {
            match number.0 {
                0 => return Err(BadPage::NumberZero),
                1 => {
                    page.with(header::check)?;
                    page_one = Some(page);
                }
                _ => {}
            }
        }
        let mut state = self.lock();
        while !state.pending.is_empty() {
            drop(state);
            match self.store.upgrade() {
                Some(store) => {
                    store.end_epoch(None);
                }
                None => self.discard(0, None),
            }
            state = self.lock();
        }
        let page_count = match page_one {
            Some(page) => page.with(header::page_count).max(1),
            None => state.committed.page_count(),
        };
        let root = state.committed.laid_over(
            pages.iter().map(|(number, page)| (*number, page)),
            page_count,
            state.committed.version().wrapping_add(APPLY_VERSION_GAP),
        );
        state.set_committed(root, pages.len());
        Ok(())
    }

    /// Ends the epoch here: the head is `committed` again.
    pub(super) fn discard(&self, new_epoch: u64, refused_from: Option<u64>) {
        let mut state = self.lock();
        Self::discard_locked(&mut state, new_epoch, refused_from);
    }

    fn discard_locked(state: &mut State, new_epoch: u64, refused_from: Option<u64>) {
        state.epoch = new_epoch;
        if state.pending.is_empty() {
            return;
        }
        let version = state.head().version().wrapping_add(DISCARD_VERSION_GAP);
        let root = state.committed.with_version(version);
        for pending in std::mem::take(&mut state.pending) {
            let appended = match (pending.token, refused_from) {
                (None, _) => Appended::No,
                (Some(token), Some(first)) if token.sequence >= first => Appended::No,
                (Some(_), _) => Appended::Maybe,
            };
            for waiter in pending.waiters {
                // A waiter that went away needs no answer.
                let _ = waiter.send(Err(Discarded { appended }));
            }
        }
        state.set_committed(root, 0);
    }

    /// Becomes these pages in a new epoch, or the empty database if there are none and it leaves the store.
    pub(super) fn replace(&self, root: Option<&Root>, new_epoch: u64) {
        let mut state = self.lock();
        Self::discard_locked(&mut state, new_epoch, None);
        let version = state.committed.version().wrapping_add(DISCARD_VERSION_GAP);
        let replaced = state.committed.page_count() as usize;
        let next = match root {
            Some(root) => root.with_version(version),
            None => {
                state.removed = true;
                Root::from_pages([self.empty_page.clone()], version)
            }
        };
        state.set_committed(next, replaced);
    }

    /// Marks it as gone from the store if its deletion was applied and nothing is pending.
    pub(super) fn remove_if_deleted(&self) -> bool {
        let mut state = self.lock();
        let deleted = state.pending.is_empty()
            && state.committed.get(PageNumber(1)).is_some_and(|page| page.with(header::page_count) == 0);
        if deleted {
            state.removed = true;
        }
        deleted
    }

    /// Takes the one write lock of the database for this connection; true if it has it.
    pub fn try_reserve(&self, connection_id: u64) -> bool {
        let mut state = self.lock();
        *state.reserved.get_or_insert(connection_id) == connection_id
    }

    /// Gives the write lock back, if this connection has it.
    pub fn unreserve(&self, connection_id: u64) {
        let mut state = self.lock();
        if state.reserved == Some(connection_id) {
            state.reserved = None;
        }
    }

    /// Whether a connection has the write lock.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.lock().reserved.is_some()
    }

    /// Bytes of the pages of pending proposals.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.lock().pending.iter().map(|pending| pending.pages * PAGE_SIZE).sum()
    }

    /// Pending proposals, commits without pages included.
    #[must_use]
    pub fn in_flight_transactions(&self) -> usize {
        self.lock().pending.len()
    }

    /// Pages that only roots older than `committed` keep alive; an upper bound.
    #[must_use]
    pub fn pages_kept_by_old_pins(&self) -> u64 {
        let mut state = self.lock();
        state.sweep();
        state.superseded.iter().map(|superseded| superseded.replaced_pages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(count: u32, mark: u8) -> PageRef {
        let mut bytes = [mark; PAGE_SIZE];
        bytes[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        bytes[28..32].copy_from_slice(&count.to_be_bytes());
        PageRef::new(&bytes)
    }

    fn opened() -> (Arc<PageStore>, Arc<Database>) {
        let store = PageStore::new();
        let database = store.open(b"test", &page(1, 0)).unwrap();
        (store, database)
    }

    fn write(database: &Arc<Database>, pages: &[(u32, PageRef)]) -> Commit {
        let pin = database.head();
        let mut overlay = Overlay::new(pin.root.clone());
        for (number, page) in pages {
            overlay.write(PageNumber(*number), page.clone());
        }
        database.commit(&pin, overlay).unwrap()
    }

    fn token(epoch: u64, sequence: u64) -> ProposalToken {
        ProposalToken { epoch, sequence }
    }

    #[tokio::test]
    async fn own_entries_move_committed_in_order_and_wake_who_waits() {
        let (store, database) = opened();
        let first = write(&database, &[(1, page(2, 1)), (2, page(0, 2))]);
        let second = write(&database, &[(2, page(0, 3))]);
        assert_eq!(second.version, first.version + 1);
        assert!(database.assign(first.version, token(store.epoch(), 1)));
        assert!(database.assign(second.version, token(store.epoch(), 2)));
        let waits = database.when_applied(store.epoch(), second.version);
        assert_eq!(database.committed().root.page_count(), 1);
        assert_eq!(database.in_flight_transactions(), 2);

        assert!(!database.apply_own(token(store.epoch(), 2)));
        assert!(database.apply_own(token(store.epoch(), 1)));
        assert!(database.apply_own(token(store.epoch(), 2)));

        assert_eq!(waits.await, Ok(()));
        assert_eq!(database.committed().root.version(), second.version);
        assert_eq!(database.when_applied(store.epoch(), first.version).await, Ok(()));
        assert_eq!(database.in_flight_bytes(), 0);
    }

    #[tokio::test]
    async fn a_commit_without_changes_takes_a_version_and_is_applied_with_its_base() {
        let (store, database) = opened();
        let before = database.head();
        let alone = write(&database, &[]);
        assert!(alone.pages.is_empty());
        assert_ne!(alone.version, before.root.version());
        assert_eq!(database.committed().root.version(), alone.version);

        let base = write(&database, &[(1, page(2, 1)), (2, page(0, 2))]);
        let empty = write(&database, &[(2, page(0, 2))]);
        assert!(empty.pages.is_empty());
        assert!(database.assign(base.version, token(store.epoch(), 1)));
        let waits = database.when_applied(store.epoch(), empty.version);
        assert!(database.apply_own(token(store.epoch(), 1)));

        assert_eq!(waits.await, Ok(()));
        assert_eq!(database.committed().root.version(), empty.version);
    }

    #[test]
    fn page_1_with_other_counters_only_is_neither_listed_nor_stored() {
        let (_store, database) = opened();
        let old = database.head().root.get(PageNumber(1)).cloned().unwrap();
        let mut bytes = old.with(|bytes| *bytes);
        bytes[24..28].fill(9);
        bytes[92..100].fill(9);

        let commit = write(&database, &[(1, PageRef::new(&bytes))]);
        assert!(commit.pages.is_empty());
        assert!(database.head().root.get(PageNumber(1)).unwrap().is_same(&old));

        bytes[40] = 1;
        assert_eq!(write(&database, &[(1, PageRef::new(&bytes))]).pages.len(), 1);
    }

    #[tokio::test]
    async fn the_end_of_an_epoch_discards_the_head_and_says_what_was_surely_not_appended() {
        let (store, database) = opened();
        let epoch = store.epoch();
        let mut watch = store.watch_epoch();
        let commits: Vec<_> = (2..5).map(|mark| write(&database, &[(1, page(1, mark))])).collect();
        database.assign(commits[0].version, token(epoch, 1));
        database.assign(commits[1].version, token(epoch, 2));
        let waits: Vec<_> =
            commits.iter().map(|commit| database.when_applied(epoch, commit.version)).collect();
        let pin = database.head();

        store.end_epoch(Some(2));

        let mut outcomes = Vec::new();
        for wait in waits {
            outcomes.push(wait.await.unwrap_err().appended);
        }
        assert_eq!(outcomes, [Appended::Maybe, Appended::No, Appended::No]);
        assert!(watch.has_changed().unwrap());
        assert_eq!(*watch.borrow_and_update(), epoch + 1);
        assert!(database.head().root.version() > commits[2].version + 1);
        assert_eq!(database.head().root.version(), database.committed().root.version());
        assert_eq!(
            database.commit(&pin, Overlay::new(pin.root.clone())).unwrap_err(),
            StaleEpoch { version: commits[2].version, epoch }
        );
        assert!(!database.apply_own(token(epoch, 1)));
        assert!(!database.assign(commits[2].version, token(epoch, 3)));
        assert!(database.when_applied(epoch, 1).await.is_err());
    }

    #[test]
    fn a_foreign_entry_discards_the_head_and_sets_both_roots() {
        let (store, database) = opened();
        write(&database, &[(1, page(3, 1)), (2, page(0, 2)), (3, page(0, 3))]);

        database.apply_pages(vec![(PageNumber(1), page(2, 9)), (PageNumber(3), page(0, 8))]).unwrap();

        assert_eq!(store.epoch(), 2);
        let root = database.head().root;
        assert_eq!(root.version(), database.committed().root.version());
        assert_eq!(root.page_count(), 2);
        assert_eq!(root.get(PageNumber(2)), None);
        assert_eq!(root.get(PageNumber(3)), None);
    }

    #[test]
    fn size_0_in_page_1_means_deleted_and_leaves_one_page() {
        let (store, database) = opened();
        let attached = store.attach(b"test", &page(1, 0)).unwrap();
        database.apply_pages(vec![(PageNumber(1), page(2, 9)), (PageNumber(2), page(0, 8))]).unwrap();

        database.apply_pages(vec![(PageNumber(1), page(0, 9))]).unwrap();

        assert_eq!(database.committed().root.page_count(), 1);
        assert!(store.get(b"test").is_some());
        drop(attached);
        assert!(store.get(b"test").is_none());
    }

    #[test]
    fn a_page_1_of_another_page_size_is_refused() {
        let (_store, database) = opened();
        let mut bytes = page(1, 0).with(|bytes| *bytes);
        bytes[16] = 4;

        let error = database.apply_pages(vec![(PageNumber(1), PageRef::new(&bytes))]).unwrap_err();

        assert_eq!(error.to_string(), "page 1: page size field 1024, expected 4096");
        assert_eq!(database.committed().root.version(), 1);
    }

    #[test]
    fn one_connection_at_a_time_has_the_write_lock() {
        let (_store, database) = opened();

        assert!(database.try_reserve(1));
        assert!(database.try_reserve(1));
        assert!(!database.try_reserve(2));
        database.unreserve(2);
        assert!(!database.try_reserve(2));
        database.unreserve(1);
        assert!(database.try_reserve(2));
    }

    #[test]
    fn a_snapshot_replaces_the_set_of_databases_and_open_handles_see_it() {
        let (store, database) = opened();
        let other = store.open(b"other", &page(1, 0)).unwrap();
        let stale = other.head();

        store
            .replace_all(vec![
                (b"test".to_vec(), vec![page(2, 4), page(0, 5)]),
                (b"new".to_vec(), vec![page(1, 6)]),
            ])
            .unwrap();

        assert_eq!(database.committed().root.get(PageNumber(2)), Some(&page(0, 5)));
        assert_eq!(other.committed().root.page_count(), 1);
        assert!(other.commit(&stale, Overlay::new(stale.root.clone())).is_err());
        let names: Vec<_> = store.pin_committed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"new".to_vec(), b"test".to_vec()]);
        assert_eq!(store.epoch(), 2);
    }

    #[test]
    fn pages_of_old_pins_are_counted_while_the_pins_live() {
        let (_store, database) = opened();
        let pin = database.committed();
        for mark in 0..100 {
            database.apply_pages(vec![(PageNumber(1), page(1, mark))]).unwrap();
        }

        assert_eq!(database.pages_kept_by_old_pins(), 100);
        drop(pin);
        assert_eq!(database.pages_kept_by_old_pins(), 0);
    }

    #[test]
    fn names_that_mean_something_else_to_sqlite_are_refused() {
        // checklist state-machine 1.5: empty, :memory:, file:, -wal, -journal, longer than 504 bytes.
        let store = PageStore::new();
        let long = vec![b'a'; 505];
        for name in [b"".as_slice(), b":memory:", b"file:x", b"x-wal", b"x-journal", b"a\0b", &long] {
            assert!(store.open(name, &page(1, 0)).is_err(), "{name:?}");
        }
        assert!(store.open(&long[..504], &page(1, 0)).is_ok());
    }
}
