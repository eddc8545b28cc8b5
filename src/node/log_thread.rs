//! The log thread: writes what is queued, one batch and one sync after the other. architecture "Threads".

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::threads::{join_until, panic_text};
use crate::host::threads;
use crate::raft::LogPhase;
use crate::storage::log::{LogRequest, LogWriter, Progress};
use crate::types::config;

/// The log thread: owns the segments, takes all that is queued at once.
#[derive(Debug)]
pub struct LogThread {
    thread: JoinHandle<()>,
    end: Sender<LogMessage>,
}

/// What the log thread is sent.
enum LogMessage {
    Request(LogRequest),
    /// Nothing after it is done, whoever still can send.
    End,
}

/// Sends requests to the log thread.
#[derive(Clone, Debug)]
pub struct LogQueue {
    sender: Sender<LogMessage>,
    phase: watch::Receiver<LogPhase>,
}

impl LogQueue {
    /// Queues a request; one to a thread that has ended is dropped, and with it its completion, which is an error.
    pub fn send(&self, request: LogRequest) {
        drop(self.sender.send(LogMessage::Request(request)));
    }

    /// What the thread does.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<LogPhase> {
        self.phase.clone()
    }
}

impl LogThread {
    /// Starts the thread; it ends after `join_until`. `on_panic` hears of a panic, which is final.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(
        writer: LogWriter,
        on_panic: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<(LogQueue, LogThread)> {
        let (sender, requests) = channel();
        let (phase_sender, phase) = watch::channel(LogPhase::Idle);
        let thread = threads::spawn("dqlite-log", None, move || {
            // Not in the function that may panic: what it holds is dropped when nothing unwinds any more.
            let (mut writer, requests) = (writer, requests);
            let ran = catch_unwind(AssertUnwindSafe(|| run_log(&mut writer, &requests, &phase_sender)));
            let Err(panic) = ran else { return };
            let text = panic_text(panic.as_ref());
            if text.starts_with(WAKING_FAILED) {
                // Who waits for what is left cannot be woken.
                std::mem::forget(requests);
                writer.abandon();
            }
            on_panic(text);
        })?;
        Ok((LogQueue { sender: sender.clone(), phase }, LogThread { thread, end: sender }))
    }

    /// Lets the thread do what is queued, and waits for its end until `deadline`; whether it has ended. One that has not keeps the
    /// directory until it does.
    pub fn join_until(self, deadline: Instant) -> bool {
        // A thread that panicked has no queue any more.
        drop(self.end.send(LogMessage::End));
        join_until(self.thread, deadline)
    }
}

/// How tokio panics when a runtime is woken whose descriptors others have closed.
const WAKING_FAILED: &str = "failed to wake I/O driver";

fn run_log(writer: &mut LogWriter, requests: &Receiver<LogMessage>, phase: &watch::Sender<LogPhase>) {
    let mut wait: Option<Duration> = None;
    let mut gather = Gather::default();
    while !gather.ended {
        let first = match wait {
            None => {
                writer.prepare_ahead();
                next_request(requests, phase, gather.target())
            }
            Some(duration) => {
                phase.send_replace(LogPhase::Idle);
                requests.recv_timeout(duration)
            }
        };
        let batch = match first {
            Ok(first) => gather.take(first, requests),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        phase.send_replace(LogPhase::Busy);
        wait = match writer.process(batch) {
            Progress::Idle => None,
            Progress::RetryAfter(duration) => Some(duration),
        };
    }
    if let Err(error) = writer.close() {
        tracing::error!(%error, "the log could not be closed cleanly");
    }
}

/// The next request, given a while until there are `proposals` to go together.
fn next_request(
    requests: &Receiver<LogMessage>,
    phase: &watch::Sender<LogPhase>,
    proposals: usize,
) -> Result<LogMessage, RecvTimeoutError> {
    if proposals > 1 {
        phase.send_replace(LogPhase::Gathering { proposals });
        match requests.recv_timeout(config::GROUP_COMMIT_WINDOW) {
            Err(RecvTimeoutError::Timeout) => {}
            early => return early,
        }
    }
    phase.send_replace(LogPhase::Idle);
    requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
}

/// How many proposals a sync waits for: several writers that were answered together soon write again. For a lone writer
/// nothing waits.
#[derive(Debug, Default)]
struct Gather {
    /// Proposals of the last batch.
    last: usize,
    /// The end was asked for.
    ended: bool,
    /// Batches until more than the last time are waited for again: the last attempt was in vain.
    pause: usize,
}

impl Gather {
    /// Proposals to wait for.
    fn target(&self) -> usize {
        let more = if self.pause == 0 { self.last / 2 } else { 0 };
        (self.last + more).min(config::GROUP_COMMIT_PROPOSALS)
    }

    /// Entries came, with so many proposals.
    fn gathered(&mut self, proposals: usize) {
        let in_vain = proposals < self.target();
        self.pause = if in_vain { config::GROUP_COMMIT_PAUSE } else { self.pause.saturating_sub(1) };
        self.last = proposals;
    }

    /// All that is queued.
    fn take(&mut self, first: LogMessage, requests: &Receiver<LogMessage>) -> Vec<LogRequest> {
        let mut batch = Vec::new();
        for message in std::iter::once(first).chain(requests.try_iter()) {
            let LogMessage::Request(request) = message else {
                self.ended = true;
                break;
            };
            batch.push(request);
        }
        if batch.iter().any(|request| matches!(request, LogRequest::Append { .. })) {
            self.gathered(batch.iter().map(LogRequest::proposals).sum());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::file_disk::FileDisk;
    use crate::storage::log::LogOptions;
    use crate::types::tasks::InlinePool;
    use crate::types::{Entry, EntryData, EntryKind, LogIndex, Term};

    #[test]
    fn a_panic_of_the_log_thread_is_reported_and_answers_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        let lock = directory.lock().unwrap();
        let options = LogOptions::new(Box::new(|_| {}), Arc::new(InlinePool));
        let writer = LogWriter::new(directory, lock, LogIndex(1), options);
        let (panics, panic) = channel();
        let (sender, thread) = LogThread::start(writer, move |text| panics.send(text).unwrap()).unwrap();

        let (answers, answer) = channel();
        let data = EntryData::from_bytes(bytes::Bytes::from_static(&[0; 8]));
        let entry = Entry { term: Term(1), kind: EntryKind::Barrier, data, proposals: None };
        let done = Box::new(move |result| answers.send(result).unwrap());
        sender.send(LogRequest::Append { first_index: LogIndex(7), entries: vec![entry], done });

        assert!(panic.recv().unwrap().contains('7'));
        assert!(answer.recv().is_err(), "an entry that was not written has been acknowledged");
        assert!(thread.join_until(Instant::now() + Duration::from_secs(60)));
    }

    #[test]
    fn a_sync_waits_for_as_many_as_the_last_one_served_and_tries_for_more_now_and_then() {
        let mut gather = Gather::default();
        for (entries, target) in [(1, 1), (3, 4), (4, 6), (6, 9), (9, 13), (8, 8), (8, 8)] {
            gather.gathered(entries);
            assert_eq!(gather.target(), target, "after {entries}");
        }
        for _ in 1..config::GROUP_COMMIT_PAUSE {
            gather.gathered(8);
        }
        assert_eq!(gather.target(), 12);
        gather.gathered(1000);
        assert_eq!(gather.target(), config::GROUP_COMMIT_PROPOSALS);
    }
}
