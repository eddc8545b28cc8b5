//! Runs SQL for client connections: SQLite connections and statements, the writer's turn, propose and wait, and the
//! rule that no reply leaves before what its statement saw or made is applied. architecture "Two roots".

pub mod failure;
pub mod limits;
pub mod session;
pub mod sqlite;
pub mod turn;

mod cursor;
mod kept;
mod members;
mod proof;
mod run;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::pages::{Database, PageStore};
use crate::raft::engine::Engine;
use crate::raft::status::{Serving, Status};
use crate::types::config;
use crate::types::tasks::{Expected, SqlSection};
use crate::vfs::{Members, Vfs};

pub use cursor::{Batch, Cursor};
pub use failure::Failure;
pub use session::Session;
pub use usage::Usage;

/// What all sessions of a node share.
#[derive(Debug)]
pub struct Executor {
    store: Arc<PageStore>,
    vfs: Arc<Vfs>,
    engine: Engine,
    status: watch::Receiver<Status>,
    permits: limits::SqlPermits,
    serial: bool,
    in_flight: Arc<limits::InFlight>,
    turns: Mutex<HashMap<Vec<u8>, Arc<turn::Turn>>>,
    busy_timeout_ms: Arc<AtomicU32>,
    sql: SqlSection,
    members: Arc<dyn Members>,
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
    /// Statements inside SQLite at once; one for the whole process if SQLite has no mutexes.
    pub sql_threads: usize,
    /// How long a writer waits for a client's open transaction; the host may change it at any time.
    pub busy_timeout_ms: Arc<AtomicU32>,
    /// How SQL runs inside a task.
    pub sql: SqlSection,
}

impl Executor {
    /// An executor over its parts.
    #[must_use]
    pub fn new(parts: ExecutorParts) -> Arc<Executor> {
        let serial = sqlite::threading::sqlite_is_serial();
        Arc::new(Executor {
            store: parts.store,
            vfs: parts.vfs,
            status: parts.engine.status(),
            members: Arc::new(members::OfEngine(parts.engine.clone())),
            engine: parts.engine,
            permits: limits::SqlPermits::new(if serial { 1 } else { parts.sql_threads }),
            serial,
            in_flight: limits::InFlight::new(config::IN_FLIGHT_TRANSACTIONS_MAX, config::IN_FLIGHT_BYTES_MAX),
            turns: Mutex::new(HashMap::new()),
            busy_timeout_ms: parts.busy_timeout_ms,
            sql: parts.sql,
        })
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
        if self.may_wait_for_a_disk() { self.sql.run(Expected::Unknown, work) } else { work() }
    }

    /// Whether reading a page may wait for a disk.
    fn may_wait_for_a_disk(&self) -> bool {
        self.store.space().file().is_some()
    }

    fn serving(&self) -> Option<Serving> {
        self.status.borrow().serving.filter(|serving| serving.epoch == self.store.epoch())
    }

    /// Runs `work`, which is inside SQLite, in the calling task.
    fn in_sqlite<T>(
        &self,
        interrupt: &sqlite::InterruptHandle,
        expected: Expected,
        epoch: u64,
        work: impl FnOnce() -> T,
    ) -> T {
        // How long the last one took says nothing about the disk.
        let expected = if self.may_wait_for_a_disk() { Expected::Unknown } else { expected };
        if !self.serial {
            return interrupt.run(self.sql, expected, epoch, work);
        }
        // Another node of the process may be inside for long.
        match sqlite::threading::try_serial_guard() {
            Some(_guard) => interrupt.run(self.sql, expected, epoch, work),
            None => interrupt.run(self.sql, Expected::Unknown, epoch, || {
                let _guard = sqlite::threading::serial_guard(true);
                work()
            }),
        }
    }

    fn busy_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.busy_timeout_ms.load(Ordering::Relaxed)))
    }

    fn turn(&self, database: &Database) -> Arc<turn::Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(database.name().to_vec()).or_insert_with(turn::Turn::new))
    }
}
