//! What a start makes of a directory: bootstrap, load, the page space, and the parts of the core.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::core::{CoreParts, LiveSettings, StoreEpochs};
use super::failure::Failure;
use super::options::Options;
use super::start::StartError;
use super::threads::Threads;
use crate::pages::{PageSpace, PageStore};
use crate::raft::{EngineOptions, LogSender, SnapshotFiles, SnapshotPolicy};
use crate::state_machine::databases::Databases;
use crate::storage::bootstrap::bootstrap;
use crate::storage::directory::{Directory, DirectoryLock};
use crate::storage::error::StorageError;
use crate::storage::file_disk::FileDisk;
use crate::storage::load::{LoadOptions, Loaded, load};
use crate::storage::scratch::UnnamedFiles;
use crate::transport::dial::Dial;
use crate::types::clock::{SystemWallClock, WallClock};
use crate::types::random::RandomSource;
use crate::types::tasks::{BlockingPool, SqlSection, Tasks};
use crate::types::{NodeId, config};
use crate::vfs::empty_page;

/// Id of a node that bootstraps itself beside id 1. spec: c-api 3.7.
pub const BOOTSTRAP_ID: NodeId = NodeId(0x2dc1_7185_8c31_55be);

/// The directory at `path`, checked.
///
/// # Errors
/// Those of `Directory::open`.
pub fn open_directory(path: &Path) -> Result<Directory, StorageError> {
    Directory::open(&FileDisk, path)
}

/// What the directory gave.
pub(super) struct Opened {
    pub(super) directory: Directory,
    pub(super) lock: DirectoryLock,
    pub(super) loaded: Loaded,
    /// Where pages live.
    pub(super) space: PageSpace,
}

/// Bootstraps the directory if this node founds a cluster, and loads it.
///
/// # Errors
/// It cannot be loaded.
pub(super) fn open(
    directory: Directory,
    lock: DirectoryLock,
    id: NodeId,
    address: &[u8],
    options: &Options,
) -> Result<Opened, StartError> {
    if id == NodeId(1) || id == BOOTSTRAP_ID {
        bootstrap(&directory, &lock, id, address)
            .map_err(|error| StartError(format!("raft_bootstrap(): io: {error}")))?;
    }
    let space = if options.disk_mode {
        let scratch = Arc::new(UnnamedFiles::new(&directory));
        PageSpace::on_disk(scratch, config::PAGE_CACHE_BYTES)
            .map_err(|error| StartError(format!("disk mode: no page file in the data directory: {error}")))?
    } else {
        PageSpace::memory()
    };
    let options = LoadOptions {
        auto_recovery: options.auto_recovery,
        wall_clock: Arc::new(SystemWallClock),
        payloads: Some(space.payloads()),
    };
    let loaded = load(&directory, &lock, &options).map_err(StartError::raft)?;
    Ok(Opened { directory, lock, loaded, space })
}

/// What consensus is made of.
pub(super) struct EngineParts<'a> {
    pub(super) id: NodeId,
    pub(super) address: Vec<u8>,
    pub(super) options: &'a Options,
    pub(super) log: LogSender,
    pub(super) directory: Directory,
    pub(super) loaded: Loaded,
    pub(super) space: PageSpace,
    pub(super) live: &'a Arc<LiveSettings>,
    pub(super) failure: &'a Failure,
    pub(super) dial: Arc<dyn Dial>,
}

/// The parts of the core.
pub(super) fn core_parts(threads: &Threads, parts: EngineParts<'_>) -> CoreParts {
    let files: Arc<dyn BlockingPool> = Arc::new(threads.files());
    parts.space.set_pool(&files);
    let payloads = Some(parts.space.payloads());
    let store = PageStore::in_space(parts.space);
    let failure = parts.failure.clone();
    // Whatever needs that page fails from now on, snapshots, too: others are better off without this node.
    store.space().set_loss(Box::new(move |text| failure.report(&format!("page file: {text}"))));
    let failure = parts.failure.clone();
    let started = Instant::now();
    let seed = SystemWallClock.since_epoch().as_nanos() as u64 ^ parts.id.0 ^ u64::from(std::process::id());
    let compress: Arc<AtomicBool> = Arc::clone(&parts.live.snapshot_compression);
    let wall = SystemWallClock.since_epoch();
    let timestamp_ms = move || (wall + started.elapsed()).as_millis() as u64;
    let engine = EngineOptions {
        id: parts.id,
        address: parts.address,
        heartbeat_interval: parts.options.heartbeat_interval,
        election_timeout: parts.options.election_timeout,
        snapshot_policy: SnapshotPolicy {
            threshold_entries: u64::from(parts.options.snapshot_threshold),
            trailing_entries: u64::from(parts.options.snapshot_trailing),
            pace: parts.options.snapshot_pace,
        },
        consensus: threads.consensus().another(),
        pool: files,
        random: Arc::new(RandomSource::from_seed(seed)),
        log: parts.log,
        loaded: parts.loaded,
        snapshots: Arc::new(SnapshotFiles::new(parts.directory, timestamp_ms, compress)),
        machine: Box::new(Databases::new(Arc::clone(&store), empty_page())),
        hooks: Arc::new(StoreEpochs(Arc::clone(&store))),
        dial: parts.dial,
        payloads,
    };
    CoreParts {
        store,
        engine,
        sql_tasks: Tasks::new(threads.sql().clone()),
        sql: SqlSection::BlockInPlace,
        sql_threads: (parts.options.pool_thread_count as usize).max(1),
        live: Arc::clone(parts.live),
        on_panic: Box::new(move |text| failure.report(&format!("SQLite callback: {text}"))),
    }
}
