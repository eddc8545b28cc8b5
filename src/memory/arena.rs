//! Pages in memory of their own: none of it is held by anything but pages, so that what is free goes back to the system page by
//! page, wherever it lies. The allocator of the C library keeps it where others still hold a neighbour.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::returned::Returned;
use super::slab::{SLAB_PAGES, Slab};
use super::slots::{Kept, Slots};
use crate::types::config::{ARENA_KEPT_PAGES, ARENA_KEPT_SHARE, PAGE_SIZE};
use crate::types::tasks::{BlockingPool, run_or_now};

/// Where pages come from.
pub struct Arena {
    own: Weak<Arena>,
    state: Mutex<State>,
    /// Where memory is given back; without it, on the spot.
    pool: OnceLock<Arc<dyn BlockingPool>>,
    returned: Returned,
}

struct State {
    slots: Slots,
    /// By the number of their first page, divided by `SLAB_PAGES`.
    slabs: Vec<Option<Arc<SlabOf>>>,
}

/// A slab, and where its pages go back to.
struct SlabOf {
    slab: Slab,
    arena: Weak<Arena>,
}

/// A page of an arena: filled when it was made, read-only since, free when it is dropped. It keeps its slab, whatever becomes of
/// the arena.
pub struct ArenaPage {
    slab: Arc<SlabOf>,
    slot: u32,
}

/// Pages that the system manages at once.
fn pages_of_system() -> u32 {
    u32::try_from(rustix::param::page_size() / PAGE_SIZE).unwrap_or(1).clamp(1, SLAB_PAGES)
}

fn slab_of(slot: u32) -> usize {
    (slot / SLAB_PAGES) as usize
}

impl Arena {
    /// An arena without pages.
    #[must_use]
    pub fn new() -> Arc<Arena> {
        let kept = Kept { least: ARENA_KEPT_PAGES, share: ARENA_KEPT_SHARE };
        let state = State { slots: Slots::new(kept), slabs: Vec::new() };
        Arc::new_cyclic(|own| Arena {
            own: own.clone(),
            state: Mutex::new(state),
            pool: OnceLock::new(),
            returned: Returned::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on memory is given back on this pool.
    pub fn set_pool(&self, pool: Arc<dyn BlockingPool>) {
        // The first one stays.
        let _ = self.pool.set(pool);
    }

    /// Counts what is given back.
    #[must_use]
    pub fn returned(&self) -> &Returned {
        &self.returned
    }

    /// Pages in use, and pages that take memory all the same.
    #[must_use]
    pub fn usage(&self) -> (u32, u32) {
        let state = self.lock();
        (state.slots.used(), state.slots.idle())
    }

    /// A page with a copy of these bytes.
    ///
    /// # Errors
    /// The system has no more memory, or 2^32 - 1 pages are in use.
    pub fn page(&self, bytes: &[u8; PAGE_SIZE]) -> io::Result<ArenaPage> {
        let (slab, slot) = self.lock().take(&self.own)?;
        // SAFETY: the slot was free, so that no page of it is left, and is taken, so that nobody else gets it before this page goes.
        unsafe { slab.slab.fill(slot % SLAB_PAGES, bytes) };
        Ok(ArenaPage { slab, slot })
    }

    fn give_back(self: &Arc<Arena>, slot: u32) {
        let mut state = self.lock();
        state.slots.give_back(slot);
        let begins = state.slots.begin_sweep();
        drop(state);
        if begins {
            let own = Arc::clone(self);
            run_or_now(self.pool.get(), move || own.sweep());
        }
    }

    /// Gives back the memory of most pages that are free, and the slabs that have no other.
    fn sweep(&self) {
        let (unit, mut pages) = (pages_of_system(), 0);
        let mut state = self.lock();
        while let Some(run) = state.slots.leave(unit, SLAB_PAGES) {
            let Some(slab) = state.slabs.get(slab_of(run.start)).cloned().flatten() else {
                state.slots.left(run);
                continue;
            };
            drop(state);
            let within = run.start % SLAB_PAGES..run.start % SLAB_PAGES + (run.end - run.start);
            // SAFETY: the slots are leaving, so that no page of them is left, and nobody gets one before they have left.
            unsafe { slab.slab.discard(within) };
            state = self.lock();
            pages += run.end - run.start;
            state.slots.left(run.clone());
            state.drop_void_slab(slab_of(run.start));
        }
        drop(state);
        self.returned.add(pages as usize * PAGE_SIZE);
    }
}

impl State {
    fn take(&mut self, arena: &Weak<Arena>) -> io::Result<(Arc<SlabOf>, u32)> {
        let taken = self.slots.take().ok_or(io::ErrorKind::OutOfMemory)?;
        let number = slab_of(taken.slot);
        if self.slabs.len() <= number {
            self.slabs.resize(number + 1, None);
        }
        if let Some(slab) = &self.slabs[number] {
            return Ok((Arc::clone(slab), taken.slot));
        }
        match Slab::map() {
            Ok(slab) => {
                let slab = Arc::new(SlabOf { slab, arena: arena.clone() });
                self.slabs[number] = Some(Arc::clone(&slab));
                Ok((slab, taken.slot))
            }
            Err(error) => {
                self.slots.give_back_void(taken.slot);
                Err(error)
            }
        }
    }

    fn drop_void_slab(&mut self, number: usize) {
        let first = number as u32 * SLAB_PAGES;
        if self.slots.is_void(first..first.saturating_add(SLAB_PAGES))
            && let Some(slab) = self.slabs.get_mut(number)
        {
            *slab = None;
        }
        while self.slabs.last().is_some_and(Option::is_none) {
            self.slabs.pop();
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl ArenaPage {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        // SAFETY: filled when this page was made; its slot is given back when it is dropped, and is not used by others before.
        unsafe { self.slab.slab.bytes(self.slot % SLAB_PAGES) }
    }

    /// Where they lie. Behind them, too, is memory that can be read: a page at least, which may change.
    #[must_use]
    pub fn address(&self) -> *const u8 {
        self.slab.slab.address(self.slot % SLAB_PAGES)
    }
}

impl fmt::Debug for ArenaPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArenaPage").field(&self.slot).finish()
    }
}

impl Drop for ArenaPage {
    fn drop(&mut self) {
        // Without its arena nobody gets the slot again; the slab goes with its last page.
        if let Some(arena) = self.slab.arena.upgrade() {
            arena.give_back(self.slot);
        }
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
