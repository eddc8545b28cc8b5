//! What is done to segments beside the writing of entries: closing full ones, preparing others, removing old ones. In order,
//! one job at a time, on a pool of threads, so that a write to the log waits for none of it; whoever needs all of it done
//! waits, or does it himself if nobody has begun. spec: disk-format 4.3, "Segments close one after the other in order".

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::types::LogIndex;
use crate::types::config::SEGMENTS_UNCLOSED_MAX;
use crate::types::tasks::BlockingPool;

use super::directory::Directory;
use super::error::StorageError;
use super::log_segments::{remove_before, remove_old_snapshots};
use super::open_segment::{OpenSegment, Zeros, close, make_open};

/// Called once when a job is done or has failed.
type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

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
    /// Removes closed segments that end before an index, and old snapshots.
    Trim {
        /// First entry that stays.
        keep_from: LogIndex,
        /// Called when the removal is durable; a failure leaves more than is needed.
        done: Done,
    },
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Somebody is at work.
    running: bool,
    /// Segments made and not yet taken.
    prepared: VecDeque<OpenSegment>,
    /// The job under way prepares a segment.
    preparing: bool,
    /// Why the first job, a segment to be closed, could not be done.
    failed: Option<StorageError>,
    /// A job panicked: nothing more is done, and whoever needs it panics, too.
    panicked: bool,
}

struct Shared {
    directory: Directory,
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

    /// Does jobs until none is left or a segment cannot be closed, unless somebody else does.
    fn work(&self) {
        let mut state = self.lock();
        if state.running || state.panicked {
            return;
        }
        state.running = true;
        state.failed = None;
        while let Some(job) = state.jobs.pop_front() {
            state.preparing = matches!(job, Job::Prepare { .. });
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.perform(job)));
            state = self.lock();
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
            state.preparing = false;
            self.changed.notify_all();
        }
        (state.running, state.preparing) = (false, false);
        self.changed.notify_all();
    }

    fn perform(&self, job: Job) -> Outcome {
        match job {
            Job::Close(mut segment) => match close(&self.directory, &mut segment) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Unclosed(segment, error),
            },
            Job::Prepare { counter, bytes, zeros } => match make_open(&self.directory, counter, bytes, zeros)
            {
                Ok(segment) => Outcome::Prepared(segment),
                Err(error) => {
                    // It shows again when the segment is needed.
                    tracing::debug!(%error, "no segment prepared");
                    Outcome::Done
                }
            },
            Job::Trim { keep_from, done } => {
                let removed = remove_before(&self.directory, keep_from);
                done(removed.and_then(|()| remove_old_snapshots(&self.directory)));
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
    pub(super) fn new(directory: Directory, pool: Arc<dyn BlockingPool>) -> Housekeeping {
        let shared = Shared { directory, state: Mutex::default(), changed: Condvar::new() };
        Housekeeping { shared: Arc::new(shared), pool }
    }

    /// Queues a job.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if !state.running {
            let shared = Arc::clone(&self.shared);
            drop(state);
            self.pool.run(Box::new(move || shared.work()));
        }
    }

    /// Waits until all jobs are done, doing them here if nobody has begun.
    ///
    /// # Errors
    /// A segment could not be closed; it is tried again the next time.
    pub(super) fn settle(&self) -> Result<(), StorageError> {
        loop {
            let state = self.shared.lock_whole();
            if state.running {
                drop(self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            if state.jobs.is_empty() {
                return Ok(());
            }
            drop(state);
            self.shared.work();
            let mut state = self.shared.lock();
            if let Some(error) = state.failed.take().filter(|_| !state.running) {
                return Err(error);
            }
        }
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
            let is_coming = state.running || state.jobs.iter().any(|job| matches!(job, Job::Prepare { .. }));
            if !is_coming {
                return None;
            }
            if state.running {
                drop(self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
            } else {
                drop(state);
                self.shared.work();
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

    /// Segments that are prepared or will be.
    pub(super) fn in_reserve(&self) -> usize {
        let state = self.shared.lock();
        let coming = state.jobs.iter().filter(|job| matches!(job, Job::Prepare { .. })).count();
        state.prepared.len() + coming + usize::from(state.preparing)
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
