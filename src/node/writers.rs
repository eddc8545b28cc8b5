//! The two threads that write to the directory, log and vault. They and works at files hold the right to it; the last one to end gives it
//! back.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::failure::Failure;
use super::log_thread::LogThread;
use super::pool::Pool;
use super::start::StartError;
use super::vault_thread::{VaultQueue, VaultThread};
use crate::raft::{LogSender, LogSignals};
use crate::storage::directory::{Directory, DirectoryLock};
use crate::storage::load::Loaded;
use crate::storage::log::{LogOptions, LogStatistics, LogTrouble, LogWriter};
use crate::storage::vault::Vault;
use crate::types::config;

/// The threads.
#[derive(Debug)]
pub(super) struct Writers {
    log: LogThread,
    vault: VaultThread,
}

/// What begins with them.
pub(super) struct Begun {
    /// The threads.
    pub(super) writers: Writers,
    /// The way to both.
    pub(super) sender: LogSender,
    /// What the log has written.
    pub(super) statistics: Arc<LogStatistics>,
    /// The way to the vault.
    pub(super) votes: VaultQueue,
}

impl Writers {
    /// Starts both behind what was loaded.
    ///
    /// # Errors
    /// There is no thread; the directory is given back.
    pub(super) fn start(
        directory: &Directory,
        lock: DirectoryLock,
        loaded: &Loaded,
        files: Pool,
        failure: &Failure,
    ) -> Result<Begun, StartError> {
        let (on_trouble, fails) = trouble_of(failure);
        files.keep(lock.clone());
        let options = LogOptions::new(on_trouble, Arc::new(files));
        let writer = LogWriter::new(directory.clone(), lock.clone(), loaded.last_index().next(), options);
        let (statistics, space) = (writer.statistics(), writer.space());
        let hears = failure.clone();
        let on_panic = move |panic: String| hears.report(&format!("log thread: {panic}"));
        let (log_queue, log) =
            LogThread::start(writer, on_panic).map_err(|error| StartError(format!("log thread: {error}")))?;
        let hears = failure.clone();
        let on_panic = move |panic: String| hears.report(&format!("vault thread: {panic}"));
        let (votes, vault) =
            match VaultThread::start(Vault::new(directory.clone(), lock, loaded.metadata), on_panic) {
                Ok(started) => started,
                Err(error) => {
                    log.join_until(Instant::now() + config::STOP_DISK_MAX);
                    return Err(StartError(format!("vault thread: {error}")));
                }
            };
        let signals = LogSignals { phase: log_queue.phase(), fails, space };
        let queue = votes.clone();
        let sender = LogSender::new(
            move |request| log_queue.send(request),
            move |request| queue.send(request),
            signals,
        );
        Ok(Begun { writers: Writers { log, vault }, sender, statistics, votes })
    }

    /// The node stops: what fails from now on gets its error.
    pub(super) fn give_up(&self) {
        self.vault.give_up();
    }

    /// Lets them do what is queued, and waits for their ends until `deadline`; how many have not ended.
    pub(super) fn join_until(self, deadline: Instant) -> usize {
        let ended = [self.vault.join_until(deadline), self.log.join_until(deadline)];
        ended.into_iter().filter(|ended| !ended).count()
    }
}

/// What becomes of the log's troubles: whether it fails just now, and the end of the node.
fn trouble_of(failure: &Failure) -> (Box<dyn Fn(LogTrouble) + Send>, watch::Receiver<bool>) {
    let (failing, state) = watch::channel(false);
    let ended = failure.clone();
    let on_trouble = Box::new(move |trouble| match trouble {
        LogTrouble::Failing { error } => {
            tracing::error!(error, "the log cannot be written");
            failing.send_replace(true);
        }
        LogTrouble::Recovered => {
            tracing::info!("the log is written again");
            failing.send_replace(false);
        }
        LogTrouble::Ended { error } => ended.report(&error),
    });
    (on_trouble, state)
}
