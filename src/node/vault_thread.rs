//! The thread of the vault: stores term and vote, which nothing else on the disk delays.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::threads::{join_until, panic_text};
use crate::host::threads;
use crate::storage::vault::{Vault, VaultRequest};
use crate::types::backoff::Backoff;
use crate::types::config::{DISK_RETRY_FIRST, DISK_RETRY_MAX};

/// The thread. What it holds, and its end.
#[derive(Debug)]
pub struct VaultThread {
    thread: JoinHandle<()>,
    queue: VaultQueue,
}

enum VaultMessage {
    Request(VaultRequest),
    /// What fails from now on gets its error.
    GiveUp,
    /// Nothing after it is done.
    End,
}

/// Sends requests to the vault.
#[derive(Clone, Debug)]
pub struct VaultQueue(Sender<VaultMessage>);

impl VaultQueue {
    /// Queues a request; one to a thread that has ended is dropped, and with it its completion, which is an error.
    pub fn send(&self, request: VaultRequest) {
        drop(self.0.send(VaultMessage::Request(request)));
    }

    /// The node stops: whoever waits for what cannot be stored gets the error. Consensus, which awaits it, could not end.
    pub fn give_up(&self) {
        // A thread that has ended waits for nothing.
        drop(self.0.send(VaultMessage::GiveUp));
    }
}

impl VaultThread {
    /// Starts the thread, which has the vault, and with it the right to the directory, until it ends, after `join_until`. `on_panic` hears of a panic, which
    /// is final.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(
        mut vault: Vault,
        on_panic: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<(VaultQueue, VaultThread)> {
        let (sender, messages) = channel();
        let thread = threads::spawn("dqlite-term", None, move || {
            let ran = catch_unwind(AssertUnwindSafe(|| run(&mut vault, &messages)));
            if let Err(panic) = ran {
                on_panic(panic_text(panic.as_ref()));
                // Who waits for what is left may not be there to be woken.
                std::mem::forget(messages);
            }
        })?;
        let queue = VaultQueue(sender);
        Ok((queue.clone(), VaultThread { thread, queue }))
    }

    /// As of its queue.
    pub fn give_up(&self) {
        self.queue.give_up();
    }

    /// Lets the thread do what is queued, and waits for its end until `deadline`; whether it has ended.
    pub fn join_until(self, deadline: Instant) -> bool {
        // A thread that panicked has no queue any more.
        drop(self.queue.0.send(VaultMessage::End));
        join_until(self.thread, deadline)
    }
}

fn run(vault: &mut Vault, messages: &Receiver<VaultMessage>) {
    let mut waiting = VecDeque::new();
    let (mut gives_up, mut ended) = (false, false);
    let mut retry = Backoff::new(DISK_RETRY_FIRST, DISK_RETRY_MAX);
    while !ended {
        let message = match waiting.is_empty() {
            true => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => messages.recv_timeout(retry.pause()),
        };
        match message {
            Ok(VaultMessage::Request(request)) => waiting.push_back(request),
            Ok(VaultMessage::GiveUp) => gives_up = true,
            Ok(VaultMessage::End) | Err(RecvTimeoutError::Disconnected) => (gives_up, ended) = (true, true),
            Err(RecvTimeoutError::Timeout) => retry.lengthen(),
        }
        while let Some(request) = waiting.pop_front() {
            if let Some(request) = vault.process(request, gives_up) {
                waiting.push_front(request);
                break;
            }
            retry.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::file_disk::FileDisk;
    use crate::storage::metadata::Metadata;
    use crate::storage::vault::read_metadata;
    use crate::types::{NodeId, Term};

    #[test]
    fn a_vote_that_cannot_be_stored_is_tried_again_until_the_node_stops() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, folder.path()).unwrap();
        // A directory where the file of the first version belongs.
        std::fs::create_dir(folder.path().join("metadata1")).unwrap();
        let panicked = Arc::new(AtomicBool::new(false));
        let panics = Arc::clone(&panicked);
        let vault = Vault::new(directory.clone(), directory.lock().unwrap(), Metadata::default());
        let (queue, thread) =
            VaultThread::start(vault, move |_| panics.store(true, Ordering::Relaxed)).unwrap();
        let (answers, answer) = channel();
        let ask = |term| {
            let answers = answers.clone();
            let done = Box::new(move |result: Result<(), _>| answers.send((term, result.is_ok())).unwrap());
            queue.send(VaultRequest::Store { term: Term(term), voted_for: NodeId(2), done });
        };

        ask(1);
        assert!(answer.recv_timeout(Duration::from_millis(100)).is_err(), "an error would be final");
        std::fs::remove_dir(folder.path().join("metadata1")).unwrap();
        assert_eq!(answer.recv().unwrap(), (1, true));
        std::fs::create_dir(folder.path().join("metadata2")).unwrap();
        ask(2);
        assert!(answer.recv_timeout(Duration::from_millis(100)).is_err());
        queue.give_up();
        assert_eq!(answer.recv().unwrap(), (2, false));
        std::fs::remove_dir(folder.path().join("metadata2")).unwrap();

        assert!(thread.join_until(Instant::now() + Duration::from_secs(60)));
        directory.lock().unwrap();
        assert!(!panicked.load(Ordering::Relaxed));
        assert_eq!(read_metadata(&directory).unwrap().term, Term(1));
    }
}
