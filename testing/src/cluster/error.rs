//! Why a cluster is not as it should be.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::client::ClientError;
use crate::image::ImageError;

/// Result of what is done to a cluster.
pub type Result<T> = std::result::Result<T, ClusterError>;

/// Why a cluster is not as it should be.
#[derive(thiserror::Error)]
pub enum ClusterError {
    /// The operating system, or a node that does not start or stop.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No node has the id.
    #[error("there is no node {0}")]
    NoSuchNode(u64),
    /// The node's process was ended before.
    #[error("node {0} does not run")]
    NotRunning(u64),
    /// A node says that its clean stop failed, or ended by itself.
    #[error("node {id} ended with {status}: {stderr}")]
    BadEnd {
        /// Node.
        id: u64,
        /// What its process ended with.
        status: ExitStatus,
        /// What it wrote.
        stderr: String,
    },
    /// A node refuses, or cannot be reached.
    #[error("{what}: {source}")]
    Request {
        /// What was asked.
        what: String,
        /// What came back.
        source: ClientError,
    },
    /// A node's DUMP is no database.
    #[error("dump of node {id}: {source}")]
    Image {
        /// Node.
        id: u64,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Something did not come about in time.
    #[error("waited {waited:?} for {what}; last seen: {seen}{nodes}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was there instead.
        seen: String,
        /// Each node and the end of its standard error.
        nodes: String,
    },
}

impl ClusterError {
    /// Code of the FAILURE, if a node refused.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        match self {
            ClusterError::Request { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// The same text: tests and programs show errors this way, and lines of standard error are to stay lines.
impl fmt::Debug for ClusterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
