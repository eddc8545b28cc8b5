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
use crate::types::config::{SQL_ON_WORKER_MAX, SQL_WORKER_OFFER_SHARE, SQL_WORKER_OFFERED_EVERY};
use crate::types::fault::{self, Fault};
use crate::types::pause;
use crate::types::tasks::{Expected, SqlSection, let_others_run};

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

    /// Whether it offers its worker after so long, and how long somebody may come for it then.
    fn offer(&mut self, elapsed: Duration) -> Option<Duration> {
        if elapsed < self.offers_after {
            return None;
        }
        let patience = self.again_after / SQL_WORKER_OFFER_SHARE;
        self.offers_after = elapsed + self.again_after;
        self.again_after = (self.again_after * 2).min(SQL_WORKER_OFFERED_EVERY);
        Some(patience)
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
        let offer = |run: &mut OnWorker| run.offer(run.since.elapsed());
        let Some(patience) = self.lock().as_mut().and_then(offer) else { return };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_work_is_told_in_its_order_to_whoever_heeds_it() {
        let heeds = [Heeds::All, Heeds::AllButInterrupt, Heeds::OnlyTheNode];
        for causes in 0..16 {
            let [interrupted, over, gone, stops] = [1, 2, 4, 8].map(|bit| causes & bit != 0);
            let (store, node_stops) = (PageStore::new(), Arc::new(AtomicBool::new(stops)));
            let ended = Ended::of_node(Arc::clone(&store), node_stops);
            ended.next_request();
            ended.begin(store.epoch());
            if interrupted {
                ended.interrupt();
            }
            if over {
                store.end_epoch(None);
            }
            if gone {
                ended.set_client_gone();
            }
            assert_eq!(ended.newest_epoch(), store.epoch());
            for heeds in heeds {
                let expected = [
                    (stops, End::Stopping),
                    (gone && heeds != Heeds::OnlyTheNode, End::ClientGone),
                    (over, End::EpochOver),
                    (interrupted && heeds == Heeds::All, End::Interrupted),
                ];
                let expected = expected.into_iter().find_map(|(is_so, end)| is_so.then_some(end));
                assert_eq!(ended.look(heeds), expected, "{causes:04b} {heeds:?}");
            }
            // A statement stops for the same, and for the node alone once it has made its changes.
            assert_eq!(ended.shared.look(), causes != 0, "{causes:04b}");
            ended.set_has_changed(true);
            assert_eq!(ended.shared.look(), stops || over, "{causes:04b}");
            ended.set_has_changed(false);
            assert_eq!(ended.shared.look(), causes != 0, "{causes:04b}");
            // The next request is not interrupted, and of no epoch yet.
            ended.next_request();
            assert_eq!(ended.shared.look(), stops || gone, "{causes:04b}");
        }
    }

    #[test]
    fn a_statement_offers_its_worker_after_its_share_and_again_ever_more_seldom_up_to_a_bound() {
        let mut run = OnWorker::begin();
        let first = SQL_ON_WORKER_MAX;
        assert_eq!(run.offer(first - Duration::from_nanos(1)), None);
        let (mut now, mut pause) = (first, first);
        for _ in 0..12 {
            assert_eq!(run.offer(now), Some(pause / SQL_WORKER_OFFER_SHARE));
            assert_eq!(run.offer(now), None);
            assert_eq!(run.offer(now + pause - Duration::from_nanos(1)), None);
            now += pause;
            pause = (pause * 2).min(SQL_WORKER_OFFERED_EVERY);
        }
        assert_eq!(pause, SQL_WORKER_OFFERED_EVERY);
    }

    #[test]
    fn whoever_looks_after_a_connection_is_told_that_its_statement_takes_long() {
        let ended = Ended::new(PageStore::new());
        let runs_long = ended.runs_long();
        ended.shared.look();
        assert!(!*runs_long.borrow(), "nothing runs");
        *ended.shared.lock() =
            Some(OnWorker { since: Instant::now() + Duration::from_secs(60), ..OnWorker::begin() });
        ended.shared.look();
        assert!(!*runs_long.borrow(), "it has just begun");
        let since = Instant::now().checked_sub(SQL_ON_WORKER_MAX).unwrap();
        *ended.shared.lock() = Some(OnWorker { since, ..OnWorker::begin() });
        ended.shared.look();
        assert!(*runs_long.borrow() && runs_long.has_changed().unwrap());
    }
}
