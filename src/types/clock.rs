//! The wall clock as a value that `node/` hands down. Monotonic time is tokio's, which a simulation pauses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock: used only where upstream writes wall time (names of set-aside files, node ids).
pub trait WallClock: Send + Sync {
    /// Time since 1970-01-01 UTC; zero if the clock is before that.
    fn since_epoch(&self) -> Duration;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    fn since_epoch(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
