//! The client protocol as data: no I/O, no state. spec: client-protocol 3-6.

pub mod codec;
pub mod decode;
pub mod failure;
pub mod header;
pub mod request;
pub mod response;
pub mod rows;

#[cfg(test)]
mod golden_tests;
