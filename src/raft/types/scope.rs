//! Where the tasks of consensus run.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::type_config::Runtime;
use crate::types::random::RandomSource;
use crate::types::tasks::Tasks;

/// The consensus thread. Every task gets a seed, from which openraft's random numbers in it follow.
#[derive(Clone)]
pub(crate) struct Scope {
    consensus: Tasks,
    random: Arc<RandomSource>,
    stopping: CancellationToken,
}

impl Scope {
    pub(crate) fn new(consensus: Tasks, random: Arc<RandomSource>, stopping: CancellationToken) -> Scope {
        Scope { consensus, random, stopping }
    }

    /// Cancelled when the node stops.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Random numbers of this node.
    pub(crate) fn random(&self) -> &RandomSource {
        &self.random
    }

    /// Runs a task that ends by itself.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        // What it panics of is told by the set of tasks.
        drop(self.consensus.spawn(Runtime::scope(self.random.next_u64(), future)));
    }

    /// Runs a task that the stop of the node ends at the latest.
    pub(crate) fn spawn_until_stopped(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.spawn(async move {
            tokio::select! { biased; () = stopping.cancelled() => {} () = future => {} }
        });
    }
}
