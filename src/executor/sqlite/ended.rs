//! What ends the work of a client's connection before its time, and what is looked at while a statement runs. Nothing is
//! dropped when it ends early: whoever works looks here, at every wait and between SQLite's instructions, and comes to rest.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::pages::PageStore;
use crate::types::config::{SQL_ON_WORKER_MAX, SQL_WORKER_OFFERED_EVERY};
use crate::types::fault::{self, Fault};
use crate::types::pause;
use crate::types::tasks::{Expected, SqlSection, let_others_run};

/// Share of the time between two offers of a worker in which somebody may come for it.
const WORKER_OFFER_SHARE: u32 = 50;

/// Why work ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node stops.
    Stopping,
    /// The epoch of the request is over: what it saw may be no more.
    EpochOver,
    /// Nobody waits for the answer.
    ClientGone,
    /// The client has asked to stop this request.
    Interrupted,
}

/// Which ends a wait or a statement heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heeds {
    /// All of them.
    All,
    /// All but INTERRUPT: something was proposed, and what became of it is to be told.
    AllButInterrupt,
    /// Only those that take the database away: a statement has made its changes, and its rows are read to their end.
    OnlyTheNode,
}

const CLIENT_GONE: u8 = 1;
const INTERRUPTED: u8 = 2;
/// Not an end: the statement that runs has made its changes.
const HAS_CHANGED: u8 = 4;

/// Of no request.
const NO_EPOCH: u64 = 0;

/// What ends the work of one connection; shared by those who work, those who look after the connection, and SQLite's progress
/// handler.
#[derive(Clone, Debug)]
pub struct Ended {
    pub(super) shared: Arc<Shared>,
}

/// What is looked at while a statement runs.
#[derive(Debug)]
pub(super) struct Shared {
    flags: AtomicU8,
    /// Set for good, for all connections of a node, when it stops.
    node_stops: Arc<AtomicBool>,
    /// Epoch of the request under way.
    epoch: AtomicU64,
    store: Arc<PageStore>,
    /// Set while a statement runs on a worker of the runtime.
    on_worker: Mutex<Option<OnWorker>>,
    /// Whether a statement runs and takes long, or may.
    runs_long: watch::Sender<bool>,
}

/// A statement that is expected to be short.
#[derive(Clone, Copy, Debug)]
struct OnWorker {
    since: Instant,
    /// When it offers its worker to others, and how long after that again: nobody may have come in time.
    offers_after: Duration,
    again_after: Duration,
}

impl OnWorker {
    fn begin() -> OnWorker {
        OnWorker { since: Instant::now(), offers_after: SQL_ON_WORKER_MAX, again_after: SQL_ON_WORKER_MAX }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<OnWorker>> {
        self.on_worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, heeds: Heeds) -> Option<End> {
        if self.node_stops.load(Ordering::Acquire) {
            return Some(End::Stopping);
        }
        let flags = self.flags.load(Ordering::Acquire);
        // Before the epoch: some waits outlive that.
        let is_gone = flags & CLIENT_GONE != 0 && !fault::is_planted(Fault::ClientGoneUnseen);
        if is_gone && heeds != Heeds::OnlyTheNode {
            return Some(End::ClientGone);
        }
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch != NO_EPOCH && epoch != self.store.epoch() {
            return Some(End::EpochOver);
        }
        (flags & INTERRUPTED != 0 && heeds == Heeds::All).then_some(End::Interrupted)
    }

    /// Called between SQLite's instructions: whether the statement is to stop.
    pub(super) fn look(&self) -> bool {
        pause::point();
        self.offer_worker();
        let has_changed = self.flags.load(Ordering::Relaxed) & HAS_CHANGED != 0;
        self.end(if has_changed { Heeds::OnlyTheNode } else { Heeds::All }).is_some()
    }

    /// A statement that was expected to be short and is not leaves its worker to others. It is not told whether one has
    /// come, so that it offers the worker again and again.
    fn offer_worker(&self) {
        let mut on_worker = self.lock();
        let Some(run) = on_worker.as_mut() else { return };
        let elapsed = run.since.elapsed();
        if elapsed < run.offers_after {
            return;
        }
        let patience = run.again_after / WORKER_OFFER_SHARE;
        run.offers_after = elapsed + run.again_after;
        run.again_after = (run.again_after * 2).min(SQL_WORKER_OFFERED_EVERY);
        drop(on_worker);
        self.runs_long.send_if_modified(|long| !std::mem::replace(long, true));
        let_others_run(patience);
    }

    fn set(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!flag, Ordering::AcqRel);
        }
    }
}

impl Ended {
    /// Of a connection that works on the databases of this store.
    #[must_use]
    pub fn new(store: Arc<PageStore>) -> Ended {
        Ended::of_node(store, Arc::default())
    }

    /// The same of a node that says when it stops.
    #[must_use]
    pub fn of_node(store: Arc<PageStore>, node_stops: Arc<AtomicBool>) -> Ended {
        Ended {
            shared: Arc::new(Shared {
                flags: AtomicU8::new(0),
                node_stops,
                epoch: AtomicU64::new(NO_EPOCH),
                store,
                on_worker: Mutex::new(None),
                runs_long: watch::Sender::new(false),
            }),
        }
    }

    /// The next request is taken: what ended the one before has ended, and nobody knows its epoch yet. Here and nowhere later:
    /// an INTERRUPT may come at any time from here on.
    pub fn next_request(&self) {
        self.shared.set(INTERRUPTED, false);
        self.shared.epoch.store(NO_EPOCH, Ordering::Relaxed);
    }

    /// The request is of this epoch.
    pub fn begin(&self, epoch: u64) {
        self.shared.epoch.store(epoch, Ordering::Relaxed);
    }

    /// The epoch as it is now.
    #[must_use]
    pub fn newest_epoch(&self) -> u64 {
        self.shared.store.epoch()
    }

    /// Nobody waits for answers any more.
    pub fn set_client_gone(&self) {
        self.shared.set(CLIENT_GONE, true);
    }

    /// The request under way is to stop.
    pub fn interrupt(&self) {
        self.shared.set(INTERRUPTED, true);
    }

    /// Whether the statement that runs has made its changes: then it is not stopped for the client's sake any more.
    pub(in crate::executor) fn set_has_changed(&self, has_changed: bool) {
        self.shared.set(HAS_CHANGED, has_changed);
    }

    /// What has ended, of what is heeded.
    #[must_use]
    pub fn look(&self, heeds: Heeds) -> Option<End> {
        self.shared.end(heeds)
    }

    /// Waits for a future or for an end, whichever comes first; an end counts more. Whoever looks after the connection wakes
    /// the task when something has ended.
    ///
    /// # Errors
    /// What has ended. The future is dropped.
    pub async fn race<T>(&self, heeds: Heeds, future: impl Future<Output = T>) -> Result<T, End> {
        let mut future = pin!(future);
        poll_fn(|context| match self.look(heeds).filter(|_| !fault::is_planted(Fault::WaitsForEver)) {
            Some(end) => Poll::Ready(Err(end)),
            None => future.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// The same, but the future counts more than an end.
    ///
    /// # Errors
    /// What has ended. The future is dropped.
    pub async fn race_to<T>(&self, heeds: Heeds, future: impl Future<Output = T>) -> Result<T, End> {
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.look(heeds).map_or(Poll::Pending, |end| Poll::Ready(Err(end))),
        })
        .await
    }

    /// Whether a statement runs and takes long, or may: then somebody else has to look after its connection.
    #[must_use]
    pub fn runs_long(&self) -> watch::Receiver<bool> {
        self.shared.runs_long.subscribe()
    }

    /// Runs `work`, which is inside SQLite, for the calling task.
    pub(in crate::executor) async fn run_inside<T: Send + 'static>(
        &self,
        section: &SqlSection,
        expected: Expected,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match section {
            SqlSection::BlockInPlace => {
                match expected {
                    Expected::Short => *self.shared.lock() = Some(OnWorker::begin()),
                    Expected::Unknown => drop(self.shared.runs_long.send_replace(true)),
                }
                let result = section.run_now(expected, work);
                *self.shared.lock() = None;
                self.shared.runs_long.send_if_modified(|long| std::mem::replace(long, false));
                Some(result)
            }
            // There is one thread: nobody can look after the connection meanwhile, and a simulation must not depend on how
            // long a statement takes in fact.
            SqlSection::Inline => Some(work()),
            SqlSection::Aside(aside) => {
                let result = Arc::new(Mutex::new(None));
                let place = Arc::clone(&result);
                let running = aside.run(Box::new(move || {
                    let result = work();
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }));
                running.await;
                result.lock().unwrap_or_else(PoisonError::into_inner).take()
            }
        }
    }
}
