//! What a server is started with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::transport::dial::{Connector, IpConnector};

/// What a server is started with.
#[derive(Clone)]
pub struct Settings {
    /// Its directory, not looked at before the start.
    pub path: PathBuf,
    /// What others dial. Counts at the first start of the directory.
    pub address: Option<Vec<u8>>,
    /// Where it listens; the address if there is none.
    pub bind_address: Option<Vec<u8>>,
    /// Whether the first start of the directory makes a new cluster.
    pub auto_bootstrap: bool,
    /// Members that are asked to let it join, while `node-store` tells none.
    pub auto_join: Vec<Vec<u8>>,
    /// Connects to other nodes.
    pub connector: Arc<dyn Connector>,
}

impl Settings {
    /// Nothing set.
    #[must_use]
    pub fn new(path: PathBuf) -> Settings {
        Settings {
            path,
            address: None,
            bind_address: None,
            auto_bootstrap: false,
            auto_join: Vec::new(),
            connector: Arc::new(IpConnector),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("path", &self.path).finish_non_exhaustive()
    }
}
