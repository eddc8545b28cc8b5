//! What a start is told, and what it tells: why it failed, whether it is still wanted, what a stop has left.

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::own_threads::OwnThreads;

/// Why a node did not start: the text that `dqlite_node_errmsg` gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    pub(super) fn raft(error: impl std::fmt::Display) -> StartError {
        StartError(format!("raft_start(): io: {error}"))
    }
}

/// What is left of a node that has stopped: threads that did not come back from SQLite, the host's functions or the
/// disk. Leadership, log and directory are given up, but the directory where they are at the disk, and what these threads use stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThreadsLeft {
    /// They are somewhere from where they may return.
    #[error("stopped, but {threads} of its threads have not returned from {whence} after {seconds} s")]
    Inside {
        /// How many.
        threads: usize,
        /// Where they are.
        whence: &'static str,
        /// How long they were waited for.
        seconds: u64,
    },
    /// Their runtime has lost descriptors, and ends would close what has the numbers by now.
    #[error("stopped, but {threads} of its threads are left, with a runtime that has lost its descriptors")]
    WithoutDescriptors {
        /// How many.
        threads: usize,
    },
}

/// A start that was told to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by another thread while it started")]
pub struct GivenUp;

impl From<GivenUp> for StartError {
    fn from(error: GivenUp) -> StartError {
        StartError(error.to_string())
    }
}

/// What is seen of a node from outside, from the beginning of its start on.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Why it has stopped by itself.
    pub failure: Failure,
    /// The threads that may run the host's functions.
    pub own: OwnThreads,
    /// Ends a start that is under way.
    pub give_up: CancellationToken,
}

impl Watch {
    /// Whether the start goes on.
    ///
    /// # Errors
    /// It was told to give up.
    pub fn still_wanted(&self) -> Result<(), GivenUp> {
        match self.give_up.is_cancelled() {
            true => Err(GivenUp),
            false => Ok(()),
        }
    }
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { failure: Failure::default(), own: OwnThreads::new(), give_up: CancellationToken::new() }
    }
}
