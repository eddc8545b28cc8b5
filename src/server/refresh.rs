//! Keeps `node-store` in step with the cluster while the server runs, and brings a server in that started while its
//! cluster had no leader. Ends when the node stops. spec: c-api 4.4.

use std::sync::Arc;

use super::cluster::Cluster;
use super::files::{self, FileError};
use crate::storage::directory::Directory;
use crate::types::tasks::{BlockingPool, on_pool};
use crate::types::{Server, config};

/// Whether the cluster has answered the server since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It has, and the server is a member.
    Yes,
    /// It had no leader.
    NotYet,
}

/// The task of a server.
pub(super) struct Refresh {
    pub(super) cluster: Arc<Cluster>,
    pub(super) directory: Directory,
    pub(super) pool: Arc<dyn BlockingPool>,
    /// Whom to ask, beside those that the node knows.
    pub(super) known: Vec<Vec<u8>>,
    /// The members as `node-store` has them.
    pub(super) stored: Vec<Server>,
}

impl Refresh {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self, attached: Attached) {
        if attached == Attached::NotYet {
            // Without a limit it ends well or not at all.
            if let Ok(members) = self.cluster.attach(&self.known, None).await {
                self.keep(members).await;
            }
        }
        loop {
            tokio::time::sleep(config::SERVER_REFRESH_INTERVAL).await;
            match self.cluster.members(&self.known).await {
                Ok(members) => self.keep(members).await,
                Err(error) => {
                    tracing::warn!(%error, "the members cannot be asked for; the next round tries again")
                }
            }
        }
    }

    /// The file is written when there is something to tell. A failure is tried again in the next round.
    async fn keep(&mut self, members: Vec<Server>) {
        if members.is_empty() || members == self.stored {
            return;
        }
        self.known = addresses(&members);
        let (directory, wanted) = (self.directory.clone(), members.clone());
        match on_pool(self.pool.as_ref(), move || files::write_store(&directory, &wanted)).await {
            Ok(Ok(())) => self.stored = members,
            Ok(Err(error)) => warn_not_written(&error),
            // The node is stopping.
            Err(_) => {}
        }
    }
}

/// The file only saves asking around: a server runs without.
pub(super) fn warn_not_written(error: &FileError) {
    tracing::warn!(%error, "the members could not be stored");
}

/// Their addresses.
pub(super) fn addresses(members: &[Server]) -> Vec<Vec<u8>> {
    members.iter().map(|member| member.address.clone()).collect()
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
