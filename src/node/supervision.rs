//! Tasks beside consensus that look after a running node: what failed, whether the directory is there.

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::core::Connections;
use super::failure::Failure;
use super::vault_thread::VaultQueue;
use crate::raft::Engine;
use crate::storage::directory::LockWatch;
use crate::types::config;
use crate::types::tasks::{BlockingPool, on_pool};

/// Waits for the first failure of any part, then ends consensus and all connections.
pub(super) async fn supervise(
    engine: Engine,
    connections: Connections,
    stop: CancellationToken,
    failure: Failure,
    vault: VaultQueue,
) {
    let mut status = engine.status();
    let reason = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        reason = failure.reported() => reason,
        status = status.wait_for(|status| status.failed.is_some()) => {
            let failed = status.ok().and_then(|status| status.failed.clone());
            let reason = format!("consensus: {}", failed.unwrap_or_else(|| "ended".to_owned()));
            failure.report(&reason);
            reason
        }
    };
    engine.mark_failed(reason);
    connections.end();
    vault.give_up();
    engine.shutdown().await;
}

/// Ends the node when its directory is removed, or the file of its lock.
pub(super) async fn watch_directory(
    watch: LockWatch,
    pool: impl BlockingPool,
    stop: CancellationToken,
    failure: Failure,
) {
    while timeout(config::DIRECTORY_CHECK_INTERVAL, stop.cancelled()).await.is_err() {
        let watch = watch.clone();
        match on_pool(&pool, move || watch.directory().check().and_then(|()| watch.check())).await {
            Ok(Ok(())) => {}
            Ok(Err(gone)) => return failure.report(&gone.to_string()),
            // The node stops.
            Err(_) => return,
        }
    }
}
