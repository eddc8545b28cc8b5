//! What a layer above the node may run beside it: tasks on the node's runtime that end with it, its way to other nodes,
//! its view of the cluster.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::roles::Membership;
use super::threads::receive;
use crate::transport::dial::Dial;
use crate::types::tasks::{BlockingPool, Tasks};

/// A running node as the layer above sees it.
#[derive(Clone)]
pub struct Background {
    /// All of them end before the node's stop returns.
    pub(super) tasks: Tasks,
    /// Cancelled when the node stops, by itself too.
    pub(super) stop: CancellationToken,
    /// For file operations.
    pub pool: Arc<dyn BlockingPool>,
    /// The way to other nodes.
    pub dial: Arc<dyn Dial>,
    /// Who leads and who belongs to the cluster, as far as this node knows.
    pub membership: Arc<dyn Membership>,
    /// Why the node has stopped by itself.
    pub(super) failure: Failure,
}

impl Background {
    /// Starts a task, which is dropped when the node stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! { biased; () = stop.cancelled() => {} () = task => {} }
        });
    }

    /// Runs a task and blocks the caller, who is not on the node's runtime, until it has ended; `None` if the node
    /// stopped first or the task panicked.
    pub fn wait<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.spawn(async move {
            // The receiver waits for just this.
            let _ = sender.send(task.await);
        });
        receive(&receiver, || self.failure.reason().is_some())
    }
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background").field("stop", &self.stop).finish_non_exhaustive()
    }
}
