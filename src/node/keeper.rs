//! Holds what runs behind a handle of the C interface, and lets calls in as `life` decides. No call holds the lock while it waits, so
//! every other one is answered at once.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::life::{Call, Caller, State, Verdict};
use super::own_threads::belonging;
use super::running::Running;
use super::start::{GivenUp, Watch};
use crate::host::threads;
use crate::types::config;

/// Name of the thread on which a call is done.
const CALL_THREAD: &str = "dqlite-call";

/// Does a call of the host on a thread made for it: it may need more stack than the host's thread has, and takes no signals.
///
/// # Errors
/// There is no thread; nothing was done.
pub fn elsewhere<T: Send>(call: impl FnOnce() -> T + Send) -> io::Result<T> {
    let belonging = belonging();
    threads::call(CALL_THREAD, || {
        belonging.take();
        call()
    })
}

/// The same for a call that must be done: on the host's own stack if there is no thread.
pub fn elsewhere_if_possible<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    let belonging = belonging();
    threads::call_anyway(CALL_THREAD, || {
        belonging.take();
        call()
    })
}

/// What calls change. Locked for no longer than a look.
pub struct Held<T> {
    /// `Failed` is `Running` here: the node's own failure makes the difference.
    state: State,
    running: Option<Box<Running>>,
    /// What is seen of the last start.
    watch: Watch,
    /// What the next start is made of.
    pub settings: T,
}

impl<T> Held<T> {
    /// What is seen of the last start.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What runs.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.running.as_deref()
    }
}

/// A handle that was asked, and what is to be done.
struct Asked<'a, T> {
    /// Locked, unless the caller is a forked child: the fork may have copied a lock that another thread held.
    held: Option<MutexGuard<'a, Held<T>>>,
    verdict: Verdict,
    /// Why the node has failed, as the end of a text.
    reason: String,
}

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `DQLITE_MISUSE`.
    #[error("{0}")]
    Misuse(&'static str),
    /// `DQLITE_ERROR`.
    #[error("{0}")]
    Error(String),
}

/// Why a call beside another one gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} on another thread has not returned after {seconds} s; the node ends when it does")]
pub struct StillInside {
    call: &'static str,
    seconds: u64,
}

/// Whether what a handle was made of may be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing uses it any more.
    Free,
    /// Something does, or it is another process's.
    Stays,
}

type Table = fn(State, Call, Caller) -> Verdict;

/// The life of one handle.
pub struct Keeper<T> {
    table: Table,
    /// The process that started the node, or starts it; else 0. Asked before any lock.
    started_by: AtomicU32,
    /// Calls that are inside, and whose they are. A process that was forked while there were some has copies of what they had locked.
    inside: AtomicUsize,
    entered_by: AtomicU32,
    held: Mutex<Held<T>>,
    changed: Condvar,
}

impl<T> Keeper<T> {
    /// Nothing runs yet; calls do what `table` says.
    pub fn new(table: Table, settings: T) -> Keeper<T> {
        let held = Held { state: State::Created, running: None, watch: Watch::default(), settings };
        Keeper {
            table,
            started_by: AtomicU32::new(0),
            inside: AtomicUsize::new(0),
            entered_by: AtomicU32::new(0),
            held: Mutex::new(held),
            changed: Condvar::new(),
        }
    }

    /// Whether the node was started by another process than this one, or a call of that one was inside when this one was forked.
    #[must_use]
    pub fn is_in_child(&self) -> bool {
        let started_by = self.started_by.load(Ordering::Acquire);
        started_by != 0 && started_by != std::process::id() || self.is_forked_beside_a_call()
    }

    fn is_forked_beside_a_call(&self) -> bool {
        let is_others = self.entered_by.load(Ordering::Acquire) != std::process::id();
        is_others && self.inside.load(Ordering::Acquire) > 0
    }

    /// What calls change; not for a forked child.
    pub fn lock(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call as inside until the result is dropped.
    pub fn come_in(&self) -> impl Drop {
        struct Inside<'a>(&'a AtomicUsize);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if !self.is_forked_beside_a_call() {
            self.entered_by.store(std::process::id(), Ordering::Release);
        }
        self.inside.fetch_add(1, Ordering::AcqRel);
        Inside(&self.inside)
    }

    /// What a call does.
    fn ask(&self, call: Call) -> Asked<'_, T> {
        if self.is_in_child() {
            let verdict = (self.table)(State::Running, call, Caller::Child);
            return Asked { held: None, verdict, reason: String::new() };
        }
        let held = self.lock();
        let caller = if held.watch.own.is_one() { Caller::Callback } else { Caller::Host };
        let failed = held.watch.failure.reason().filter(|_| held.state == State::Running);
        let state = if failed.is_some() { State::Failed } else { held.state };
        let reason = failed.map_or_else(String::new, |failed| format!(": {failed}"));
        Asked { held: Some(held), verdict: (self.table)(state, call, caller), reason }
    }

    /// Lets a call in, with what it has to do.
    ///
    /// # Errors
    /// It is refused.
    pub fn enter(&self, call: Call) -> Result<(MutexGuard<'_, Held<T>>, Verdict), Refused> {
        let Asked { held, verdict, reason } = self.ask(call);
        match (verdict, held) {
            (Verdict::Misuse(text), _) => Err(Refused::Misuse(text)),
            (Verdict::Error(text), _) => Err(Refused::Error(format!("{text}{reason}"))),
            (verdict, Some(held)) => Ok((held, verdict)),
            (_, None) => Err(Refused::Misuse("the node was started by another process")),
        }
    }

    /// Begins a start: the state is `Starting` until the result is dropped.
    pub fn begin_start<'a>(&'a self, mut held: MutexGuard<'a, Held<T>>) -> Start<'a, T> {
        held.state = State::Starting;
        held.watch = Watch::default();
        let watch = held.watch.clone();
        self.started_by.store(std::process::id(), Ordering::Release);
        drop(held);
        Start { settles: Settles(self), watch }
    }

    /// Does what a stop or a destroy has to do; `end` gets what runs.
    ///
    /// # Errors
    /// Those of `end`; another thread's call does not return.
    pub fn stop<E: From<StillInside>>(
        &self,
        mut held: MutexGuard<'_, Held<T>>,
        verdict: Verdict,
        end: impl FnOnce(&mut Running) -> Result<(), E>,
    ) -> Result<(), E> {
        match verdict {
            Verdict::Enter(state) => {
                held.state = state;
                let running = held.running.take();
                drop(held);
                let _settles = Settles(self);
                let Some(mut running) = running else { return Ok(()) };
                end(&mut running)
            }
            Verdict::GiveUpStart => {
                held.watch.give_up.cancel();
                Ok(self.wait_while(held, State::Starting, "a start")?)
            }
            Verdict::AwaitStop => Ok(self.wait_while(held, State::Stopping, "a stop")?),
            _ => Ok(()),
        }
    }

    fn wait_while(
        &self,
        held: MutexGuard<'_, Held<T>>,
        state: State,
        call: &'static str,
    ) -> Result<(), StillInside> {
        let longest = config::CALL_BESIDE_MAX;
        let waited = self.changed.wait_timeout_while(held, longest, |held| held.state == state);
        let (held, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match held.state == state {
            true => Err(StillInside { call, seconds: longest.as_secs() }),
            false => Ok(()),
        }
    }

    /// Ends what runs for good, by `end`, and tells whether the handle may be freed; `refused` gets the text of a destroy that is
    /// not let in.
    pub fn finish(&self, refused: impl FnOnce(&str), end: impl FnOnce()) -> Ending {
        // No longer locked: `end` comes in again.
        let verdict = self.ask(Call::Destroy).verdict;
        match verdict {
            Verdict::Leave => return Ending::Stays,
            Verdict::Misuse(text) | Verdict::Error(text) => {
                refused(text);
                return Ending::Stays;
            }
            Verdict::Do => {}
            _ => end(),
        }
        self.wait_for_others()
    }

    /// Waits for calls that other threads of the host are in, before the handle is freed.
    fn wait_for_others(&self) -> Ending {
        let began = Instant::now();
        while self.inside.load(Ordering::Acquire) > 0 {
            if began.elapsed() > config::CALL_BESIDE_MAX {
                return Ending::Stays;
            }
            std::thread::sleep(config::DESTROY_LOOKS_EVERY);
        }
        Ending::Free
    }
}

/// A start that is under way.
pub struct Start<'a, T> {
    settles: Settles<'a, T>,
    /// What is seen of it.
    pub watch: Watch,
}

impl<T> Start<'_, T> {
    /// The start has succeeded.
    ///
    /// # Errors
    /// A stop has come meanwhile, and nothing runs.
    pub fn succeed(self, running: Box<Running>) -> Result<(), GivenUp> {
        let mut held = self.settles.0.lock();
        if let Err(given_up) = held.watch.still_wanted() {
            drop(held);
            // Whoever stops the node waits for this.
            drop(running);
            return Err(given_up);
        }
        held.running = Some(running);
        held.state = State::Running;
        Ok(())
    }
}

/// Ends the states `Starting` and `Stopping` when it is dropped, on every path, and lets those go on that wait for it.
struct Settles<'a, T>(&'a Keeper<T>);

impl<T> Drop for Settles<'_, T> {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        held.state = match held.state {
            // Nothing runs, and a start may be tried again, by whichever process.
            State::Starting if !held.watch.give_up.is_cancelled() => {
                self.0.started_by.store(0, Ordering::Release);
                State::Created
            }
            State::Starting | State::Stopping => State::Stopped,
            state => state,
        };
        drop(held);
        self.0.changed.notify_all();
    }
}
