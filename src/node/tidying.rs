//! Gives memory back to the system that the C library's allocator keeps after large work and when many connections were closed.

use tokio::time::sleep;

use crate::memory::{Returned, allocator};
use crate::types::config::{MEMORY_GIVEN_BACK_AFTER, MEMORY_GIVEN_BACK_BYTES};
use crate::types::tasks::{Expected, SqlSection, Tasks};

/// Starts the task, which ends with its runtime: nobody waits for it.
pub(super) fn start(tasks: &Tasks, returned: &Returned, section: SqlSection) {
    let mut returned = returned.watch();
    tasks.spawn_apart(async move {
        let mut before = *returned.borrow();
        let is_much = |sum: &u64, before: u64| *sum >= before.saturating_add(MEMORY_GIVEN_BACK_BYTES);
        while returned.wait_for(|sum| is_much(sum, before)).await.is_ok() {
            // What belongs to the same work is freed about now, once for all of it.
            sleep(MEMORY_GIVEN_BACK_AFTER).await;
            before = *returned.borrow();
            section.run_now(Expected::Unknown, allocator::give_back);
        }
    });
}
