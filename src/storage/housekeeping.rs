//! What is done to segments beside the writing of entries: closing full ones, preparing others, removing old ones. In order,
//! one job at a time, on a pool of threads, so that a write to the log waits for none of it; whoever needs all of it done
//! waits, or does it himself if nobody has begun. spec: disk-format 4.3, "Segments close one after the other in order".
//!
//! What was removed loses its name at once and its bytes bit by bit, when there is nothing else to do (`erasure`).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::types::LogIndex;
use crate::types::config::SEGMENTS_UNCLOSED_MAX;
use crate::types::tasks::BlockingPool;

use super::directory::{Directory, LockWatch};
use super::erasure::Erasing;
use super::error::StorageError;
use super::open_segment::{OpenSegment, close, make_open};
use super::removal::{remove_before, remove_old_snapshots};
use super::snapshot::{Sealed, name_snapshot};
use super::zeros::{Filling, Zeros};

/// Called once when something is durable, or cannot ever be.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Work on segments that nothing waits for.
pub(super) enum Job {
    /// Closes a segment that takes no more entries and is not in doubt.
    Close(OpenSegment),
    /// Makes a segment of zeros.
    Prepare {
        /// Its counter.
        counter: u64,
        /// Its length.
        bytes: u64,
        /// Where its zeros come from.
        zeros: Zeros,
    },
    /// Writes zeros ahead of the entries of a segment.
    Fill(Filling),
    /// Gives a snapshot its names, then removes closed segments that end before an index, and old snapshots.
    AddSnapshot {
        /// The snapshot.
        snapshot: Box<dyn Sealed>,
        /// First entry that stays.
        keep_from: LogIndex,
        /// Called when the snapshot is durable.
        done: Done,
    },
    /// Frees some bytes of files that were removed. It comes last.
    Erase,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// What somebody is at.
    under_way: UnderWay,
    /// Segments made and not yet taken.
    prepared: VecDeque<OpenSegment>,
    /// Removed files whose bytes are still there.
    erasing: Erasing,
    /// The log is being closed.
    ends: bool,
    /// Why the first job, a segment to be closed, could not be done.
    failed: Option<StorageError>,
    /// A job panicked: nothing more is done, and whoever needs it panics, too.
    panicked: bool,
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnderWay {
    #[default]
    Nothing,
    /// A segment is being prepared.
    Preparing,
    /// Bytes are being freed, which nobody waits for.
    Erasing,
    /// Any other job.
    Job,
}

impl UnderWay {
    fn of(job: &Job) -> UnderWay {
        match job {
            Job::Prepare { .. } => UnderWay::Preparing,
            Job::Erase => UnderWay::Erasing,
            Job::Close(_) | Job::Fill(_) | Job::AddSnapshot { .. } => UnderWay::Job,
        }
    }
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Jobs, then erasing.
    All,
    /// Jobs: somebody waits.
    Jobs,
}

impl State {
    fn is_running(&self) -> bool {
        self.under_way != UnderWay::Nothing
    }

    /// What is to be done next: nobody waits for bytes to be freed.
    fn next_job(&mut self, scope: Scope) -> Option<Job> {
        self.jobs.pop_front().or_else(|| {
            let erases = scope == Scope::All && !self.ends && !self.erasing.is_empty();
            erases.then_some(Job::Erase)
        })
    }
}

struct Shared {
    directory: Directory,
    /// Names are changed as long as it is held.
    lock: LockWatch,
    state: Mutex<State>,
    changed: Condvar,
}

/// The jobs of one directory.
pub(super) struct Housekeeping {
    shared: Arc<Shared>,
    pool: Arc<dyn BlockingPool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who depends on what is done here.
    fn lock_whole(&self) -> MutexGuard<'_, State> {
        let state = self.lock();
        assert!(!state.panicked, "segments are tended no more: that panicked");
        state
    }

    /// Waits until something was done.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what `scope` says until nothing is left or a segment cannot be closed, unless somebody else does.
    fn work(&self, scope: Scope) {
        let mut state = self.lock();
        if state.is_running() || state.panicked {
            return;
        }
        state.failed = None;
        while let Some(job) = state.next_job(scope) {
            state.under_way = UnderWay::of(&job);
            let mut erasing = std::mem::take(&mut state.erasing);
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.perform(job, &mut erasing)));
            state = self.lock();
            state.erasing = erasing;
            match outcome {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Prepared(segment)) => state.prepared.push_back(segment),
                Ok(Outcome::Unclosed(segment, error)) => {
                    state.jobs.push_front(Job::Close(segment));
                    state.failed = Some(error);
                    break;
                }
                // A segment may have been lost that must be closed before others.
                Err(_) => {
                    state.panicked = true;
                    break;
                }
            }
            self.changed.notify_all();
        }
        state.under_way = UnderWay::Nothing;
        self.changed.notify_all();
    }

    fn with_lock<T>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.lock.check()?;
        work(&self.directory)
    }

    fn perform(&self, job: Job, erasing: &mut Erasing) -> Outcome {
        match job {
            Job::Close(mut segment) => match self.with_lock(|directory| close(directory, &mut segment)) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Unclosed(segment, error),
            },
            Job::Prepare { counter, bytes, zeros } => {
                match self.with_lock(|directory| make_open(directory, counter, bytes, zeros)) {
                    Ok(segment) => Outcome::Prepared(segment),
                    Err(error) => {
                        // It shows again when the segment is needed.
                        tracing::debug!(%error, "no segment prepared");
                        Outcome::Done
                    }
                }
            }
            Job::Fill(filling) => {
                if let Err(error) = filling.run(&self.directory) {
                    // Entries find an error of the disk themselves.
                    tracing::debug!(%error, "no zeros ahead");
                }
                Outcome::Done
            }
            Job::AddSnapshot { mut snapshot, keep_from, done } => {
                let named = self.with_lock(|directory| name_snapshot(directory, snapshot.as_mut()));
                if named.is_ok() {
                    let removed = remove_before(&self.directory, keep_from, erasing)
                        .and_then(|()| remove_old_snapshots(&self.directory, erasing));
                    if let Err(error) = removed {
                        tracing::warn!(%error, "segments behind the snapshot stay");
                    }
                }
                done(named);
                Outcome::Done
            }
            Job::Erase => {
                erasing.step();
                Outcome::Done
            }
        }
    }
}

/// How a job ended.
enum Outcome {
    Done,
    Prepared(OpenSegment),
    Unclosed(OpenSegment, StorageError),
}

impl Housekeeping {
    pub(super) fn new(directory: Directory, lock: LockWatch, pool: Arc<dyn BlockingPool>) -> Housekeeping {
        let shared = Shared { directory, lock, state: Mutex::default(), changed: Condvar::new() };
        Housekeeping { shared: Arc::new(shared), pool }
    }

    /// Queues a job.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if !state.is_running() {
            let shared = Arc::clone(&self.shared);
            drop(state);
            self.pool.run(Box::new(move || shared.work(Scope::All)));
        }
    }

    /// Waits until all jobs are done, doing them here if nobody has begun. Bytes of removed files may be there still.
    ///
    /// # Errors
    /// A segment could not be closed; it is tried again the next time.
    pub(super) fn settle(&self) -> Result<(), StorageError> {
        loop {
            let state = self.shared.lock_whole();
            if state.jobs.is_empty() && matches!(state.under_way, UnderWay::Nothing | UnderWay::Erasing) {
                return Ok(());
            }
            if state.is_running() {
                drop(self.shared.wait(state));
                continue;
            }
            drop(state);
            self.shared.work(Scope::Jobs);
            let mut state = self.shared.lock();
            if let Some(error) = state.failed.take().filter(|_| !state.is_running()) {
                return Err(error);
            }
        }
    }

    /// Waits for what is being done until a condition holds that it brings about.
    pub(super) fn wait_until(&self, mut holds: impl FnMut() -> bool) {
        let mut state = self.shared.lock_whole();
        while !holds() && state.is_running() {
            state = self.shared.wait(state);
        }
    }

    /// Ends the work in the background. What is left to be freed goes with its descriptors.
    pub(super) fn end_erasing(&self) {
        let mut state = self.shared.lock();
        state.ends = true;
        while state.is_running() {
            state = self.shared.wait(state);
        }
        let erasing = std::mem::take(&mut state.erasing);
        drop(state);
        drop(erasing);
    }

    /// Sees to it that there is an end to segments that wait for being closed.
    ///
    /// # Errors
    /// There are too many of them, and the oldest cannot be closed.
    pub(super) fn bound_unclosed(&self) -> Result<(), StorageError> {
        let waiting = self.shared.lock().jobs.iter().filter(|job| matches!(job, Job::Close(_))).count();
        if waiting < SEGMENTS_UNCLOSED_MAX { Ok(()) } else { self.settle() }
    }

    /// A prepared segment, once it is there; none if none is on its way.
    pub(super) fn take_prepared(&self) -> Option<OpenSegment> {
        loop {
            let mut state = self.shared.lock_whole();
            if let Some(segment) = state.prepared.pop_front() {
                return Some(segment);
            }
            let is_coming = state.under_way == UnderWay::Preparing
                || state.jobs.iter().any(|job| matches!(job, Job::Prepare { .. }));
            if !is_coming {
                return None;
            }
            if state.is_running() {
                drop(self.shared.wait(state));
            } else {
                drop(state);
                self.shared.work(Scope::Jobs);
                let state = self.shared.lock();
                if state.failed.is_some() && state.prepared.is_empty() {
                    return None;
                }
            }
        }
    }

    /// Puts a segment back that was not used.
    pub(super) fn put_back(&self, segment: OpenSegment) {
        self.shared.lock().prepared.push_front(segment);
    }

    /// Segments that are prepared.
    pub(super) fn prepared(&self) -> usize {
        self.shared.lock().prepared.len()
    }

    /// Segments that are prepared or will be.
    pub(super) fn in_reserve(&self) -> usize {
        let state = self.shared.lock();
        let coming = state.jobs.iter().filter(|job| matches!(job, Job::Prepare { .. })).count();
        state.prepared.len() + coming + usize::from(state.under_way == UnderWay::Preparing)
    }

    /// The first segment in reserve; to be called when all is settled.
    pub(super) fn first_prepared(&self) -> Option<String> {
        self.shared.lock().prepared.front().map(|segment| segment.name.clone())
    }

    /// Forgets the first segment in reserve.
    pub(super) fn forget_first_prepared(&self) {
        self.shared.lock().prepared.pop_front();
    }
}
