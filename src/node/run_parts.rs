//! What a node hands over to be run.

use std::sync::Arc;

use super::core::LiveSettings;
use super::options::Options;
use crate::storage::directory::{Directory, DirectoryLock};
use crate::transport::dial::Connector;
use crate::transport::listener::BoundSocket;
use crate::types::NodeId;

/// Everything that a running node is made of.
pub struct RunParts {
    /// This node.
    pub id: NodeId,
    /// What others dial for this node; bytes without NUL.
    pub address: Vec<u8>,
    /// The data directory.
    pub directory: Directory,
    /// The right to it.
    pub lock: DirectoryLock,
    /// Settings fixed for the run.
    pub options: Options,
    /// Settings that the host may change.
    pub live: Arc<LiveSettings>,
    /// Where clients connect.
    pub listener: BoundSocket,
    /// Connects to other nodes.
    pub connector: Arc<dyn Connector>,
}
