//! `dqlite_server_*`: its settings. Its files, auto bootstrap and join are not there: `start` fails.
//! spec: c-api 4.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::handle::CallError;
use crate::transport::dial::{Connector, IpConnector};
use crate::types::NodeId;

/// Addresses of members that are kept; more are refused.
const AUTO_JOIN_MAX: usize = 4096;

/// What a server is started with.
#[derive(Clone)]
pub struct Settings {
    /// Its directory, not looked at before the start.
    pub path: PathBuf,
    /// What others dial.
    pub address: Option<Vec<u8>>,
    /// Where it listens; the address if there is none.
    pub bind_address: Option<Vec<u8>>,
    /// Whether it makes a new cluster.
    pub auto_bootstrap: bool,
    /// Members that it asks to join them.
    pub auto_join: Vec<Vec<u8>>,
    /// Connects to other nodes.
    pub connector: Arc<dyn Connector>,
}

/// A server as the C interface has it. Usable from any thread; calls wait for each other.
pub struct Server {
    settings: Mutex<Settings>,
}

impl Server {
    /// A server with nothing set.
    #[must_use]
    pub fn new(path: PathBuf) -> Server {
        let settings = Settings {
            path,
            address: None,
            bind_address: None,
            auto_bootstrap: false,
            auto_join: Vec::new(),
            connector: Arc::new(IpConnector),
        };
        Server { settings: Mutex::new(settings) }
    }

    /// Changes settings, which count at the next start.
    pub fn change(&self, set: impl FnOnce(&mut Settings)) {
        set(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds members to ask.
    ///
    /// # Errors
    /// There would be too many of them.
    pub fn add_auto_join(&self, addresses: Vec<Vec<u8>>) -> Result<(), CallError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.auto_join.len() + addresses.len() > AUTO_JOIN_MAX {
            return Err(CallError::Error);
        }
        settings.auto_join.extend(addresses);
        Ok(())
    }

    /// The id: none before a start.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(0)
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Always.
    pub fn start(&self) -> Result<(), CallError> {
        Err(CallError::Error)
    }

    /// Hands over.
    ///
    /// # Errors
    /// The server does not run.
    pub fn handover(&self) -> Result<(), CallError> {
        Err(CallError::Error)
    }

    /// Stops the server.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&self) -> Result<(), CallError> {
        Err(CallError::Error)
    }
}
