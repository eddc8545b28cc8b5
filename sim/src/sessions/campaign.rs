//! Many histories of the machine at once. One that does not end is a violation with its seed, and does not hold up the others:
//! its thread is left behind.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use dqlite::types::fault::Fault;

use super::run::{Report, history};

/// Longest time of the real clock for one history, which takes a second or so.
const HISTORY_MAX: Duration = Duration::from_secs(300);
/// Pause between two looks at those that run.
const LOOK: Duration = Duration::from_millis(500);

enum Message {
    /// A thread takes up a seed.
    Begins(u64),
    /// It has a result.
    Ends(u64, Box<Result<Report, String>>),
    /// A thread has no more to do.
    Over,
}

/// What a campaign runs.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Seeds.
    pub seeds: Range<u64>,
    /// A fault that is planted.
    pub planted: Option<Fault>,
    /// Histories at once. One if SQLite is in single-thread mode: it is one for the whole process.
    pub threads: usize,
    /// Whether the first violation ends it.
    pub until_found: bool,
}

impl Campaign {
    /// All processors on these seeds.
    #[must_use]
    pub fn new(seeds: Range<u64>) -> Campaign {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Campaign { seeds, planted: None, threads, until_found: false }
    }

    /// Runs it. `progress` hears each result, and how many there are.
    pub fn run(
        &self,
        mut progress: impl FnMut(&Result<Report, String>, usize),
    ) -> Vec<Result<Report, String>> {
        let next = Arc::new(AtomicU64::new(self.seeds.start));
        let (sender, messages) = channel();
        for _ in 0..self.threads {
            self.spawn(&next, &sender);
        }
        let mut results = Vec::new();
        let mut running: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut threads = self.threads;
        while threads > 0 {
            match receive(&messages) {
                Some(Message::Begins(seed)) => {
                    running.insert(seed, Instant::now());
                }
                // Else it was given up.
                Some(Message::Ends(seed, result)) if running.remove(&seed).is_some() => {
                    progress(&result, results.len() + 1);
                    results.push(*result);
                }
                Some(Message::Over) => threads -= 1,
                _ => {}
            }
            let stuck =
                running.iter().find(|(_, begin)| begin.elapsed() > HISTORY_MAX).map(|(seed, _)| *seed);
            if let Some(seed) = stuck {
                running.remove(&seed);
                let result = Err(format!("seed {seed}: no end within {HISTORY_MAX:?} of the real clock"));
                progress(&result, results.len() + 1);
                results.push(result);
                // In the place of the thread that is stuck, which may come to its end all the same.
                self.spawn(&next, &sender);
            }
            if self.until_found && results.last().is_some_and(Result::is_err) {
                next.store(self.seeds.end, Ordering::Relaxed);
                return results;
            }
        }
        results
    }

    fn spawn(&self, next: &Arc<AtomicU64>, sender: &Sender<Message>) {
        let (next, sender, end, planted) = (Arc::clone(next), sender.clone(), self.seeds.end, self.planted);
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    break;
                }
                if sender.send(Message::Begins(seed)).is_err() {
                    return;
                }
                let result = catch_unwind(AssertUnwindSafe(|| history(seed, planted)))
                    .unwrap_or_else(|panic| Err(format!("seed {seed}: panic: {}", text_of(panic.as_ref()))));
                if sender.send(Message::Ends(seed, Box::new(result))).is_err() {
                    return;
                }
            }
            // Nobody may listen any more.
            let _ = sender.send(Message::Over);
        });
    }
}

fn receive(messages: &Receiver<Message>) -> Option<Message> {
    match messages.recv_timeout(LOOK) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Message::Over),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
