//! Starting a server: what its directory says, the node, then a place in the cluster. A start that fails leaves nothing
//! running; what it wrote is what the next one goes on from. spec: c-api 4.3.

use std::str::from_utf8;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, ClusterError};
use super::files::{self, FileError, Info, Known};
use super::refresh::{Attached, Refresh, addresses, warn_not_written};
use super::settings::Settings;
use crate::node::core::LiveSettings;
use crate::node::environment;
use crate::node::keeper::{Refused, StillInside};
use crate::node::node_id;
use crate::node::opening::{BOOTSTRAP_ID, open_directory};
use crate::node::options::Options;
use crate::node::run_parts::RunParts;
use crate::node::running::Running;
use crate::node::start::{GivenUp, StartError, Watch};
use crate::storage::directory::Directory;
use crate::storage::error::StorageError;
use crate::transport::listener::{BindError, BoundSocket};
use crate::types::clock::SystemWallClock;
use crate::types::{NodeId, config};

/// Why a server does not start, or another call is refused.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A call out of order, or on a thread that cannot make it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another thread stops the server while it starts.
    #[error(transparent)]
    GivenUp(#[from] GivenUp),
    /// Another thread's call does not return.
    #[error(transparent)]
    StillInside(#[from] StillInside),
    /// There is no thread for the call.
    #[error("{0}")]
    Thread(std::io::Error),
    /// It does not run.
    #[error("the server has not been started")]
    NotStarted,
    /// compat: upstream's header calls this harmless and its library fails (1.18.6).
    #[error("auto bootstrap and auto join exclude each other")]
    BootstrapAndJoin,
    /// More members to ask than are kept.
    #[error("more than {} addresses to join", config::SERVER_AUTO_JOIN_MAX)]
    TooManyAddresses,
    /// The first start needs one.
    #[error("no address has been set, and there is no server-info")]
    NoAddress,
    /// Neither a new cluster nor a member of one.
    #[error("neither auto bootstrap nor a member to join has been set, and there is no node-store")]
    NobodyToAsk,
    /// Only text can be bound and dialled.
    #[error("address '{0}' is no UTF-8")]
    Utf8(String),
    /// The directory.
    #[error(transparent)]
    Directory(#[from] StorageError),
    /// One of the two files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else wrote one of the two files before this server had the directory.
    #[error("another server has used the directory in between: start again")]
    Overtaken,
    /// Where it listens.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The node.
    #[error("node: {0}")]
    Node(#[from] StartError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node stopped by itself.
    #[error("the node has stopped: {0}")]
    Stopped(String),
    /// Leadership or role stay.
    #[error("handover: {0}")]
    Handover(String),
}

/// Whose place in the cluster is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This server makes the cluster.
    Founder,
    /// The cluster knows it, by its own log or by its file.
    Member,
    /// It asks to be taken in.
    Guest,
}

/// What is known before the node runs.
struct Plan {
    directory: Directory,
    /// What the files said.
    read: Known,
    info: Info,
    /// Whom to ask.
    known: Vec<Vec<u8>>,
    founds: bool,
}

/// Starts a server; returns when it serves clients. `identified` hears its id before the cluster is asked.
///
/// # Errors
/// See `ServerError`; nothing runs then.
pub(super) fn start(
    settings: &Settings,
    watch: &Watch,
    identified: impl FnOnce(NodeId),
) -> Result<Running, ServerError> {
    let live = LiveSettings::default();
    live.role_management.store(true, Ordering::Relaxed);
    environment::follow(&live);
    let plan = plan(settings)?;
    let listener = bind(settings, &plan.info)?;
    let lock = plan.directory.lock().map_err(|error| StartError(error.to_string()))?;
    // Two first starts at once would each have chosen an id.
    if files::read(&plan.directory)? != plan.read {
        return Err(ServerError::Overtaken);
    }
    identified(plan.info.id);
    let parts = RunParts {
        id: plan.info.id,
        address: plan.info.address.clone(),
        directory: plan.directory.clone(),
        lock,
        options: Options::default(),
        live: Arc::new(live),
        listener,
        connector: Arc::clone(&settings.connector),
    };
    let running = Running::start_unless(parts, watch)?;
    // What fails from here on drops the node, which stops it.
    files::write_info(&plan.directory, &plan.info)?;
    settle(plan, &running, &watch.give_up)?;
    Ok(running)
}

fn plan(settings: &Settings) -> Result<Plan, ServerError> {
    if settings.auto_bootstrap && !settings.auto_join.is_empty() {
        return Err(ServerError::BootstrapAndJoin);
    }
    let directory = open_directory(&settings.path)?;
    let read = files::read(&directory)?;
    let is_first = read.info.is_none();
    let founds = settings.auto_bootstrap && is_first;
    let info = match read.info.clone() {
        Some(info) => info,
        None => {
            let address = settings.address.clone().ok_or(ServerError::NoAddress)?;
            let id = if founds { BOOTSTRAP_ID } else { node_id::generate(&address, &SystemWallClock) };
            Info { address, id }
        }
    };
    let known = if founds {
        vec![info.address.clone()]
    } else if read.members.is_empty() {
        settings.auto_join.clone()
    } else {
        addresses(&read.members)
    };
    if is_first && known.is_empty() {
        return Err(ServerError::NobodyToAsk);
    }
    Ok(Plan { directory, read, info, known, founds })
}

fn bind(settings: &Settings, info: &Info) -> Result<BoundSocket, ServerError> {
    let address = settings.bind_address.as_deref().unwrap_or(&info.address);
    let text =
        from_utf8(address).map_err(|_| ServerError::Utf8(String::from_utf8_lossy(address).into_owned()))?;
    Ok(BoundSocket::bind(text)?)
}

/// Finds the server's place and leaves a task that keeps the file in step.
fn settle(plan: Plan, running: &Running, give_up: &CancellationToken) -> Result<(), ServerError> {
    let stopped = || ServerError::Stopped(running.failure().unwrap_or_else(|| "no reason known".to_owned()));
    let background = running.background().ok_or_else(stopped)?;
    let (dial, membership) = (Arc::clone(&background.dial), Arc::clone(&background.membership));
    let cluster = Arc::new(Cluster::new(plan.info.clone(), dial, membership));
    let place = place(&plan, &cluster);
    if place == Place::Guest && plan.known.is_empty() {
        return Err(ServerError::NobodyToAsk);
    }
    let (asking, known) = (Arc::clone(&cluster), plan.known.clone());
    let limit = longest(place);
    let give_up = give_up.clone();
    let answer = background.wait(async move {
        tokio::select! {
            biased;
            () = give_up.cancelled() => Err(ServerError::from(GivenUp)),
            attached = asking.attach(&known, Some(limit)) => Ok(attached),
        }
    });
    let (attached, members) = match answer.ok_or_else(stopped)?? {
        Ok(members) => (Attached::Yes, members),
        Err(error @ ClusterError::TooLate { .. }) if place == Place::Member => {
            tracing::warn!(%error, "the server runs and goes on asking");
            (Attached::NotYet, plan.read.members.clone())
        }
        Err(error) => return Err(error.into()),
    };
    let mut stored = plan.read.members;
    if members != stored {
        match files::write_store(&plan.directory, &members) {
            Ok(()) => stored = members,
            Err(error) => warn_not_written(&error),
        }
    }
    let known = if stored.is_empty() { plan.known } else { addresses(&stored) };
    let refresh =
        Refresh { cluster, directory: plan.directory, pool: Arc::clone(&background.pool), known, stored };
    background.spawn(refresh.run(attached));
    Ok(())
}

fn place(plan: &Plan, cluster: &Cluster) -> Place {
    if plan.founds {
        Place::Founder
    } else if cluster.is_member() || plan.read.members.iter().any(|member| member.id == plan.info.id) {
        Place::Member
    } else {
        Place::Guest
    }
}

fn longest(place: Place) -> Duration {
    match place {
        Place::Founder => config::SERVER_BOOTSTRAP_TIMEOUT,
        Place::Member => config::SERVER_LEADER_TIMEOUT,
        Place::Guest => config::SERVER_JOIN_TIMEOUT,
    }
}
