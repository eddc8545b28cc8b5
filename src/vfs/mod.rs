//! The SQLite VFS: serves main databases from the roots of a page store, as rollback-journal databases that are alone.
//! No callback waits. Every callback runs under a guard: a panic is reported to the node and SQLite sees an I/O error.
//! architecture: "SQLite sees a rollback-journal database".

#![allow(unsafe_code)]

mod callbacks;
mod fetch;
mod file;
mod journal;
mod journal_callbacks;
mod platform;
mod register;
mod shared;
mod template;
pub mod threading;
mod view;

pub use file::{SQLITE_IOERR_STALE, VfsOptions};
pub use register::{Vfs, VfsError};
pub use shared::PanicReport;
pub use template::empty_page;
pub use view::{DeletionPermit, DeletionRefused, Members, Seen, View};
