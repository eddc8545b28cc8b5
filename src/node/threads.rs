//! The threads and runtimes of a node: consensus, SQL, log. The only place that makes any. architecture "Threads".

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};

use super::pool::Pool;
use crate::raft::LogPhase;
use crate::storage::log::{LogRequest, LogWriter, Progress};
use crate::types::config;

thread_local! {
    /// The node whose code this thread runs, the host's functions included.
    static OF_NODE: Cell<u64> = const { Cell::new(0) };
}

/// Tells the threads of the process's nodes apart.
static NEXT_NODE: AtomicU64 = AtomicU64::new(1);

/// The threads of one node that may run the host's functions.
#[derive(Clone, Debug)]
pub struct OwnThreads {
    node: u64,
    alive: Arc<AtomicUsize>,
}

impl OwnThreads {
    fn new() -> OwnThreads {
        OwnThreads { node: NEXT_NODE.fetch_add(1, Ordering::Relaxed), alive: Arc::default() }
    }

    /// Whether the calling thread is one of them.
    #[must_use]
    pub fn is_one(&self) -> bool {
        OF_NODE.get() == self.node
    }

    fn begin(&self) {
        OF_NODE.set(self.node);
        self.alive.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        self.alive.fetch_sub(1, Ordering::AcqRel);
    }

    /// The calling thread is one of them until this is dropped.
    fn join(self) -> impl Drop {
        struct Joined(OwnThreads);
        impl Drop for Joined {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        self.begin();
        Joined(self)
    }
}

/// The runtimes of a node, which `shut_down` ends.
#[derive(Debug)]
pub struct Threads {
    sql: Option<Runtime>,
    own: OwnThreads,
    files: Pool,
    dials: Pool,
    consensus: Handle,
    consensus_stop: Option<oneshot::Sender<()>>,
    consensus_thread: Option<JoinHandle<()>>,
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
        let own = OwnThreads::new();
        let (begins, ends) = (own.clone(), own.clone());
        let sql = Builder::new_multi_thread()
            .worker_threads(config::SQL_WORKER_THREADS)
            .max_blocking_threads(config::BLOCKING_THREADS_MAX)
            .thread_name("dqlite-sql")
            .on_thread_start(move || begins.begin())
            .on_thread_stop(move || ends.end())
            .thread_stack_size(config::SQL_STACK_BYTES)
            .enable_all()
            .build()?;
        let files = Pool::start(sql.handle().clone(), "dqlite-files", || {})?;
        let joins = own.clone();
        let dials = match Pool::start(sql.handle().clone(), "dqlite-dial", move || joins.join()) {
            Ok(dials) => dials,
            Err(error) => {
                files.end(None);
                return Err(error);
            }
        };
        Ok(Threads {
            files,
            dials,
            sql: Some(sql),
            own,
            consensus: handle,
            consensus_stop: Some(stop),
            consensus_thread: Some(thread),
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

    /// A pool for work on files, which ends by itself.
    #[must_use]
    pub fn files(&self) -> Pool {
        self.files.clone()
    }

    /// A pool for the host's connect function, which may never return.
    #[must_use]
    pub fn dials(&self) -> Pool {
        self.dials.clone()
    }

    /// The threads that may run the host's functions.
    #[must_use]
    pub fn own(&self) -> &OwnThreads {
        &self.own
    }

    /// Waits until no file is worked on, and takes no such work any more.
    pub fn finish_files(&self) {
        self.files.hurry();
        self.files.end(None);
    }

    /// Ends all threads; tasks that are left are dropped. What is inside SQLite or the host's functions is waited for at most so
    /// long. How many threads are left.
    pub fn shut_down(mut self, longest: Duration) -> usize {
        self.end(longest)
    }

    fn end(&mut self, longest: Duration) -> usize {
        let Some(sql) = self.sql.take() else { return 0 };
        let deadline = Instant::now() + longest;
        self.finish_files();
        self.dials.end(Some(deadline));
        sql.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        drop(self.consensus_stop.take());
        if let Some(thread) = self.consensus_thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
        self.own.alive.load(Ordering::Acquire)
    }
}

impl Drop for Threads {
    // Of a start that failed.
    fn drop(&mut self) {
        self.end(config::STOP_CALLBACK_MAX);
    }
}

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
