//! One database: its two roots, the proposals between them and who waits for them.
//! `head` differs from `committed` exactly while a proposal is pending.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;

use super::epoch::EpochEnd;
use super::header::{self, BadPage};
use super::overlay::Overlay;
use super::page::PageRef;
use super::room::{Charge, Room};
use super::tree::{Root, WeakRoot};
use crate::types::config::PAGE_SIZE;
use crate::types::fault::{self, Fault};
use crate::types::{PageNumber, ProposalRange, ProposalToken};

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

/// What came of a connection's wish for the write lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The connection has it.
    Yes,
    /// Another connection has it, or this one may not have it.
    No,
    /// The connection's snapshot is not the head of this epoch.
    NotOnHead,
}

/// What a transaction changed; the executor proposes it unless `pages` is empty. If it is dropped unproposed its epoch ends: what
/// comes after it in the log would be pages that were made on pages that no log has.
#[derive(Debug)]
pub struct Commit {
    /// Version that the transaction made; its entry makes it `committed`.
    pub version: u32,
    /// Epoch of the version.
    pub epoch: u64,
    /// Changed pages in order of their numbers; empty: nothing to propose.
    pub pages: Vec<(PageNumber, PageRef)>,
    /// The database is smaller than before, or deleted: pages that come back later are not in any transaction.
    pub shrinks: bool,
    /// The version itself.
    pub root: Root,
    /// Where it happened.
    pub database: Arc<Database>,
    proposed: bool,
}

impl Commit {
    /// Hands it to whoever proposes it, and says whether that was done: then its epoch does not depend on this object any more.
    pub fn propose(mut self, propose: impl FnOnce(&Commit) -> bool) -> bool {
        self.proposed = propose(&self);
        self.proposed
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if self.proposed || self.pages.is_empty() {
            return;
        }
        if let Some(epochs) = self.database.epochs.upgrade() {
            epochs.end_this(self.epoch);
        }
    }
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

/// Why a transaction did not become a version: nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The head it was made on has gone.
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// The page file cannot be read.
    #[error("page 1: {0}")]
    Io(#[from] std::io::Error),
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
    /// Given back when this goes, applied or discarded.
    _room: Option<Charge>,
}

/// A superseded root and how many pages the next one replaced.
struct Superseded {
    root: WeakRoot,
    page_count: u64,
    replaced_pages: u64,
}

impl Superseded {
    /// Pages that this root has and the next one has not; an upper bound. One that was replaced again and again is one page.
    fn kept_pages(&self) -> u64 {
        self.replaced_pages.min(self.page_count)
    }
}

struct State {
    committed: Root,
    pending: VecDeque<Pending>,
    epoch: u64,
    removed: bool,
    /// An entry or a snapshot has brought something.
    is_written: bool,
    reserved: Option<u64>,
    superseded: VecDeque<Superseded>,
    sweep_at: usize,
}

const SWEEP_MIN: usize = 16;

impl State {
    fn head(&self) -> &Root {
        self.pending.back().map_or(&self.committed, |pending| &pending.root)
    }

    /// Whether the pinned root is the head, in the same epoch.
    fn is_head(&self, pin: &Pin) -> bool {
        !self.removed && pin.epoch == self.epoch && pin.root.version() == self.head().version()
    }

    fn set_committed(&mut self, root: Root, replaced_pages: usize) {
        let old = std::mem::replace(&mut self.committed, root);
        self.superseded.push_back(Superseded {
            root: old.weak(),
            page_count: u64::from(old.page_count()),
            replaced_pages: replaced_pages as u64,
        });
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
            self.is_written |= oldest.pages > 0;
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
    epochs: Weak<dyn EpochEnd>,
    empty_page: PageRef,
    room: Arc<Room>,
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
        epochs: Weak<dyn EpochEnd>,
        empty_page: PageRef,
        room: Arc<Room>,
        root: Root,
        is_written: bool,
        epoch: u64,
    ) -> Arc<Database> {
        Arc::new(Database {
            name,
            epochs,
            empty_page,
            room,
            state: Mutex::new(State {
                committed: root,
                pending: VecDeque::new(),
                epoch,
                removed: false,
                is_written,
                reserved: None,
                superseded: VecDeque::new(),
                sweep_at: SWEEP_MIN,
            }),
        })
    }

    /// Whether the disk takes a transaction of so many pages.
    #[must_use]
    pub fn is_on_disk(&self, pages: usize) -> bool {
        self.room.is_on_disk((pages * PAGE_SIZE) as u64)
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

    /// Makes the overlay the next head. Page 1 is left as it was if only its counters differ; a commit that changes
    /// no page takes a version all the same and is applied with its base.
    ///
    /// # Errors
    /// The epoch of the pin has ended or the pin is not the head; a page cannot be read: nothing happens.
    pub fn commit(self: &Arc<Self>, pin: &Pin, overlay: Overlay) -> Result<Commit, CommitError> {
        let base = pin.root.clone();
        let page_one_written = overlay.get(PageNumber(1)).cloned();
        let mut changed = overlay.into_pages();
        if let (Some(old), Some(written)) = (base.get(PageNumber(1)), changed.get(&1))
            && old.with(|old| written.with(|written| header::equal_but_for_counters(old, written)))??
        {
            changed.remove(&1);
        }
        let header_count = match (changed.contains_key(&1), &page_one_written) {
            (true, Some(page)) => page.with(header::page_count)?,
            _ => base.page_count(),
        };
        let (page_count, shrinks) = (header_count.max(1), header_count < base.page_count());
        changed.retain(|number, page| {
            *number <= page_count && base.get(PageNumber(*number)).is_none_or(|old| old != page)
        });
        let pages: Vec<_> = changed.into_iter().map(|(number, page)| (PageNumber(number), page)).collect();
        // The same rule as on every other node, so that the roots are equal everywhere.
        let step = u32::from(!(pages.is_empty() && fault::is_planted(Fault::VersionTwice)));
        let root = base.laid_over(
            pages.iter().map(|(number, page)| (*number, page)),
            page_count,
            base.version().wrapping_add(step),
        );

        let mut state = self.lock();
        if state.removed || pin.epoch != state.epoch || base.version() != state.head().version() {
            return Err(StaleEpoch { version: base.version(), epoch: pin.epoch }.into());
        }
        let version = root.version();
        state.pending.push_back(Pending {
            root: root.clone(),
            token: None,
            pages: pages.len(),
            waiters: Vec::new(),
            _room: (!pages.is_empty()).then(|| self.room.charge(pages.len() * PAGE_SIZE)),
        });
        state.apply_empty_commits();
        let database = Arc::clone(self);
        Ok(Commit { version, epoch: pin.epoch, pages, shrinks, root, database, proposed: false })
    }

    /// Names the proposal of a pending version. To be called under the lock of the proposals' queue, before it can end
    /// the epoch. False if the version is pending no more.
    pub fn assign(&self, version: u32, token: ProposalToken) -> bool {
        let mut state = self.lock();
        if token.epoch != state.epoch {
            return false;
        }
        // The newest is asked for, as a rule.
        let found = state.pending.iter_mut().rev().find(|pending| pending.root.version() == version);
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
            match state.pending.iter_mut().rev().find(|pending| pending.root.version() == version) {
                Some(pending) if !fault::is_planted(Fault::ReplyBeforeApply) => {
                    let (sender, receiver) = oneshot::channel();
                    pending.waiters.push(sender);
                    Ok(receiver)
                }
                _ => Err(Ok(())),
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

    /// Applies an own entry: true if it holds the oldest pending proposals of this epoch, the last of which then is
    /// `committed`. Otherwise nothing happens and the entry's pages are to be applied by `apply_pages`.
    pub fn apply_own(&self, proposals: ProposalRange) -> bool {
        let mut state = self.lock();
        let count = proposals.count();
        let oldest = state.pending.iter().filter(|pending| pending.pages > 0).map(|pending| pending.token);
        let expected = (proposals.first..=proposals.last)
            .map(|sequence| Some(ProposalToken { epoch: proposals.epoch, sequence }));
        let are_oldest = proposals.epoch == state.epoch && oldest.take(count).eq(expected);
        if are_oldest {
            for _ in 0..count {
                // Between two of them there may be commits without pages.
                state.apply_empty_commits();
                state.oldest_becomes_committed();
            }
            state.apply_empty_commits();
        }
        are_oldest
    }

    /// Lays the pages of an entry over `committed`, which is the head, too, afterwards: a head with pending proposals
    /// is discarded first, with its epoch. spec: state-machine 2.2.
    ///
    /// # Errors
    /// A page number 0, a page 1 with another page size: nothing happens.
    pub fn apply_pages(&self, pages: Vec<(PageNumber, PageRef)>) -> Result<(), BadPage> {
        let mut page_count = None;
        for (number, page) in &pages {
            match number.0 {
                0 => return Err(BadPage::NumberZero),
                1 => {
                    let unreadable = |error: std::io::Error| BadPage::Unreadable(error.to_string());
                    page.with(header::check).map_err(unreadable)??;
                    page_count = Some(page.with(header::page_count).map_err(unreadable)?.max(1));
                }
                _ => {}
            }
        }
        let mut state = self.lock();
        while !state.pending.is_empty() {
            drop(state);
            match self.epochs.upgrade() {
                Some(epochs) => epochs.end(),
                None => self.discard(0, None),
            }
            state = self.lock();
        }
        let page_count = page_count.unwrap_or(state.committed.page_count());
        let root = state.committed.laid_over(
            pages.iter().map(|(number, page)| (*number, page)),
            page_count,
            state.committed.version().wrapping_add(APPLY_VERSION_GAP),
        );
        state.is_written = true;
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
        // Whoever has the write lock of an ended epoch can commit nothing with it.
        state.reserved = None;
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
            Some(root) => {
                state.is_written = true;
                root.with_version(version)
            }
            None => {
                state.removed = true;
                Root::from_pages([self.empty_page.clone()], version)
            }
        };
        state.set_committed(next, replaced);
    }

    /// Marks it as gone from the store if nothing is pending and no log has anything of it: it was only opened, or its deletion was
    /// applied.
    pub(super) fn remove_if_void(&self) -> bool {
        let mut state = self.lock();
        let is_deleted = |page: &PageRef| page.with(header::page_count).is_ok_and(|count| count == 0);
        let is_void = state.pending.is_empty()
            && (!state.is_written || state.committed.get(PageNumber(1)).is_some_and(is_deleted));
        if is_void {
            state.removed = true;
        }
        is_void
    }

    /// Whether an entry or a snapshot has brought something: other nodes do not know of what was only opened.
    pub(super) fn is_written(&self) -> bool {
        self.lock().is_written
    }

    /// Takes the one write lock of the database for a connection that may have it, if its pin is the head of this epoch.
    pub fn reserve(&self, pin: &Pin, connection_id: Option<u64>) -> Reserved {
        let mut state = self.lock();
        if !state.is_head(pin) {
            return Reserved::NotOnHead;
        }
        let is_reserved = connection_id.is_some_and(|id| *state.reserved.get_or_insert(id) == id);
        if is_reserved { Reserved::Yes } else { Reserved::No }
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
        state.superseded.iter().map(Superseded::kept_pages).sum()
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
