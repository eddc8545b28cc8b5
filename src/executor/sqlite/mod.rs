//! Safe wrapper of SQLite connections and statements that go through our VFS. The only place beside `vfs/` that calls
//! SQLite. A connection and its statements are used by one task at a time, and only inside. spec: state-machine 4.3, 4.8.

#![allow(unsafe_code)]

mod authorizer;
mod compile;
mod compiled;
mod connection;
mod ended;
mod handle;
mod inside;
mod nesting;
mod schema;
mod speed;
mod statement;
#[cfg(test)]
mod testing;

pub use compile::again as compile_again;
pub use compiled::Compiled;
pub use connection::{Connection, OpenError, TransactionState};
pub use ended::{End, Ended, Heeds};
pub use handle::SqliteError;
pub use inside::Inside;
pub use schema::step;
pub use statement::{Statement, Step, Value};

pub use crate::vfs::{empty_page, threading};
