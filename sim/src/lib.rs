//! Whole nodes on a simulated disk and clock: a seed replays exactly.

pub mod disk;
pub mod node;
