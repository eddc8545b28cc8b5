//! `dqlite_server_*`: a node that keeps who it is and the members of its cluster in its directory, makes or joins the
//! cluster and gets a vote while there are fewer than three. spec: c-api 4.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::node::roles::handover::HandoverError;
use crate::node::running::Running;
use crate::types::{NodeId, config};

mod cluster;
pub mod files;
mod one_at_a_time;
mod refresh;
mod settings;
mod start;

pub use cluster::ClusterError;
pub use settings::Settings;
pub use start::ServerError;

/// A server as the C interface has it. Usable from any thread; start, handover and stop wait for each other.
pub struct Server {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
    /// Apart, so that a connect function may ask for it during the start.
    id: AtomicU64,
}

impl Server {
    /// A server with nothing set.
    #[must_use]
    pub fn new(path: PathBuf) -> Server {
        Server { settings: Mutex::new(Settings::new(path)), running: Mutex::new(None), id: AtomicU64::new(0) }
    }

    /// Changes settings, which count at the next start.
    pub fn change(&self, set: impl FnOnce(&mut Settings)) {
        set(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds members to ask.
    ///
    /// # Errors
    /// There would be too many of them.
    pub fn add_auto_join(&self, addresses: Vec<Vec<u8>>) -> Result<(), ServerError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.auto_join.len() + addresses.len() > config::SERVER_AUTO_JOIN_MAX {
            return Err(ServerError::TooManyAddresses);
        }
        settings.auto_join.extend(addresses);
        Ok(())
    }

    /// The id: 0 before a start that got as far as the node. It stays after the stop.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.id.load(Ordering::Relaxed))
    }

    /// Starts the server; it serves clients when this returns.
    ///
    /// # Errors
    /// See `ServerError`; nothing runs then, and the start may be tried again.
    pub fn start(&self) -> Result<(), ServerError> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(ServerError::Started);
        }
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *running = Some(start::start(&settings, |id| self.id.store(id.0, Ordering::Relaxed))?);
        Ok(())
    }

    /// Gives leadership and vote to other nodes, as `NodeHandle::handover`. A server that its own log does not name has
    /// neither: spares get no log.
    ///
    /// # Errors
    /// The server does not run, or nobody takes them.
    pub fn handover(&self) -> Result<(), ServerError> {
        let running = self.lock();
        let running = running.as_ref().ok_or(ServerError::NotStarted)?;
        match running.handover() {
            Ok(()) | Err(HandoverError::NoMember(_)) => Ok(()),
            Err(error) => Err(ServerError::Handover(error.to_string())),
        }
    }

    /// Stops the server, which may be started again.
    ///
    /// # Errors
    /// It does not run, or its node had stopped by itself.
    pub fn stop(&self) -> Result<(), ServerError> {
        let mut running = self.lock().take().ok_or(ServerError::NotStarted)?;
        running.stop().map_err(|left| ServerError::Stopped(left.to_string()))?;
        running.failure().map_or(Ok(()), |reason| Err(ServerError::Stopped(reason)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("id", &self.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
