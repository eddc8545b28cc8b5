//! Where work runs. `node/` makes threads and runtimes and hands this down; a simulation runs everything inline on one
//! thread.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::config::SQL_WORKER_HANDOVER;

/// Runs blocking work (file loading, snapshots, connect callbacks) away from the threads of tasks.
pub trait BlockingPool: Send + Sync {
    /// Runs `work` some time; never drops it without running it while the node lives.
    fn run(&self, work: Box<dyn FnOnce() + Send>);

    /// The same for work that takes long, needs the processor and can wait for those who serve clients.
    fn run_behind(&self, work: Box<dyn FnOnce() + Send>) {
        self.run(work);
    }

    /// Called by such work after each bit, with the time that it took: leaves processor and disk to others for a while. False if
    /// nobody wants the work any more.
    fn give_way(&self, worked: Duration) -> bool {
        let _ = worked;
        true
    }
}

/// Runs work where it is asked for: simulations and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlinePool;

impl BlockingPool for InlinePool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Runs `work` on the pool; without one, on the spot.
pub fn run_or_now(pool: Option<&Arc<dyn BlockingPool>>, work: impl FnOnce() + Send + 'static) {
    match pool {
        Some(pool) => pool.run(Box::new(work)),
        None => work(),
    }
}

type Waiting = std::collections::VecDeque<Box<dyn FnOnce() + Send>>;

/// Runs work when it is told to: for what lies between asking and doing.
#[derive(Clone, Default)]
pub struct LaterPool(std::sync::Arc<std::sync::Mutex<Waiting>>);

impl std::fmt::Debug for LaterPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaterPool").finish_non_exhaustive()
    }
}

impl LaterPool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether nothing waits to be run.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    /// Runs all that was asked for.
    pub fn catch_up(&self) {
        loop {
            let next = self.lock().pop_front();
            match next {
                Some(work) => work(),
                None => return,
            }
        }
    }
}

impl BlockingPool for LaterPool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.lock().push_back(work);
    }
}

/// Runs work on another thread while the task waits.
pub trait Aside: Send + Sync {
    /// Starts `work`; the future ends when it has run. The work runs to its end even if nobody waits for it any more.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// How SQL runs inside a task.
#[derive(Clone)]
pub enum SqlSection {
    /// `tokio::task::block_in_place`: other tasks of the runtime go on.
    BlockInPlace,
    /// On the spot: one thread for everything (simulation).
    Inline,
    /// On another thread, while this one waits or runs other tasks (simulation).
    Aside(Arc<dyn Aside>),
}

impl std::fmt::Debug for SqlSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SqlSection::BlockInPlace => "BlockInPlace",
            SqlSection::Inline => "Inline",
            SqlSection::Aside(_) => "Aside",
        })
    }
}

/// How long work is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Less than the handover of a worker costs.
    Short,
    /// Nobody knows.
    Unknown,
}

impl SqlSection {
    /// Runs `work` in the calling task, on the spot. What is expected to be short stays on the worker; it must call
    /// `let_others_run` if it takes long all the same.
    pub fn run_now<T>(&self, expected: Expected, work: impl FnOnce() -> T) -> T {
        match (self, expected) {
            (SqlSection::BlockInPlace, Expected::Unknown) => in_place(work),
            _ => work(),
        }
    }
}

/// Called by work that runs on a worker and takes longer than was expected: other tasks go on elsewhere from here.
pub fn let_others_run(patience: Duration) {
    // The worker goes to another thread when that wakes up in time; then this thread keeps its task alone.
    in_place(|| std::thread::sleep(patience.max(SQL_WORKER_HANDOVER)));
}

/// `block_in_place`, which panics where no thread can be had that takes the worker over: then the work is done all the same. The
/// worker's other tasks wait for it, as long as no other thread comes for them.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    let mut waiting = Some(work);
    let blocking = || tokio::task::block_in_place(|| waiting.take().map(|work| work()));
    match catch_unwind(AssertUnwindSafe(blocking)) {
        Ok(Some(result)) => result,
        Ok(None) => unreachable!("the work was there"),
        Err(panic) => match waiting {
            Some(work) => work(),
            None => resume_unwind(panic),
        },
    }
}

/// Hears of a panic of a task.
pub type OnPanic = Arc<dyn Fn(&(dyn Any + Send)) + Send + Sync>;

tokio::task_local! {
    /// Who hears of a panic of this task, and of those that it spawns.
    static ON_PANIC: OnPanic;
}

/// The future whose panic is told, and goes on.
async fn telling<F: Future>(future: F, on_panic: OnPanic) -> F::Output {
    let result = ON_PANIC.scope(Arc::clone(&on_panic), AssertUnwindSafe(future).catch_unwind()).await;
    result.unwrap_or_else(|panic| {
        on_panic(panic.as_ref());
        resume_unwind(panic)
    })
}

/// Starts a task beside the calling one, whose panics are told to the same.
pub fn spawn_beside<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match ON_PANIC.try_with(Arc::clone) {
        Ok(on_panic) => tokio::spawn(telling(future, on_panic)),
        Err(_) => tokio::spawn(future),
    }
}

/// A set of tasks on one runtime; all of them end before the node's stop returns. All tasks of a node are started here.
#[derive(Clone)]
pub struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
    on_panic: Option<OnPanic>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("running", &self.tracker.len()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Tasks on `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Tasks {
        Tasks { handle, tracker: TaskTracker::new(), on_panic: None }
    }

    /// The same, whose panics are told, and those of the tasks that they spawn.
    #[must_use]
    pub fn telling(handle: Handle, on_panic: OnPanic) -> Tasks {
        Tasks { handle, tracker: TaskTracker::new(), on_panic: Some(on_panic) }
    }

    /// Another set on the same runtime, whose panics are told to the same.
    #[must_use]
    pub fn another(&self) -> Tasks {
        let (handle, on_panic) = (self.handle.clone(), self.on_panic.clone());
        Tasks { handle, tracker: TaskTracker::new(), on_panic }
    }

    /// Starts a task.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let future = self.tracker.track_future(future);
        match &self.on_panic {
            Some(on_panic) => self.handle.spawn(telling(future, Arc::clone(on_panic))),
            None => self.handle.spawn(future),
        }
    }

    /// Starts a task that ends with the runtime: nobody waits for it.
    pub fn spawn_apart(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.another().spawn(future));
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits for all tasks; none may be started afterwards.
    pub fn finished(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.tracker.close();
        Box::pin(self.tracker.wait())
    }
}

/// Runs `work` on the pool and waits for its result.
///
/// # Errors
/// The work panicked or the pool has gone.
pub async fn on_pool<T: Send + 'static>(
    pool: &dyn BlockingPool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PoolGone> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    pool.run(Box::new(move || {
        // The receiver may have given up; then nobody wants the result.
        let _ = sender.send(work());
    }));
    receiver.await.map_err(|_| PoolGone)
}

/// The same by `run_behind`.
///
/// # Errors
/// The work panicked or the pool has gone.
pub async fn behind_on_pool<T: Send + 'static>(
    pool: &dyn BlockingPool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PoolGone> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    pool.run_behind(Box::new(move || {
        // As above.
        let _ = sender.send(work());
    }));
    receiver.await.map_err(|_| PoolGone)
}

/// The work of a pool never ended: it panicked, or the node is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blocking work was abandoned")]
pub struct PoolGone;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Tasks of the test's runtime, and what is told of their panics.
    fn telling_tasks() -> (Tasks, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let texts = Arc::clone(&told);
        let on_panic: OnPanic = Arc::new(move |panic: &(dyn Any + Send)| {
            texts.lock().unwrap().push((*panic.downcast_ref::<&str>().unwrap()).to_owned());
        });
        (Tasks::telling(Handle::current(), on_panic), told)
    }

    #[tokio::test]
    async fn a_panic_of_a_task_that_nobody_awaits_is_told() {
        let (tasks, told) = telling_tasks();
        drop(tasks.spawn(async { panic!("of a task") }));
        tasks.another().spawn(async { panic!("of another set") }).await.unwrap_err();
        tasks.finished().await;
        let mut told = told.lock().unwrap().clone();
        told.sort();
        assert_eq!(told, ["of a task", "of another set"]);
    }

    #[tokio::test]
    async fn a_panic_of_what_a_task_has_spawned_is_told_however_deep() {
        let (tasks, told) = telling_tasks();
        let deepest = || async { panic!("of a child's child") };
        let child = move || async move { spawn_beside(deepest()).await.unwrap_err() };
        assert!(tasks.spawn(async move { spawn_beside(child()).await.unwrap() }).await.unwrap().is_panic());
        assert_eq!(*told.lock().unwrap(), ["of a child's child"]);
    }
}
