//! Who calls the disk of a simulated node: the thread of the simulation, on the spot, or other threads that hand a baton to and fro
//! with it, so that a call may take simulated time, or never return, while everything else goes on.

use std::sync::{Arc, Mutex, PoisonError};

use dqlite::types::tasks::{Aside, BlockingPool, InlinePool};
use tokio::runtime::Handle;

use crate::baton::Baton;

/// Calls the disk. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct DiskWorker(Option<Baton>);

impl DiskWorker {
    /// On other threads.
    #[must_use]
    pub fn aside() -> DiskWorker {
        DiskWorker(Some(Baton::without_pauses()))
    }

    /// Panics of what was done there.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.0.as_ref().map(Baton::panics).unwrap_or_default()
    }

    /// Does something with what is handed over, and gives it back; none if that panicked.
    pub async fn with<T: Send + 'static, R: Send + 'static>(
        &self,
        mut it: T,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Option<(T, R)> {
        let Some(baton) = &self.0 else {
            let result = work(&mut it);
            return Some((it, result));
        };
        let done = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&done);
        let work = move || {
            let result = work(&mut it);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((it, result));
        };
        baton.run(Box::new(work)).await;
        done.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A pool for work on files.
    #[must_use]
    pub fn pool(&self) -> Arc<dyn BlockingPool> {
        match &self.0 {
            Some(baton) => Arc::new(AsidePool { baton: baton.clone(), runtime: Handle::current() }),
            None => Arc::new(InlinePool),
        }
    }
}

/// Runs each piece of work aside.
struct AsidePool {
    baton: Baton,
    runtime: Handle,
}

impl BlockingPool for AsidePool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn(self.baton.run(work));
    }
}
