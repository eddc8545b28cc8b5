//! Proofs that this node leads.

mod reads;

pub use reads::Proof;
pub(crate) use reads::Reads;
