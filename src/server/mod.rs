//! `dqlite_server_*`: a node that keeps who it is and the members of its cluster in its directory, makes or joins the
//! cluster and gets a vote while there are fewer than three. spec: c-api 4.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::node::keeper::{Ending, Keeper, elsewhere, elsewhere_if_possible};
use crate::node::life::{Call, server_verdict};
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

/// A server as the C interface has it. Usable from any thread; what a call does is decided by `node::life`.
pub struct Server {
    keeper: Keeper<Settings>,
    /// Apart, so that a connect function may ask for it during the start.
    id: AtomicU64,
}

impl Server {
    /// A server with nothing set.
    #[must_use]
    pub fn new(path: PathBuf) -> Server {
        Server { keeper: Keeper::new(server_verdict, Settings::new(path)), id: AtomicU64::new(0) }
    }

    /// Changes settings, which count at the next start.
    ///
    /// # Errors
    /// In a forked child.
    pub fn change(&self, set: impl FnOnce(&mut Settings)) -> Result<(), ServerError> {
        let _inside = self.keeper.come_in();
        set(&mut self.keeper.enter(Call::Set)?.0.settings);
        Ok(())
    }

    /// Adds members to ask.
    ///
    /// # Errors
    /// There would be too many of them.
    pub fn add_auto_join(&self, addresses: Vec<Vec<u8>>) -> Result<(), ServerError> {
        let _inside = self.keeper.come_in();
        let settings = &mut self.keeper.enter(Call::Set)?.0.settings;
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
        let _inside = self.keeper.come_in();
        elsewhere(|| self.try_start()).map_err(ServerError::Thread)?
    }

    fn try_start(&self) -> Result<(), ServerError> {
        let (held, _) = self.keeper.enter(Call::Start)?;
        let settings = held.settings.clone();
        let start = self.keeper.begin_start(held);
        let identified = |id: NodeId| self.id.store(id.0, Ordering::Relaxed);
        let running = start::start(&settings, &start.watch, identified)?;
        Ok(start.succeed(Box::new(running))?)
    }

    /// Gives leadership and vote to other nodes, as `NodeHandle::handover`. A server that its own log does not name has
    /// neither: spares get no log.
    ///
    /// # Errors
    /// The server does not run, or nobody takes them.
    pub fn handover(&self) -> Result<(), ServerError> {
        let _inside = self.keeper.come_in();
        elsewhere_if_possible(|| self.try_handover())
    }

    fn try_handover(&self) -> Result<(), ServerError> {
        let (held, _) = self.keeper.enter(Call::Handover)?;
        let handing = held.running().and_then(Running::handing_over);
        drop(held);
        match handing.ok_or(ServerError::NotStarted)?.run() {
            Ok(()) | Err(HandoverError::NoMember(_)) => Ok(()),
            Err(error) => Err(ServerError::Handover(error.to_string())),
        }
    }

    /// Stops the server, which may be started again.
    ///
    /// # Errors
    /// It does not run, or its node had stopped by itself; something of it is left.
    pub fn stop(&self) -> Result<(), ServerError> {
        let _inside = self.keeper.come_in();
        elsewhere_if_possible(|| self.try_stop(Call::Stop))
    }

    fn try_stop(&self, call: Call) -> Result<(), ServerError> {
        let (held, verdict) = self.keeper.enter(call)?;
        self.keeper.stop(held, verdict, |running| {
            running.stop().map_err(|left| ServerError::Stopped(left.to_string()))?;
            running.failure().map_or(Ok(()), |reason| Err(ServerError::Stopped(reason)))
        })
    }

    /// Ends the server for good, whatever it does, and tells whether it may be freed.
    pub fn finish(&self) -> Ending {
        let end = || {
            if let Err(error) = elsewhere_if_possible(|| self.try_stop(Call::Destroy)) {
                tracing::error!(%error, "server");
            }
        };
        self.keeper.finish(|_| {}, end)
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
