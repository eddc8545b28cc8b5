//! A whole node on a simulated disk, on one current-thread runtime whose clock is paused: what `node::running` does with
//! threads, done with tasks.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dqlite::node::core::{Core, CoreError, CoreParts, LiveSettings, StoreEpochs};
use dqlite::pages::PageStore;
use dqlite::raft::machine::{DecodedState, Decoder, NotApplied};
use dqlite::raft::{
    EngineOptions, LogPhase, LogSender, LogSignals, Machine, SnapshotContent, SnapshotFiles, SnapshotPolicy,
};
use dqlite::state_machine::databases::Databases;
use dqlite::storage::bootstrap::bootstrap;
use dqlite::storage::directory::Directory;
use dqlite::storage::error::StorageError;
use dqlite::storage::load::{LoadOptions, SetAside, load};
use dqlite::storage::log::{LogOptions, LogRequest, LogTrouble, LogWriter, Progress};
use dqlite::storage::vault::{Vault, VaultRequest};
use dqlite::transport::dial::{Dial, Stream};
use dqlite::types::backoff::Backoff;
use dqlite::types::clock::WallClock;
use dqlite::types::config::{DISK_RETRY_FIRST, DISK_RETRY_MAX, GROUP_COMMIT_WINDOW};
use dqlite::types::random::RandomSource;
use dqlite::types::tasks::{LaterPool, SqlSection, Tasks};
use dqlite::types::{Entry, LogIndex, NodeId, Term};
use dqlite::vfs::empty_page;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::disk::SimDisk;
use crate::disk_worker::DiskWorker;
pub use crate::node_client::SimClient;

/// Data directory of the simulated node.
pub const DIRECTORY: &str = "/data";

/// Why a simulated node did not start.
#[derive(Debug)]
pub enum StartError {
    /// The directory.
    Storage(StorageError),
    /// Consensus or SQLite.
    Core(CoreError),
    /// Entries were set aside.
    SetAside(Vec<SetAside>),
}

impl From<StorageError> for StartError {
    fn from(error: StorageError) -> StartError {
        StartError::Storage(error)
    }
}

/// A wall clock that stands still.
#[derive(Clone, Copy, Debug)]
pub struct FrozenClock;

impl WallClock for FrozenClock {
    fn since_epoch(&self) -> Duration {
        Duration::from_secs(1_700_000_000)
    }
}

/// How a simulated node differs from the defaults.
#[derive(Clone, Copy, Debug)]
pub struct NodeSettings {
    /// Seed of everything random in it.
    pub seed: u64,
    /// When snapshots are taken.
    pub policy: SnapshotPolicy,
    /// Whether they are compressed.
    pub compress: bool,
    /// Length of a segment in bytes.
    pub segment_bytes: u64,
}

/// Reaches nobody.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Dial for Alone {
    fn dial(&self, _address: Vec<u8>) -> BoxFuture<'static, std::io::Result<Stream>> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// The options a simulated directory is loaded with.
#[must_use]
pub fn load_options() -> LoadOptions {
    LoadOptions { auto_recovery: true, wall_clock: Arc::new(FrozenClock), payloads: None }
}

/// Who a simulated node is.
pub struct Member {
    /// Its id; 1 bootstraps itself.
    pub id: u64,
    /// What others dial.
    pub address: Vec<u8>,
    /// Connects to them.
    pub dial: Arc<dyn Dial>,
    /// Ends the log when the node has crashed.
    pub dead: CancellationToken,
    /// Changes what is asked of the log, to plant a fault.
    pub tamper: Option<Tamper>,
    /// Votes are acknowledged, and that of the first term is stored instead, to plant a fault.
    pub forgets_votes: bool,
    /// Entries of which every so many is not applied, to plant a fault.
    pub skips: Option<u64>,
    /// How it runs SQL.
    pub sql: SqlSettings,
    /// Who calls its disk.
    pub disk_worker: DiskWorker,
    /// It makes its cluster.
    pub founds: bool,
    /// It does not start when entries were set aside, which it may have acknowledged.
    pub is_careful: bool,
}

/// How a node runs SQL.
#[derive(Clone, Debug)]
pub struct SqlSettings {
    /// On the thread of the simulation, or on another one that hands the baton to and fro.
    pub section: SqlSection,
    /// Statements inside SQLite at once.
    pub threads: usize,
    /// How long writers wait for a client's open transaction.
    pub busy_timeout_ms: u32,
}

impl Default for SqlSettings {
    fn default() -> SqlSettings {
        SqlSettings { section: SqlSection::Inline, threads: 4, busy_timeout_ms: 0 }
    }
}

/// Leaves out entries.
struct Skipping {
    machine: Databases,
    every: u64,
}

impl Machine for Skipping {
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), NotApplied> {
        if index.0.is_multiple_of(self.every) {
            return Ok(());
        }
        Machine::apply(&mut self.machine, index, entry)
    }

    fn may_wait(&self, entry: &Entry) -> bool {
        Machine::may_wait(&self.machine, entry)
    }

    fn pin(&mut self) -> Box<dyn SnapshotContent> {
        Machine::pin(&mut self.machine)
    }

    fn restore(&mut self, state: DecodedState) -> Result<(), String> {
        Machine::restore(&mut self.machine, state)
    }

    fn decoder(&self) -> Arc<dyn Decoder> {
        self.machine.decoder()
    }
}

/// Looks at every request to the log and hands it on, changes it or answers it.
pub type Tamper = Arc<dyn Fn(LogRequest) -> Option<LogRequest> + Send + Sync>;

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Starts a node that bootstraps itself and is alone. To be called inside a runtime with a paused clock.
///
/// # Errors
/// Those of the directory, of consensus and of SQLite.
pub async fn start(disk: &SimDisk, settings: NodeSettings) -> Result<Core, StartError> {
    let address = b"127.0.0.1:9001".to_vec();
    let member = Member {
        id: 1,
        address,
        dial: Arc::new(Alone),
        dead: CancellationToken::new(),
        tamper: None,
        forgets_votes: false,
        skips: None,
        sql: SqlSettings::default(),
        disk_worker: DiskWorker::default(),
        founds: true,
        is_careful: false,
    };
    start_member(disk, settings, member).await
}

/// Starts a node of a cluster.
///
/// # Errors
/// Those of the directory, of consensus and of SQLite.
pub async fn start_member(
    disk: &SimDisk,
    settings: NodeSettings,
    member: Member,
) -> Result<Core, StartError> {
    let directory = Directory::open(disk, Path::new(DIRECTORY))?;
    let lock = directory.lock()?;
    if member.founds {
        bootstrap(&directory, &lock, NodeId(1), &member.address)?;
    }
    let loaded = load(&directory, &lock, &load_options())?;
    if member.is_careful && !loaded.set_aside.is_empty() {
        return Err(StartError::SetAside(loaded.set_aside));
    }
    let pool = LaterPool::default();
    let (tell, fails) = watch::channel(false);
    let on_trouble = move |trouble| {
        tell.send_replace(matches!(trouble, LogTrouble::Failing { .. }));
    };
    let mut options = LogOptions::new(Box::new(on_trouble), Arc::new(pool.clone()));
    options.segment_bytes = settings.segment_bytes;
    let next_index = loaded.last_index().next();
    let writer = LogWriter::new(directory.clone(), lock.clone(), next_index, options);
    let space = writer.space();
    let (votes, vote_requests) = mpsc::unbounded_channel();
    let vault = Vault::new(directory.clone(), lock, loaded.metadata);
    let vote_times = RandomSource::from_seed(settings.seed ^ VOTE_TIMES);
    let worker = member.disk_worker;
    let dead = member.dead.clone();
    tokio::spawn(run_vault(vault, vote_requests, (dead, worker.clone()), vote_times, member.forgets_votes));
    let (sender, requests) = mpsc::unbounded_channel();
    let (phase_sender, phase) = watch::channel(LogPhase::Idle);
    let sync_times = RandomSource::from_seed(settings.seed ^ SYNC_TIMES);
    let pools = worker.pool();
    tokio::spawn(run_log(writer, requests, (member.dead, worker), pool, sync_times, phase_sender));
    let store = PageStore::new();
    let ticks = AtomicU64::new(1_700_000_000_000 + settings.seed * 1_000_000);
    let tamper = member.tamper;
    let engine = EngineOptions {
        id: NodeId(member.id),
        address: member.address,
        heartbeat_interval: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        snapshot_policy: settings.policy,
        consensus: Tasks::new(tokio::runtime::Handle::current()),
        pool: pools,
        random: Arc::new(RandomSource::from_seed(settings.seed)),
        // The receiver goes with the node.
        log: LogSender::new(
            move |request| {
                let request = match &tamper {
                    Some(tamper) => tamper(request),
                    None => Some(request),
                };
                if let Some(request) = request {
                    drop(sender.send(request));
                }
            },
            move |request| drop(votes.send(request)),
            LogSignals { phase, fails, space },
        ),
        loaded,
        snapshots: Arc::new(SnapshotFiles::new(
            directory,
            move || ticks.fetch_add(1, Ordering::Relaxed),
            Arc::new(AtomicBool::new(settings.compress)),
        )),
        machine: match member.skips {
            Some(every) => {
                Box::new(Skipping { machine: Databases::new(Arc::clone(&store), empty_page()), every })
            }
            None => Box::new(Databases::new(Arc::clone(&store), empty_page())),
        },
        hooks: Arc::new(StoreEpochs(Arc::clone(&store))),
        dial: member.dial,
        payloads: Some(store.space().payloads()),
    };
    let live = LiveSettings::default();
    live.busy_timeout_ms.store(member.sql.busy_timeout_ms, Ordering::Relaxed);
    let parts = CoreParts {
        store,
        engine,
        sql_tasks: Tasks::new(tokio::runtime::Handle::current()),
        sql: member.sql.section,
        sql_threads: member.sql.threads,
        live: Arc::new(live),
        on_panic: Box::new(|text| panic!("{text}")),
    };
    Core::start(parts).await.map_err(StartError::Core)
}

/// Longest sync in microseconds.
const SYNC_MOST_US: u64 = 3000;
/// Tells the random times of syncs from other random numbers of the seed.
const SYNC_TIMES: u64 = 0x5359_4e43;
/// The same for votes.
const VOTE_TIMES: u64 = 0x564f_5445;

/// Turns of the log between two at which segments are tended.
const HOUSEKEEPING_TURNS: u64 = 5;

/// Rest of the log after which they are tended anyway.
const HOUSEKEEPING_IDLE: Duration = Duration::from_millis(50);

/// The log waits for fewer proposals than this.
const GATHERED_BELOW: u64 = 5;

/// As the log thread does it.
async fn next_request(
    requests: &mut mpsc::UnboundedReceiver<LogRequest>,
    phase: &watch::Sender<LogPhase>,
    proposals: u64,
) -> Option<LogRequest> {
    if proposals > 1 {
        phase.send_replace(LogPhase::Gathering { proposals: proposals as usize });
        if let Ok(early) = tokio::time::timeout(GROUP_COMMIT_WINDOW, requests.recv()).await {
            return early;
        }
    }
    phase.send_replace(LogPhase::Idle);
    requests.recv().await
}

/// As the thread of the vault does it.
async fn run_vault(
    mut vault: Vault,
    mut requests: mpsc::UnboundedReceiver<VaultRequest>,
    (dead, worker): (CancellationToken, DiskWorker),
    times: RandomSource,
    forgets: bool,
) {
    while let Some(mut request) = requests.recv().await {
        request = match request {
            // The vote of the first term is kept: a directory with a log and no vote at all is refused.
            VaultRequest::Store { done, .. } if forgets => {
                VaultRequest::Store { term: Term(1), voted_for: NodeId(0), done }
            }
            other => other,
        };
        let mut retry = Backoff::new(DISK_RETRY_FIRST, DISK_RETRY_MAX);
        loop {
            tokio::time::sleep(Duration::from_micros(times.next_u64() % SYNC_MOST_US)).await;
            if dead.is_cancelled() {
                return;
            }
            let processed = worker.with(vault, move |vault| vault.process(request, false)).await;
            let Some((back, again)) = processed else { return };
            vault = back;
            match again {
                Some(again) => request = again,
                None => break,
            }
            tokio::time::sleep(retry.take()).await;
        }
    }
}

async fn run_log(
    mut writer: LogWriter,
    mut requests: mpsc::UnboundedReceiver<LogRequest>,
    (dead, worker): (CancellationToken, DiskWorker),
    housekeeping: LaterPool,
    times: RandomSource,
    phase: watch::Sender<LogPhase>,
) {
    let mut progress = Progress::Idle;
    let mut turns = 0_u64;
    while !dead.is_cancelled() {
        // Segments are closed and prepared between writes that did not wait for it.
        turns += 1;
        if turns.is_multiple_of(HOUSEKEEPING_TURNS) {
            catch_up(&worker, &housekeeping).await;
        }
        let mut batch = Vec::new();
        match progress {
            Progress::Idle => {
                let Some((back, ())) = worker.with(writer, LogWriter::prepare_ahead).await else { return };
                writer = back;
                let proposals = times.next_u64() % GATHERED_BELOW;
                let mut next = pin!(next_request(&mut requests, &phase, proposals));
                let first = match housekeeping.is_idle() {
                    true => next.await,
                    // A log that has nothing to do tends its segments all the same.
                    false => match tokio::time::timeout(HOUSEKEEPING_IDLE, &mut next).await {
                        Ok(first) => first,
                        Err(_) => {
                            catch_up(&worker, &housekeeping).await;
                            next.await
                        }
                    },
                };
                match first {
                    Some(request) => batch.push(request),
                    None => break,
                }
            }
            Progress::RetryAfter(duration) => {
                phase.send_replace(LogPhase::Idle);
                tokio::time::sleep(duration).await;
            }
        }
        while let Ok(request) = requests.try_recv() {
            batch.push(request);
        }
        phase.send_replace(LogPhase::Busy);
        // What comes meanwhile is merged.
        let time = Duration::from_micros(times.next_u64() % SYNC_MOST_US);
        tokio::time::sleep(time).await;
        if dead.is_cancelled() {
            break;
        }
        let processed = worker.with(writer, move |writer| writer.process(batch)).await;
        let Some((back, more)) = processed else { return };
        (writer, progress) = (back, more);
    }
    // What cannot be closed is loaded all the same.
    let _ = writer.close();
}

async fn catch_up(worker: &DiskWorker, housekeeping: &LaterPool) {
    // A panic ends the log: it finds it when it needs what was to be done.
    let _ = worker.with(housekeeping.clone(), |pool| pool.catch_up()).await;
}
