//! The way to the log thread, and to the vault beside it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::storage::error::StorageError;
use crate::storage::log::{Done, LogRequest};
use crate::storage::vault::VaultRequest;
use crate::types::space::LogSpace;
use crate::types::{NodeId, Term};

/// Hands a request to the log thread; requests are done in the order of the calls. Term and vote go to the vault, which waits for
/// none of them.
#[derive(Clone)]
pub struct LogSender {
    send: Arc<dyn Fn(LogRequest) + Send + Sync>,
    vault: Arc<dyn Fn(VaultRequest) + Send + Sync>,
    signals: LogSignals,
}

/// What the log thread says of itself. The senders may go before those who listen do.
#[derive(Clone, Debug)]
pub struct LogSignals {
    /// What it does with proposals.
    pub phase: watch::Receiver<LogPhase>,
    /// Whether its last try to write failed.
    pub fails: watch::Receiver<bool>,
    /// Space for what it is to write.
    pub space: Arc<dyn LogSpace>,
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
    /// Sends through `send` and `vault`, which must not block.
    pub fn new(
        send: impl Fn(LogRequest) + Send + Sync + 'static,
        vault: impl Fn(VaultRequest) + Send + Sync + 'static,
        signals: LogSignals,
    ) -> LogSender {
        LogSender { send: Arc::new(send), vault: Arc::new(vault), signals }
    }

    /// Queues a request.
    pub fn send(&self, request: LogRequest) {
        (self.send)(request);
    }

    /// Space for what the log is to write.
    #[must_use]
    pub fn space(&self) -> Arc<dyn LogSpace> {
        Arc::clone(&self.signals.space)
    }

    /// What the log says of itself.
    pub(super) fn signals(&self) -> LogSignals {
        self.signals.clone()
    }

    /// Queues a request made with a completion and waits for it.
    ///
    /// # Errors
    /// The request failed, or the log thread has ended without doing it.
    pub(crate) async fn complete(&self, request: impl FnOnce(Done) -> LogRequest) -> std::io::Result<()> {
        completed(|done| self.send(request(done)), "log").await
    }

    /// Stores term and vote and waits for it. Appends that wait for the disk do not delay it.
    ///
    /// # Errors
    /// The vault was told to give up, or has ended.
    pub(crate) async fn store_vote(&self, term: Term, voted_for: NodeId) -> std::io::Result<()> {
        completed(|done| (self.vault)(VaultRequest::Store { term, voted_for, done }), "vault").await
    }

    /// Others are in the configuration: a full disk must be able to store a vote.
    pub(crate) fn prepare_votes(&self) {
        (self.vault)(VaultRequest::MakeBoth);
    }
}

async fn completed(ask: impl FnOnce(Done), whom: &str) -> std::io::Result<()> {
    let (sender, receiver) = oneshot::channel::<Result<(), StorageError>>();
    ask(Box::new(move |result| {
        // The waiting side may have been stopped.
        let _ = sender.send(result);
    }));
    match receiver.await {
        Ok(result) => result.map_err(std::io::Error::other),
        Err(_) => Err(std::io::Error::other(format!("the {whom} thread has ended"))),
    }
}
