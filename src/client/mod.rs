//! Requests to other nodes over their client port: for role management, handover and servers that join.
//! spec: client-protocol 5, 6, 12, 15.3.

mod answer;
pub mod connection;
pub mod error;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use answer::Description;
pub use connection::Client;
pub use error::{ClientError, Problem};
