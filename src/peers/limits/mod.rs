//! What peers may take and who is believed: decisions without I/O; most are tables in `testdata/raft/`.

pub mod budgets;
pub mod pace;
pub mod speakers;

pub use budgets::{Dials, LinkKind, Places, Receiving, Unfinished};
pub use pace::{Moment, Pace, Verdict};
pub use speakers::{Echo, Speaker};
