//! Why a node has stopped by itself: the first reason, from whichever thread it comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::host::register::Register;

/// Shared by the threads of a node.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: Arc<watch::Sender<Option<String>>>,
    /// A descriptor that is missing explains whatever else has failed.
    descriptors: Arc<OnceLock<Register>>,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure { reason: Arc::new(watch::channel(None).0), descriptors: Arc::default() }
    }
}

impl Failure {
    /// The descriptors of the node, from which it has its reasons from now on.
    pub fn watch_descriptors(&self, descriptors: Register) {
        // A node starts once.
        let _ = self.descriptors.set(descriptors);
    }

    /// Whether others have closed a descriptor of the node.
    #[must_use]
    pub fn has_lost_descriptors(&self) -> bool {
        self.descriptors.get().is_some_and(|descriptors| descriptors.lost().is_some())
    }

    /// Stops the node for good. Later reasons are dropped.
    pub fn report(&self, reason: &str) {
        let lost = self.descriptors.get().and_then(Register::look);
        let told = lost.map_or_else(|| reason.to_owned(), |lost| lost.to_string());
        let first = |now: &mut Option<String>| {
            let first = now.is_none();
            if first {
                *now = Some(told);
            }
            first
        };
        // Waking a runtime whose descriptors others have closed panics, after the reason is there.
        if catch_unwind(AssertUnwindSafe(|| self.reason.send_if_modified(first))).unwrap_or(true) {
            tracing::error!(reason, "the node has failed");
        }
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
