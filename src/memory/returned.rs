//! How much memory was given back, for those who tidy up after large work: where pages were, other memory was, too.

use tokio::sync::watch;

/// Bytes that were given back so far.
#[derive(Clone, Debug)]
pub struct Returned(watch::Sender<u64>);

impl Default for Returned {
    fn default() -> Returned {
        Returned(watch::Sender::new(0))
    }
}

impl Returned {
    /// More was given back.
    pub fn add(&self, bytes: usize) {
        self.0.send_modify(|sum| *sum = sum.saturating_add(bytes as u64));
    }

    /// Their sum, as it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
