//! The way to the log thread.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::storage::error::StorageError;
use crate::storage::log::{Done, LogRequest};

/// Hands a request to the log thread; requests are done in the order of the calls.
#[derive(Clone)]
pub struct LogSender {
    send: Arc<dyn Fn(LogRequest) + Send + Sync>,
    phase: watch::Receiver<LogPhase>,
}

/// What the log does with proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogPhase {
    /// It writes what it gets.
    #[default]
    Idle,
    /// It writes or syncs: what it gets meanwhile waits.
    Busy,
    /// It would rather have so many proposals at once, and says when it waits no longer.
    Gathering {
        /// How many, two at least.
        proposals: usize,
    },
}

impl LogPhase {
    /// How many proposals must wait before it is given any.
    #[must_use]
    pub fn wants(self) -> usize {
        match self {
            LogPhase::Idle => 1,
            LogPhase::Gathering { proposals } => proposals,
            LogPhase::Busy => usize::MAX,
        }
    }
}

impl LogSender {
    /// Sends through `send`, which must not block. `phase` says what becomes of proposals.
    pub fn new(
        send: impl Fn(LogRequest) + Send + Sync + 'static,
        phase: watch::Receiver<LogPhase>,
    ) -> LogSender {
        LogSender { send: Arc::new(send), phase }
    }

    /// Queues a request.
    pub fn send(&self, request: LogRequest) {
        (self.send)(request);
    }

    /// What the log does. The sender may go before the log's users do.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<LogPhase> {
        self.phase.clone()
    }

    /// Queues a request made with a completion and waits for it.
    ///
    /// # Errors
    /// The request failed, or the log thread has ended without doing it.
    pub(crate) async fn complete(&self, request: impl FnOnce(Done) -> LogRequest) -> std::io::Result<()> {
        let (sender, receiver) = oneshot::channel::<Result<(), StorageError>>();
        self.send(request(Box::new(move |result| {
            // The waiting side may have been stopped.
            let _ = sender.send(result);
        })));
        match receiver.await {
            Ok(result) => result.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::other("the log thread has ended")),
        }
    }
}
