//! Which descriptors belong to a node. They are numbers of a table that the whole process shares: a host may close one by accident, and
//! the number may be another file's from then on. So each that lives for long is kept with what it was opened as, which is asked before
//! it is written to or closed, and all of a node's are looked at now and then.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::locks::locked_within;
use super::open_file::{Identity, Mark, is_of_closed, is_other};
use super::per_process::PerProcess;

/// A descriptor that others have closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("descriptor {number} ({what}) was closed by others{}", if *.taken { "; it is another file by now" } else { "" })]
pub struct Lost {
    /// Its number.
    pub number: RawFd,
    /// What it was.
    pub what: Arc<str>,
    /// Whether the number is another file's by now.
    pub taken: bool,
}

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> io::Error {
        io::Error::other(lost)
    }
}

/// The lost descriptor that an error tells of, if it does.
#[must_use]
pub fn lost_in(error: &io::Error) -> Option<&Lost> {
    error.get_ref()?.downcast_ref()
}

/// One descriptor of a node.
#[derive(Debug)]
struct Known {
    number: RawFd,
    what: Arc<str>,
    identity: Identity,
    mark: Option<Mark>,
    /// The same open file under another number, to put it back with.
    spare: Option<OwnedFd>,
    /// Its owner may be closing it just now: nobody looks at it.
    is_leaving: AtomicBool,
}

impl Known {
    fn check(&self) -> Result<(), Lost> {
        if self.is_leaving.load(Ordering::Acquire) {
            return Ok(());
        }
        let taken = match Identity::of(self.number) {
            Ok(identity) if self.is(identity, self.number) && !self.differs_from_spare() => return Ok(()),
            Err(error) if !is_of_closed(&error) => return Ok(()),
            found => found.is_ok(),
        };
        Err(Lost { number: self.number, what: Arc::clone(&self.what), taken })
    }

    /// Whether what has been found under a number is this file, as far as can be told.
    fn is(&self, found: Identity, number: RawFd) -> bool {
        found.is_still(self.identity) && self.mark.is_none_or(|mark| mark.is_on(number))
    }

    fn is_at(&self, number: RawFd) -> bool {
        Identity::of(number).is_ok_and(|found| self.is(found, number))
    }

    /// Whether there are two files that look like this one: it cannot be told which is. A spare that others have closed is none.
    fn differs_from_spare(&self) -> bool {
        let spare = self.spare.as_ref().map(AsRawFd::as_raw_fd);
        spare.is_some_and(|spare| self.is_at(spare) && is_other(spare, self.number))
    }

    /// Puts the file back under its number, if that is free and there is a spare.
    fn put_back(&self) {
        let Some(spare) = &self.spare else { return };
        if !self.is_at(spare.as_raw_fd()) {
            return;
        }
        // The lowest free number from this one on: nothing of others is replaced.
        if let Ok(again) = rustix::io::fcntl_dupfd_cloexec(spare, self.number)
            && again.as_raw_fd() == self.number
        {
            // It belongs to whoever has opened it.
            std::mem::forget(again);
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let is_doubtful = self.is_at(self.number) && self.differs_from_spare();
        if let Some(spare) = self.spare.take()
            && (is_doubtful || !self.is_at(spare.as_raw_fd()))
        {
            std::mem::forget(spare);
        }
    }
}

/// How long a thread that panics waits for the register, which it may hold itself: nobody else does while anything is waited for.
const PUT_BACK_PATIENCE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct State {
    next: u64,
    known: BTreeMap<u64, Arc<Known>>,
    /// The first that was found missing.
    lost: Option<Lost>,
}

/// The descriptors of one node. Clones are the same register.
#[derive(Clone, Debug, Default)]
pub struct Register(Arc<Mutex<State>>);

/// Registers of the process whose descriptors are put back as soon as a thread of the library panics.
static GUARDED: PerProcess<Mutex<Vec<Weak<Mutex<State>>>>> = PerProcess::new(Mutex::default);

/// Puts back what is missing anywhere and has a spare; false if the number of one is another file's. For the beginning of a panic, which
/// may be that of a runtime that could not be woken: what is dropped while the thread unwinds wakes it again, and a second panic would
/// end the process.
#[must_use]
pub fn put_back_all() -> bool {
    let Some(guarded) = locked_within(GUARDED.get(), PUT_BACK_PATIENCE) else { return false };
    let mut all = true;
    for register in guarded.iter().filter_map(Weak::upgrade) {
        let Some(mut state) = locked_within(&register, PUT_BACK_PATIENCE) else { return false };
        // Files are not asked for, which may take as long as a disk does.
        let with_spare = state.known.values().filter(|known| known.spare.is_some());
        for known in with_spare.cloned().collect::<Vec<_>>() {
            state.look_at(&known);
            all &= known.check().is_ok();
        }
    }
    all
}

impl State {
    fn look_at(&mut self, known: &Known) {
        if let Err(lost) = known.check() {
            known.put_back();
            self.lost.get_or_insert(lost);
        }
    }
}

impl Register {
    /// What is missing is put back at once when a thread panics, until the register goes.
    pub fn guard_panics(&self) {
        let mut guarded = GUARDED.get().lock().unwrap_or_else(PoisonError::into_inner);
        guarded.retain(|register| register.strong_count() > 0);
        guarded.push(Arc::downgrade(&self.0));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a descriptor in.
    ///
    /// # Errors
    /// It is none.
    pub fn enter(&self, descriptor: &impl AsFd, what: &str) -> io::Result<Ticket> {
        self.enter_with(descriptor.as_fd().as_raw_fd(), what, None)
    }

    /// Takes one in that is somebody else's to close, with a spare: it is put back when it is found closed.
    ///
    /// # Errors
    /// It is none, or there is no other.
    pub fn enter_with_spare(&self, number: RawFd, what: &str) -> io::Result<Ticket> {
        // SAFETY: borrowed for a call that makes another; that the number is no descriptor is an error of the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let spare = rustix::io::fcntl_dupfd_cloexec(descriptor, super::descriptors::LOWEST)?;
        self.enter_with(number, what, Some(spare))
    }

    fn enter_with(&self, number: RawFd, what: &str, spare: Option<OwnedFd>) -> io::Result<Ticket> {
        let identity = Identity::of(number)?;
        let mark = Mark::of(number, identity)?;
        let is_leaving = AtomicBool::new(false);
        let known = Arc::new(Known { number, what: what.into(), identity, mark, spare, is_leaving });
        let mut state = self.lock();
        let key = state.next;
        state.next += 1;
        state.known.insert(key, Arc::clone(&known));
        drop(state);
        Ok(Ticket { known, key, register: self.clone() })
    }

    /// Looks at all of them. The first that was ever found missing; what can be put back is there again.
    pub fn look(&self) -> Option<Lost> {
        // Not locked while a file system is asked, which may hang.
        let known: Vec<_> = self.lock().known.iter().map(|(key, known)| (*key, Arc::clone(known))).collect();
        for (key, known) in known {
            if known.check().is_ok() {
                continue;
            }
            // What is in the register still has not been closed by the node itself.
            let mut state = self.lock();
            if state.known.contains_key(&key) {
                state.look_at(&known);
            }
        }
        self.lost()
    }

    /// The first that was found missing.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.lock().lost.clone()
    }

    fn note(&self, lost: &Lost) {
        self.lock().lost.get_or_insert_with(|| lost.clone());
    }
}

/// A descriptor's place in the register, until it is dropped: before the descriptor is closed.
#[derive(Debug)]
pub struct Ticket {
    known: Arc<Known>,
    key: u64,
    register: Register,
}

impl Ticket {
    /// Whether the descriptor still is what was entered.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), Lost> {
        self.known.check().inspect_err(|lost| self.register.note(lost))
    }

    /// Does what may close the descriptor if it fails.
    fn unwatched<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.known.is_leaving.store(true, Ordering::Release);
        let result = work()?;
        self.known.is_leaving.store(false, Ordering::Release);
        Ok(result)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.register.lock().known.remove(&self.key);
    }
}

/// What owns a descriptor that others may have closed: if they have, it is not dropped, since that would close what has its number by
/// now.
#[derive(Debug)]
pub struct Kept<T> {
    inner: ManuallyDrop<T>,
    /// Shared by what owns one descriptor together.
    ticket: ManuallyDrop<Arc<Ticket>>,
}

impl<T: AsFd> Kept<T> {
    /// Keeps it in the register.
    ///
    /// # Errors
    /// It is no descriptor.
    pub fn new(inner: T, register: &Register, what: &str) -> io::Result<Kept<T>> {
        let ticket = register.enter(&inner, what)?;
        Ok(Kept::of(inner, Arc::new(ticket)))
    }
}

impl<T> Kept<T> {
    fn of(inner: T, ticket: Arc<Ticket>) -> Kept<T> {
        Kept { inner: ManuallyDrop::new(inner), ticket: ManuallyDrop::new(ticket) }
    }

    /// Takes it apart.
    fn into_parts(self) -> (T, Arc<Ticket>) {
        let mut kept = ManuallyDrop::new(self);
        // SAFETY: both are taken once, here: what they were in is not dropped, and not used any more.
        unsafe { (ManuallyDrop::take(&mut kept.inner), ManuallyDrop::take(&mut kept.ticket)) }
    }

    /// The object alone, if it still is what was opened.
    ///
    /// # Errors
    /// It is not.
    pub fn into_checked(self) -> Result<T, Lost> {
        self.check()?;
        Ok(self.into_parts().0)
    }

    /// Two that own the descriptor together.
    pub fn split<A, B>(self, split: impl FnOnce(T) -> (A, B)) -> (Kept<A>, Kept<B>) {
        let (inner, ticket) = self.into_parts();
        let (one, other) = split(inner);
        (Kept::of(one, Arc::clone(&ticket)), Kept::of(other, ticket))
    }

    /// What becomes of it, if it still is what was opened.
    ///
    /// # Errors
    /// It is not; those of `map`.
    pub fn try_map<A>(self, map: impl FnOnce(T) -> io::Result<A>) -> io::Result<Kept<A>> {
        self.check()?;
        let (inner, ticket) = self.into_parts();
        // What fails has closed it.
        let mapped = ticket.unwatched(|| map(inner))?;
        Ok(Kept::of(mapped, ticket))
    }

    /// What becomes of two that own the descriptor together.
    ///
    /// # Errors
    /// As above.
    pub fn try_join<B, A>(
        self,
        other: Kept<B>,
        join: impl FnOnce(T, B) -> io::Result<A>,
    ) -> io::Result<Kept<A>> {
        self.check()?;
        let (inner, ticket) = self.into_parts();
        let (other, _) = other.into_parts();
        let joined = ticket.unwatched(|| join(inner, other))?;
        Ok(Kept::of(joined, ticket))
    }

    /// Whether it still is what was opened.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), Lost> {
        self.ticket.check()
    }

    /// The same object, after that question.
    ///
    /// # Errors
    /// It is not what was opened.
    pub fn checked(&self) -> Result<&T, Lost> {
        self.ticket.check()?;
        Ok(&self.inner)
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        let is_ours = self.ticket.check().is_ok();
        // First: whoever looks at the register meanwhile must not find a number that was closed here.
        // SAFETY: dropped once, here, and not used any more.
        unsafe { ManuallyDrop::drop(&mut self.ticket) };
        if is_ours {
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// Closes a descriptor as a host does that takes it for one of its own.
#[cfg(test)]
pub(crate) fn close_behind_its_back(number: RawFd) {
    use std::os::fd::FromRawFd;
    // SAFETY: what owns it is `Kept`, which does not close it again; that this is so is what is tested.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Puts another file under a number, as a host does that takes it for one of its own.
#[cfg(test)]
pub(crate) fn put_in_place(file: &impl AsFd, number: RawFd) {
    use std::os::fd::FromRawFd;
    // SAFETY: as above; it is not dropped here.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup3(file, &mut place, rustix::io::DupFlags::CLOEXEC).unwrap();
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
