//! Why a node has stopped by itself: the first reason, from whichever thread it comes.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by the threads of a node.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure { reason: Arc::new(watch::channel(None).0) }
    }
}

impl Failure {
    /// Stops the node for good. Later reasons are dropped.
    pub fn report(&self, reason: &str) {
        self.reason.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                tracing::error!(reason, "the node has failed");
                *now = Some(reason.to_owned());
            }
            first
        });
    }

    /// The reason, if there is one.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Returns with the reason when there is one.
    pub async fn reported(&self) -> String {
        let mut reason = self.reason.subscribe();
        // `self` holds the sender, so waiting cannot end without a reason.
        let found = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        found.unwrap_or_default()
    }
}
