//! Blocking work on the threads of the SQL runtime. One thread of each pool is made ahead, so that the work is done, later
//! perhaps, while no other thread can be made.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::host::threads;
use crate::types::config;
use crate::types::tasks::BlockingPool;

type Work = Box<dyn FnOnce() + Send>;
type Needed = Box<dyn Any + Send>;

/// A pool; clones are the same one.
#[derive(Clone)]
pub struct Pool {
    handle: Handle,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Work behind gives way to nobody any more.
    hurries: AtomicBool,
}

struct State {
    waiting: VecDeque<Work>,
    /// Works that are done just now.
    running: usize,
    /// Whether the thread that was made ahead has nothing to do.
    idle: bool,
    /// Nothing more is taken.
    ended: bool,
    ahead: Option<JoinHandle<()>>,
    /// Threads of works behind; those that have ended are forgotten when the next begins.
    behind: Vec<JoinHandle<()>>,
    /// What works need, until the pool has ended and the last of them, too.
    needed: Option<Needed>,
}

impl State {
    /// What is needed no more.
    fn let_go(&mut self) -> Option<Needed> {
        if self.ended && self.running == 0 { self.needed.take() } else { None }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        let work = state.waiting.pop_front()?;
        state.running += 1;
        Some(work)
    }

    /// Does one work. A panic leaves it undone, which whoever waits for it sees.
    fn perform(&self, work: Work) {
        drop(catch_unwind(AssertUnwindSafe(work)));
        let mut state = self.lock();
        state.running -= 1;
        let needed = state.let_go();
        drop(state);
        drop(needed);
        self.changed.notify_all();
    }

    fn work_ahead(&self) {
        loop {
            while let Some(work) = self.next() {
                self.perform(work);
            }
            let mut state = self.lock();
            while state.waiting.is_empty() {
                if state.ended {
                    return;
                }
                state.idle = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle = false;
        }
    }
}

impl Pool {
    /// A pool on the blocking threads of `handle`, with a first thread of this name, which keeps what `on_start` gives.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start<T>(
        handle: Handle,
        name: &str,
        on_start: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Pool> {
        let state = State {
            waiting: VecDeque::new(),
            running: 0,
            idle: false,
            ended: false,
            ahead: None,
            behind: Vec::new(),
            needed: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            hurries: AtomicBool::new(false),
        });
        let pool = Pool { handle, shared };
        let (own, runtime) = (Arc::clone(&pool.shared), pool.handle.clone());
        let ahead = threads::spawn(name, None, move || {
            let _kept = on_start();
            let _entered = runtime.enter();
            own.work_ahead();
        })?;
        pool.shared.lock().ahead = Some(ahead);
        Ok(pool)
    }

    /// Keeps what the works need, such as the right to the files: dropped when the pool has ended and none of them is left.
    pub fn keep(&self, needed: impl Send + 'static) {
        self.shared.lock().needed = Some(Box::new(needed));
    }

    /// The node is about to stop: work behind is not wanted any more.
    pub fn hurry(&self) {
        self.shared.hurries.store(true, Ordering::Relaxed);
    }

    /// Waits until all work is done, at most until `deadline`, and takes no more. How many works are left, which go on.
    pub fn end(&self, deadline: Option<Instant>) -> usize {
        let mut state = self.shared.lock();
        while state.running > 0 || !state.waiting.is_empty() {
            let Some(deadline) = deadline else {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ended = true;
        state.waiting.clear();
        let left = state.running;
        let needed = state.let_go();
        let made = state.ahead.take().into_iter().chain(std::mem::take(&mut state.behind));
        let made: Vec<JoinHandle<()>> = if left == 0 { made.collect() } else { Vec::new() };
        drop(state);
        drop(needed);
        self.shared.changed.notify_all();
        for thread in made {
            // Panics were caught inside.
            drop(thread.join());
        }
        left
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl BlockingPool for Pool {
    fn run(&self, work: Work) {
        let mut state = self.shared.lock();
        if state.ended {
            return;
        }
        state.waiting.push_back(work);
        let idle = std::mem::replace(&mut state.idle, false);
        drop(state);
        if idle {
            self.shared.changed.notify_all();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let perform = move || {
            if let Some(work) = shared.next() {
                shared.perform(work);
            }
        };
        // Without another thread the first one takes it when it is free; tokio panics if it can have none.
        drop(catch_unwind(AssertUnwindSafe(|| self.handle.spawn_blocking(perform))));
    }

    // A thread of the pool that has stepped back could not step forward again: such work has a thread of its own.
    fn run_behind(&self, work: Work) {
        let work = Arc::new(Mutex::new(Some(work)));
        let mut state = self.shared.lock();
        if state.ended {
            return;
        }
        let (own, shared) = (Arc::clone(&work), Arc::clone(&self.shared));
        let thread = threads::spawn("dqlite-snapshot", None, move || {
            // Where it may not, it does the work all the same.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BEHIND_NICE);
            let work = own.lock().unwrap_or_else(PoisonError::into_inner).take();
            shared.perform(work.unwrap_or_else(|| Box::new(|| {})));
        });
        match thread {
            Ok(thread) => {
                state.running += 1;
                state.behind.retain(|thread| !thread.is_finished());
                state.behind.push(thread);
            }
            Err(error) => {
                drop(state);
                tracing::warn!(%error, "no thread for a snapshot: it does not step back");
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.run(work.unwrap_or_else(|| Box::new(|| {})));
            }
        }
    }

    // Half of the time, whatever the machine and its disk can do.
    fn give_way(&self, worked: Duration) -> bool {
        let goes_on = !self.shared.hurries.load(Ordering::Relaxed);
        if goes_on {
            std::thread::sleep(worked.min(config::SNAPSHOT_REST_MAX));
        }
        goes_on
    }
}

/// How far work that can wait steps back: it gets about a tenth of a contended processor.
const BEHIND_NICE: i32 = 10;

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
