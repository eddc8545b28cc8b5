//! What the owner of a connection and the connection's open file tell each other.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pages::{Commit, Database};

/// A version that a connection has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Epoch of the pin.
    pub epoch: u64,
    /// The version.
    pub version: u32,
    /// Whether it was taken from the head.
    pub on_head: bool,
}

impl Seen {
    /// Whether this version is newer than `other`; versions wrap.
    fn is_newer_than(&self, other: &Seen) -> bool {
        self.epoch > other.epoch
            || (self.epoch == other.epoch
                && self.version.wrapping_sub(other.version).wrapping_sub(1) < u32::MAX / 2)
    }
}

/// Held from the commit of a deletion until its owner has proposed it.
pub type DeletionPermit = Box<dyn Any + Send + Sync>;

/// Why a database may not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionRefused {
    /// SQLite's code.
    pub code: i32,
    /// What a client reads whose PRAGMA is refused.
    pub text: &'static CStr,
}

/// Knows the members of the cluster, and what may be done while there are others.
pub trait Members: fmt::Debug + Send + Sync {
    /// Whether there are others than this node.
    fn are_there_others(&self) -> bool;

    /// Asked by each `PRAGMA delete_database` that SQLite could run. Nothing is held after it.
    ///
    /// # Errors
    /// The database may not be deleted.
    fn check_deletion(&self) -> Result<(), DeletionRefused>;

    /// Asked when the transaction of such a PRAGMA commits.
    ///
    /// # Errors
    /// The database may not be deleted, or may not be at this moment.
    fn permit_deletion(&self) -> Result<DeletionPermit, DeletionRefused>;
}

#[derive(Debug, Default)]
struct State {
    /// The epoch of the connection; another one, and it gets no snapshot.
    epoch: Option<u64>,
    use_head: bool,
    turn: bool,
    refuse_commit: bool,
    wanted_turn: bool,
    pinned: Option<Seen>,
    seen: Option<Seen>,
    commits: Vec<Commit>,
    members: Option<Arc<dyn Members>>,
    deletion_permit: Option<DeletionPermit>,
}

/// Shared by the owner of a connection and its open main database.
#[derive(Debug)]
pub struct View {
    database: Arc<Database>,
    state: Mutex<State>,
}

impl View {
    pub(super) fn new(database: Arc<Database>) -> View {
        View { database, state: Mutex::default() }
    }

    /// The database that the connection has opened, whatever the store has by its name since.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Snapshots are of this epoch alone. What a connection has of an epoch that is over (its turn, its place in the queue of
    /// proposals) is worth nothing in the next one, even if that begins while it is inside SQLite.
    pub fn set_epoch(&self, epoch: u64) {
        self.lock().epoch = Some(epoch);
    }

    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.lock().epoch.is_none_or(|own| own == epoch)
    }

    /// Whether the next snapshot is of the head or of `committed`.
    pub fn set_use_head(&self, use_head: bool) {
        self.lock().use_head = use_head;
    }

    /// Whether this connection holds the writer's turn; without it RESERVED is refused. What was wanted before is forgotten.
    pub fn set_turn(&self, turn: bool) {
        let mut state = self.lock();
        state.turn = turn;
        state.wanted_turn = false;
    }

    /// Makes every commit fail, so that `sqlite3_reset` gives a statement up.
    pub fn set_refuse_commit(&self, refuse: bool) {
        self.lock().refuse_commit = refuse;
    }

    /// Whether RESERVED was asked for without the turn since this was last asked.
    pub fn take_wanted_turn(&self) -> bool {
        std::mem::take(&mut self.lock().wanted_turn)
    }

    /// What was committed since this was last asked, oldest first.
    pub fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut self.lock().commits)
    }

    /// Who knows the members of the cluster; without one there are no others.
    pub fn set_members(&self, members: Arc<dyn Members>) {
        self.lock().members = Some(members);
    }

    /// What was committed has been proposed: a permit to delete has done its service.
    pub fn drop_deletion_permit(&self) {
        let permit = self.lock().deletion_permit.take();
        drop(permit);
    }

    /// The newest version pinned or committed since `clear_seen`.
    #[must_use]
    pub fn saw(&self) -> Option<Seen> {
        self.lock().seen
    }

    /// The version of the snapshot that is held.
    #[must_use]
    pub fn pinned_version(&self) -> Option<Seen> {
        self.lock().pinned
    }

    /// Forgets what was seen.
    pub fn clear_seen(&self) {
        self.lock().seen = None;
    }

    pub(super) fn uses_head(&self) -> bool {
        self.lock().use_head
    }

    pub(super) fn refuses_commit(&self) -> bool {
        self.lock().refuse_commit
    }

    /// Whether the turn is held; if not, notes that it was wanted.
    pub(super) fn has_turn_or_wants_it(&self) -> bool {
        let mut state = self.lock();
        state.wanted_turn |= !state.turn;
        state.turn
    }

    pub(super) fn pinned(&self, seen: Seen) {
        let mut state = self.lock();
        state.pinned = Some(seen);
        if state.seen.is_none_or(|known| seen.is_newer_than(&known)) {
            state.seen = Some(seen);
        }
    }

    pub(super) fn unpinned(&self) {
        self.lock().pinned = None;
    }

    pub(super) fn check_deletion(&self) -> Result<(), DeletionRefused> {
        let members = self.lock().members.clone();
        members.map_or(Ok(()), |members| members.check_deletion())
    }

    pub(super) fn permit_deletion(&self) -> Result<DeletionPermit, DeletionRefused> {
        let members = self.lock().members.clone();
        members.map_or_else(|| Ok(Box::new(()) as DeletionPermit), |members| members.permit_deletion())
    }

    /// Whether the cluster has other members.
    pub(super) fn has_other_members(&self) -> bool {
        let members = self.lock().members.clone();
        members.is_some_and(|members| members.are_there_others())
    }

    pub(super) fn committed(&self, commit: Commit, deletion_permit: Option<DeletionPermit>) {
        let mut state = self.lock();
        state.commits.push(commit);
        state.deletion_permit = deletion_permit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageStore;
    use crate::vfs::template::empty_page;

    fn view() -> View {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        View::new(Arc::clone(attached.database()))
    }

    #[test]
    fn a_turn_that_an_earlier_statement_wanted_is_not_wanted_by_the_next() {
        let view = view();
        view.set_turn(false);
        assert!(!view.has_turn_or_wants_it());

        // The statement went on without it, and the next one begins.
        view.set_turn(false);

        assert!(!view.take_wanted_turn());
    }

    #[test]
    fn versions_wrap_and_a_later_epoch_is_newer_whatever_its_version() {
        const HALF: u32 = u32::MAX / 2;
        let seen = |epoch, version| Seen { epoch, version, on_head: false };
        for (left, right, newer) in [
            (seen(2, 1), seen(1, 9), true),
            (seen(1, 9), seen(2, 1), false),
            (seen(1, 2), seen(1, 1), true),
            (seen(1, 5), seen(1, 1), true),
            (seen(1, 1), seen(1, 1), false),
            (seen(1, 1), seen(1, 2), false),
            (seen(1, 0), seen(1, u32::MAX), true),
            (seen(1, HALF), seen(1, 0), true),
            (seen(1, HALF + 1), seen(1, 0), false),
        ] {
            assert_eq!(left.is_newer_than(&right), newer, "{left:?} {right:?}");
        }
    }

    #[test]
    fn the_newest_version_is_seen_until_it_is_forgotten_and_the_last_one_is_pinned() {
        let view = view();
        let seen = |version| Seen { epoch: 1, version, on_head: true };
        assert!(!view.uses_head());
        view.set_use_head(true);
        assert!(view.uses_head());

        view.pinned(seen(5));
        view.pinned(seen(4));
        assert_eq!((view.saw(), view.pinned_version()), (Some(seen(5)), Some(seen(4))));
        view.unpinned();
        assert_eq!((view.saw(), view.pinned_version()), (Some(seen(5)), None));
        view.clear_seen();
        assert_eq!(view.saw(), None);
    }
}
