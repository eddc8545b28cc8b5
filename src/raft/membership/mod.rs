//! The members of the cluster, as they change.

mod catch_up;
mod changes;
mod deletion;
mod turn;

pub(crate) use catch_up::CatchUp;
pub(crate) use changes::Changes;
pub(crate) use deletion::Deletions;
pub use deletion::{DeletionPermit, DeletionRefused};
pub(crate) use turn::ChangeTurn;
