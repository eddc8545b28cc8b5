//! What proves that this node leads: one heart sends the beats, one table keeps when they were answered.

mod contact;
mod heart;
mod reads;

pub(crate) use contact::Contacts;
pub(crate) use heart::Heart;
pub use reads::Proof;
pub(crate) use reads::Reads;
