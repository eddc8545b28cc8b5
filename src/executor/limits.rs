//! What bounds the work in flight: statements inside SQLite, transactions and bytes proposed and not yet applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Permits to be inside SQLite.
#[derive(Clone, Debug)]
pub struct SqlPermits {
    permits: Arc<Semaphore>,
    places: usize,
}

impl SqlPermits {
    /// As many statements at once as there are `threads`, at least one.
    #[must_use]
    pub fn new(threads: usize) -> SqlPermits {
        let places = threads.clamp(1, Semaphore::MAX_PERMITS);
        SqlPermits { permits: Arc::new(Semaphore::new(places)), places }
    }

    /// Waits for a place.
    pub async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed; None would only mean unbounded, not unsafe.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.places - self.permits.available_permits()
    }
}

/// Proposed and not yet applied work.
#[derive(Debug)]
pub struct InFlight {
    transactions: Arc<Semaphore>,
    bytes: AtomicUsize,
    bytes_max: usize,
    less: Notify,
}

/// One transaction in flight.
#[derive(Debug)]
pub struct InFlightPermit {
    _transaction: Option<OwnedSemaphorePermit>,
    of: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// At most `transactions_max` at once; none starts while `bytes_max` or more are in flight.
    #[must_use]
    pub fn new(transactions_max: usize, bytes_max: usize) -> Arc<InFlight> {
        Arc::new(InFlight {
            transactions: Arc::new(Semaphore::new(transactions_max.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: AtomicUsize::new(0),
            bytes_max,
            less: Notify::new(),
        })
    }

    /// Waits until one more transaction may start.
    pub async fn acquire(self: &Arc<InFlight>) -> InFlightPermit {
        let transaction = Arc::clone(&self.transactions).acquire_owned().await.ok();
        loop {
            let less = self.less.notified();
            if self.bytes.load(Ordering::Acquire) < self.bytes_max {
                return InFlightPermit { _transaction: transaction, of: Arc::clone(self), bytes: 0 };
            }
            less.await;
        }
    }

    /// Transactions that may still start.
    #[must_use]
    pub fn free(&self) -> usize {
        self.transactions.available_permits()
    }

    /// Bytes proposed and not yet applied.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

impl InFlightPermit {
    /// Counts the bytes that were proposed.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.of.bytes.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.of.less.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_in_flight_hold_back_the_next_transaction() {
        let in_flight = InFlight::new(8, 100);
        let mut first = in_flight.acquire().await;
        first.add_bytes(100);
        let mut second = Box::pin(in_flight.acquire());

        assert!(tokio::time::timeout(std::time::Duration::from_secs(9), &mut second).await.is_err());
        drop(first);

        second.await;
    }
}
