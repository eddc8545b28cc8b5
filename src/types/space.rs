//! Space on the disk for what is to be logged.

use std::fmt::Debug;

/// Knows whether there is space.
pub trait LogSpace: Send + Sync + Debug {
    /// Whether so many bytes of entries may be logged, with enough left for what must always be possible. Where that cannot be
    /// found out, they may.
    fn takes(&self, bytes: u64) -> bool;

    /// Whether there is none: for anything, or still for what was refused last, unless that was very large.
    fn is_full(&self) -> bool;
}
