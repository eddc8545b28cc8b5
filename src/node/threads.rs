//! The threads and runtimes of a node: consensus, SQL, log. The only place that makes any. architecture "Threads".

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};

use crate::raft::LogPhase;
use crate::storage::log::{LogRequest, LogWriter, Progress};
use crate::types::config;
use crate::types::tasks::BlockingPool;

/// The runtimes of a node. Dropping it does not end them: `shut_down` does.
#[derive(Debug)]
pub struct Threads {
    sql: Option<Runtime>,
    consensus: Handle,
    consensus_stop: Option<oneshot::Sender<()>>,
    consensus_thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Threads {
    /// Starts the consensus thread and the SQL runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start() -> io::Result<Threads> {
        let consensus = Builder::new_current_thread().enable_all().build()?;
        let handle = consensus.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("dqlite-raft".into()).spawn(move || {
            // Ends when the sender goes, too.
            let _ = consensus.block_on(stopped);
            consensus.shutdown_background();
        })?;
        let sql = Builder::new_multi_thread()
            .worker_threads(config::SQL_WORKER_THREADS)
            .max_blocking_threads(config::BLOCKING_THREADS_MAX)
            .thread_name("dqlite-sql")
            .thread_stack_size(config::SQL_STACK_BYTES)
            .enable_all()
            .build()?;
        Ok(Threads {
            sql: Some(sql),
            consensus: handle,
            consensus_stop: Some(stop),
            consensus_thread: Some(thread),
            stopping: Arc::default(),
        })
    }

    /// Where consensus runs.
    #[must_use]
    pub fn consensus(&self) -> &Handle {
        &self.consensus
    }

    /// Where connections and SQL run.
    #[must_use]
    pub fn sql(&self) -> &Handle {
        // Only `shut_down`, which takes the object, removes the runtime.
        self.sql.as_ref().map_or(&self.consensus, Runtime::handle)
    }

    /// A pool for blocking work.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool { handle: self.sql().clone(), stopping: Arc::clone(&self.stopping) }
    }

    /// The node is about to stop: work behind it gives way to nobody any more.
    pub fn hurry(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends all threads; tasks that are left are dropped, blocking work is waited for.
    pub fn shut_down(mut self) {
        drop(self.sql.take());
        drop(self.consensus_stop.take());
        if let Some(thread) = self.consensus_thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Blocking work on the SQL runtime's pool of threads.
#[derive(Clone, Debug)]
pub struct Pool {
    handle: Handle,
    stopping: Arc<AtomicBool>,
}

impl BlockingPool for Pool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.handle.spawn_blocking(work);
    }

    // A thread of the pool that has stepped back could not step forward again: such work has a thread of its own, which
    // the pool waits for.
    fn run_behind(&self, work: Box<dyn FnOnce() + Send>) {
        self.handle.spawn_blocking(move || {
            let thread = std::thread::Builder::new().name("dqlite-snapshot".into()).spawn(move || {
                // Where it may not, it does the work all the same.
                let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BEHIND_NICE);
                work();
            });
            match thread {
                // A panic there leaves the work undone, which whoever waits for it sees.
                Ok(thread) => drop(thread.join()),
                Err(error) => tracing::warn!(%error, "no thread for a snapshot"),
            }
        });
    }

    // Half of the time, whatever the machine and its disk can do.
    fn give_way(&self, worked: Duration) {
        if !self.stopping.load(Ordering::Relaxed) {
            std::thread::sleep(worked.min(config::SNAPSHOT_REST_MAX));
        }
    }
}

/// How far work that can wait steps back: it gets about a tenth of a contended processor.
const BEHIND_NICE: i32 = 10;

/// The log thread: owns the segment and metadata files, takes all that is queued at once.
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
    /// Starts the thread; it ends in `join`. `on_panic` hears of a panic, which is final.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(
        writer: LogWriter,
        on_panic: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<(LogQueue, LogThread)> {
        let (sender, requests) = channel();
        let (phase_sender, phase) = watch::channel(LogPhase::Idle);
        let thread = std::thread::Builder::new().name("dqlite-log".into()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run_log(writer, &requests, &phase_sender))) {
                on_panic(panic_text(panic.as_ref()));
            }
        })?;
        Ok((LogQueue { sender: sender.clone(), phase }, LogThread { thread, end: sender }))
    }

    /// Lets the thread do what is queued, and waits for its end.
    pub fn join(self) {
        // A thread that panicked has no queue any more.
        drop(self.end.send(LogMessage::End));
        // Its panics were caught inside.
        let _ = self.thread.join();
    }
}

fn run_log(mut writer: LogWriter, requests: &Receiver<LogMessage>, phase: &watch::Sender<LogPhase>) {
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

/// The text of a panic.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::disk::FileDisk;
    use crate::storage::log::LogOptions;
    use crate::storage::metadata::Metadata;
    use crate::types::tasks::InlinePool;
    use crate::types::{Entry, EntryData, EntryKind, LogIndex, Term};

    #[test]
    fn a_panic_of_the_log_thread_is_reported_and_answers_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(Arc::new(FileDisk), folder.path()).unwrap();
        let lock = directory.lock().unwrap();
        let options = LogOptions::new(Box::new(|_| {}), Arc::new(InlinePool));
        let writer = LogWriter::new(directory, lock, Metadata::default(), LogIndex(1), options);
        let (panics, panic) = channel();
        let (sender, thread) = LogThread::start(writer, move |text| panics.send(text).unwrap()).unwrap();

        let (answers, answer) = channel();
        let data = EntryData::from_bytes(bytes::Bytes::from_static(&[0; 8]));
        let entry = Entry { term: Term(1), kind: EntryKind::Barrier, data, proposals: None };
        let done = Box::new(move |result| answers.send(result).unwrap());
        sender.send(LogRequest::Append { first_index: LogIndex(7), entries: vec![entry], done });

        assert!(panic.recv().unwrap().contains('7'));
        assert!(answer.recv().is_err(), "an entry that was not written has been acknowledged");
        thread.join();
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
