//! Safe wrapper of SQLite connections and statements that go through our VFS. The only place beside `vfs/` that calls
//! SQLite. A connection and its statements are used by one task at a time. spec: state-machine 4.3, 4.8.

#![allow(unsafe_code)]

mod authorizer;
mod connection;
mod nesting;
mod schema;
mod speed;
mod statement;

pub use connection::{Connection, InterruptHandle, OpenError, SqliteError, TransactionState};
pub use statement::{Statement, Step, Value};

pub use crate::vfs::{empty_page, threading};
