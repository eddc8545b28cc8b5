//! The way to the log thread.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::storage::error::StorageError;
use crate::storage::log::{Done, LogRequest};

/// Hands a request to the log thread; requests are done in the order of the calls.
#[derive(Clone)]
pub struct LogSender {
    send: Arc<dyn Fn(LogRequest) + Send + Sync>,
    busy: watch::Receiver<bool>,
}

impl LogSender {
    /// Sends through `send`, which must not block. `busy` says whether requests are being done: what is sent meanwhile waits.
    pub fn new(send: impl Fn(LogRequest) + Send + Sync + 'static, busy: watch::Receiver<bool>) -> LogSender {
        LogSender { send: Arc::new(send), busy }
    }

    /// Queues a request.
    pub fn send(&self, request: LogRequest) {
        (self.send)(request);
    }

    /// Whether requests are being done. Its sender may go before the log's users do.
    #[must_use]
    pub fn busy(&self) -> watch::Receiver<bool> {
        self.busy.clone()
    }

    /// Queues a request made with a completion and waits for it.
    ///
    /// # Errors
    /// The request failed, or the log thread has ended without doing it.
    pub(super) async fn complete(&self, request: impl FnOnce(Done) -> LogRequest) -> std::io::Result<()> {
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
