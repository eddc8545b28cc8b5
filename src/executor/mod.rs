//! Runs SQL for client connections: SQLite connections and statements, the writer's turn, propose and wait, and the
//! rule that no reply leaves before what its statement saw or made is applied. architecture "Two roots".

pub mod failure;
pub mod permits;
pub mod session;
pub mod sqlite;
pub mod turn;

mod blank;
mod body;
mod inside;
mod kept;
mod members;
mod place;
mod proof;
mod request;
mod rows;
mod seat;
mod text;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::pages::PageStore;
use crate::raft::Engine;
use crate::types::config;
use crate::types::tasks::{Expected, SqlSection, Tasks};
use crate::vfs::{Members, Vfs};

use permits::{Lane, SqlPermit, SqlPermits};
use seat::Seat;
use sqlite::{Ended, Inside, TransactionState};
use turn::Turns;

pub use failure::Failure;
pub use place::Place;
pub use rows::{Batch, Rows};
pub use session::Session;
pub use usage::Usage;

/// What all sessions of a node share.
#[derive(Debug)]
pub struct Executor {
    store: Arc<PageStore>,
    vfs: Arc<Vfs>,
    engine: Engine,
    permits: SqlPermits,
    serial: bool,
    turns: Turns,
    busy_timeout_ms: Arc<AtomicU32>,
    sql: SqlSection,
    tasks: Tasks,
    members: Arc<dyn Members>,
    stopping: Arc<AtomicBool>,
}

/// What an executor is made of.
#[derive(Debug)]
pub struct ExecutorParts {
    /// The databases.
    pub store: Arc<PageStore>,
    /// SQLite's view of them.
    pub vfs: Arc<Vfs>,
    /// Where transactions go.
    pub engine: Engine,
    /// Permits to be inside SQLite; one for the whole process if SQLite has no mutexes.
    pub permits: SqlPermits,
    /// How long a writer waits for a client's open transaction; the host may change it at any time.
    pub busy_timeout_ms: Arc<AtomicU32>,
    /// How SQL runs inside a task.
    pub sql: SqlSection,
    /// Where connections are closed that nobody uses any more.
    pub tasks: Tasks,
}

impl Executor {
    /// An executor over its parts.
    #[must_use]
    pub fn new(parts: ExecutorParts) -> Arc<Executor> {
        Arc::new(Executor {
            store: parts.store,
            vfs: parts.vfs,
            members: Arc::new(members::OfEngine(parts.engine.clone())),
            engine: parts.engine,
            permits: parts.permits,
            serial: sqlite::threading::sqlite_is_serial(),
            turns: Turns::default(),
            busy_timeout_ms: parts.busy_timeout_ms,
            sql: parts.sql,
            tasks: parts.tasks,
            stopping: Arc::default(),
        })
    }

    /// Stops all statements for good, those that run and those that follow, from any thread: the runtime of the sessions may be
    /// inside SQLite itself.
    pub fn stop_all(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Permits to be inside SQLite.
    #[cfg(test)]
    pub(crate) fn permits(&self) -> &SqlPermits {
        &self.permits
    }

    /// A session without a database, for one client connection.
    #[must_use]
    pub fn session(self: &Arc<Executor>) -> Session {
        Session::new(Arc::clone(self))
    }

    /// Changes whenever connections may have seen a version that exists no longer.
    #[must_use]
    pub fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.store.watch_epoch()
    }

    /// The databases.
    #[must_use]
    pub fn store(&self) -> &Arc<PageStore> {
        &self.store
    }

    /// Runs work that reads pages outside of SQLite, where it may wait for a disk.
    pub fn read_pages<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.may_wait_for_a_disk() { self.sql.run_now(Expected::Unknown, work) } else { work() }
    }

    /// Whether reading a page may wait for a disk.
    fn may_wait_for_a_disk(&self) -> bool {
        self.store.space().file().is_some()
    }

    /// Runs `work` inside SQLite. The permit is given back by the work: whoever does not wait for it any more leaves it inside.
    async fn run_inside<T: Send + 'static>(
        &self,
        ended: &Ended,
        place: &Place,
        permit: SqlPermit,
        expected: Expected,
        work: impl FnOnce(&mut Inside) -> T + Send + 'static,
    ) -> Option<T> {
        // How long the last one took says nothing about the disk.
        let expected = if self.may_wait_for_a_disk() { Expected::Unknown } else { expected };
        let (serial, inhabited) = (self.serial, place.enter(permit));
        let work = move || {
            let result = work(&mut Inside::with_permit(serial));
            drop(inhabited);
            result
        };
        ended.run_inside(&self.sql, expected, work).await
    }

    /// Closes a seat in a task of its own: nobody waits for the permit that it takes, but a stop. Then `last` goes.
    fn close(self: &Arc<Executor>, seat: Box<Seat>, last: impl Send + 'static) {
        if let Some(turn) = &seat.turn {
            // No client decides any more when it is given back.
            turn.set_held_by_client(false);
        }
        let executor = Arc::clone(self);
        self.tasks.spawn(async move {
            let permit = executor.permits.acquire(Lane::GivesBack).await;
            // What is rolled back may be large.
            let is_at_rest = seat.noted.transaction == TransactionState::None;
            let expected = if is_at_rest { Expected::Short } else { Expected::Unknown };
            // Nothing ends this early.
            let ended = Ended::new(Arc::clone(&executor.store));
            let place = Place::default();
            let close = move |inside: &mut Inside| seat.close(inside);
            let closed = executor.run_inside(&ended, &place, permit, expected, close);
            if closed.await.is_none() {
                tracing::error!("a connection was not closed");
            }
            executor.store.space().returned().add(config::CONNECTION_RETURNED_BYTES);
            drop(last);
        });
    }

    fn busy_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.busy_timeout_ms.load(Ordering::Relaxed)))
    }

    /// The pace of a request that goes on and on.
    fn pace(&self) -> Pace {
        Pace { since: Instant::now(), looks_at_the_clock: matches!(self.sql, SqlSection::BlockInPlace) }
    }
}

/// Has a task that never waits let others run.
struct Pace {
    since: Instant,
    /// Not in a simulation, which must not depend on how long something takes in fact.
    looks_at_the_clock: bool,
}

impl Pace {
    async fn keep(&mut self) {
        if self.looks_at_the_clock && self.since.elapsed() < config::SQL_ON_WORKER_MAX {
            return;
        }
        tokio::task::yield_now().await;
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_request_that_goes_on_and_on_lets_others_run_each_time_that_its_share_is_over() {
        let ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
        let mut pace = Pace { since: ago(config::SQL_ON_WORKER_MAX * 2), looks_at_the_clock: true };
        let mut keep = pace.keep().boxed();
        assert!((&mut keep).now_or_never().is_none());
        assert!(keep.now_or_never().is_some());
        assert!(pace.since.elapsed() < Duration::from_secs(60) && pace.since > ago(Duration::from_secs(60)));

        let fresh = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace { since: fresh, looks_at_the_clock: true };
        assert!(pace.keep().now_or_never().is_some());
        assert_eq!(pace.since, fresh);

        let mut pace = Pace { since: fresh, looks_at_the_clock: false };
        assert!(pace.keep().now_or_never().is_none());
    }
}
