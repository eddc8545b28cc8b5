//! A handover of a running node, which a stop may end.

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::roles::handover::{Handover, HandoverError};
use super::threads::wait_for;
use crate::types::tasks::Tasks;

/// A handover that is to be run, on any thread of the host.
#[derive(Debug)]
pub struct HandingOver {
    pub(super) handover: Handover,
    pub(super) consensus: Tasks,
    pub(super) stop: CancellationToken,
    pub(super) failure: Failure,
}

impl HandingOver {
    /// Runs it; ends early when the node is stopped.
    ///
    /// # Errors
    /// Nobody takes leadership or vote; the node is being stopped.
    pub fn run(self) -> Result<(), HandoverError> {
        let HandingOver { handover, consensus, stop, failure } = self;
        let task = async move {
            tokio::select! { biased; () = stop.cancelled() => Err(HandoverError::Stopped), done = handover.run() => done }
        };
        wait_for(&consensus, task, || failure.reason().is_some()).unwrap_or(Err(HandoverError::Stopped))
    }
}
