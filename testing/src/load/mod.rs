//! Load for measurements: many clients of one node in one thread, each with one request under way.

mod connection;
pub mod run;
pub mod workload;

pub use self::connection::{Connection, LoadError};
