//! SQL on a second thread that hands a baton to and fro with the simulator's one: only one of them runs at any time, so that a
//! seed still gives one run. At the points inside SQLite (between its instructions, in the callbacks of the VFS) the SQL may
//! give the baton back for some simulated time, in which everything else goes on.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dqlite::types::fault::{self, Fault};
use dqlite::types::pause;
use dqlite::types::tasks::Aside;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Sleep, sleep};

type Work = Box<dyn FnOnce() + Send>;

/// How often SQL pauses, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// At one point in so many.
    pub one_in: u32,
    /// Longest usual pause.
    pub usual_max: Duration,
    /// One pause in so many is a long one.
    pub long_one_in: u32,
    /// Longest long pause.
    pub long_max: Duration,
}

/// What the SQL's thread tells.
enum Told {
    /// It has paused.
    Pauses(Duration),
    /// It has run to its end.
    Over,
    /// It has panicked.
    Panicked(String),
}

/// A thread for SQL.
struct Worker {
    work: Sender<Work>,
    /// Goes on after a pause; once it is closed, nothing pauses any more.
    goes_on: Sender<()>,
    told: Receiver<Told>,
}

/// What decides where there is a pause. Threads know only this of the baton, so that they end with it.
struct Dice {
    random: SmallRng,
    pauses: Pauses,
    /// Pauses so far.
    paused: u64,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    panics: Vec<String>,
}

/// Hands the baton to and fro; clones are the same.
#[derive(Clone)]
pub struct Baton {
    dice: Arc<Mutex<Dice>>,
    state: Arc<Mutex<State>>,
    planted: Option<Fault>,
}

impl std::fmt::Debug for Baton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Baton").field("pauses", &self.pauses()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The length of the pause at a point, if there is one.
fn pause_at_point(dice: &Mutex<Dice>) -> Option<Duration> {
    let mut dice = lock(dice);
    let Pauses { one_in, usual_max, long_one_in, long_max } = dice.pauses;
    if dice.random.random_range(0..one_in) != 0 {
        return None;
    }
    let most = if dice.random.random_range(0..long_one_in) == 0 { long_max } else { usual_max };
    dice.paused += 1;
    Some(dice.random.random_range(Duration::ZERO..=most))
}

impl Baton {
    /// A baton for work that pauses only where it waits itself.
    #[must_use]
    pub fn without_pauses() -> Baton {
        let none = Duration::ZERO;
        Baton::new(0, Pauses { one_in: u32::MAX, usual_max: none, long_one_in: u32::MAX, long_max: none })
    }

    /// A baton whose pauses follow from a seed. Work inherits what is planted on the calling thread.
    #[must_use]
    pub fn new(seed: u64, pauses: Pauses) -> Baton {
        let random = SmallRng::seed_from_u64(seed ^ 0x0062_6174_6f6e);
        let dice = Dice { random, pauses, paused: 0 };
        Baton { dice: Arc::new(Mutex::new(dice)), state: Arc::default(), planted: fault::planted() }
    }

    /// Pauses so far.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        lock(&self.dice).paused
    }

    /// Panics of SQL so far.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        lock(&self.state).panics.clone()
    }

    fn worker(&self) -> Worker {
        let idle = lock(&self.state).idle.pop();
        idle.unwrap_or_else(|| self.start_worker())
    }

    fn start_worker(&self) -> Worker {
        let (work_sender, work) = channel::<Work>();
        let (go_sender, goes_on) = channel::<()>();
        let (teller, told) = channel();
        let (dice, planted) = (Arc::clone(&self.dice), self.planted);
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            fault::plant(planted);
            let _clock = runtime.enter();
            let tells = teller.clone();
            WAITS.set(Some(Box::new(move |time| {
                // Whoever does not listen any more lets this run on.
                if tells.send(Told::Pauses(time)).is_ok() {
                    // Closed: as above.
                    let _ = goes_on.recv();
                }
            })));
            pause::set(Some(Box::new(move || {
                if let Some(time) = pause_at_point(&dice) {
                    wait(time);
                }
            })));
            while let Ok(work) = work.recv() {
                let told = match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(()) => Told::Over,
                    Err(panic) => Told::Panicked(text_of(panic.as_ref())),
                };
                if teller.send(told).is_err() {
                    return;
                }
            }
        });
        Worker { work: work_sender, goes_on: go_sender, told }
    }

    fn give_back(&self, worker: Worker) {
        lock(&self.state).idle.push(worker);
    }
}

type Waits = Box<dyn Fn(Duration)>;

thread_local! {
    /// Gives the baton back for some time, on a thread that works for one.
    static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) };
}

/// Whether this thread works for a baton.
#[must_use]
pub fn can_wait() -> bool {
    WAITS.with_borrow(Option::is_some)
}

/// Lets simulated time pass in the middle of work that a baton runs; nothing anywhere else.
pub fn wait(time: Duration) {
    WAITS.with_borrow(|waits| {
        if let Some(waits) = waits {
            waits(time);
        }
    });
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

impl Aside for Baton {
    fn run(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Running { baton: self.clone(), stage: Stage::Asked(work), is_own_task: false })
    }
}

enum Stage {
    /// Nothing has happened.
    Asked(Work),
    /// It pauses.
    Paused(Worker, Pin<Box<Sleep>>),
    Over,
}

/// A piece of work.
struct Running {
    baton: Baton,
    stage: Stage,
    /// Nobody waits for it any more.
    is_own_task: bool,
}

impl Running {
    /// Hands the baton over until the work pauses or ends.
    fn listen(&mut self, worker: Worker) -> bool {
        match worker.told.recv() {
            Ok(Told::Pauses(time)) => {
                self.stage = Stage::Paused(worker, Box::pin(sleep(time)));
                return false;
            }
            Ok(Told::Over) => self.baton.give_back(worker),
            Ok(Told::Panicked(text)) => {
                lock(&self.baton.state).panics.push(text);
                self.baton.give_back(worker);
            }
            // It has gone with its work.
            Err(_) => {}
        }
        true
    }
}

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let is_over = match std::mem::replace(&mut this.stage, Stage::Over) {
                Stage::Over => true,
                Stage::Asked(work) => {
                    let worker = this.baton.worker();
                    // It listens as long as the worker is there.
                    let _ = worker.work.send(work);
                    this.listen(worker)
                }
                Stage::Paused(worker, mut time) => {
                    if time.as_mut().poll(context).is_pending() {
                        this.stage = Stage::Paused(worker, time);
                        return Poll::Pending;
                    }
                    // As above.
                    let _ = worker.goes_on.send(());
                    this.listen(worker)
                }
            };
            if is_over {
                return Poll::Ready(());
            }
        }
    }
}

impl Drop for Running {
    /// The work runs to its end even if nobody waits for it.
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if matches!(stage, Stage::Over) {
            return;
        }
        // Else the history is over: its thread runs on alone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.is_own_task
        {
            runtime.spawn(Running { baton: self.baton.clone(), stage, is_own_task: true });
        }
    }
}
