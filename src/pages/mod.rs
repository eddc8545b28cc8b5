//! The page store: roots, versions, overlays. Knows nothing of SQLite but the few bytes of page 1 that the log's
//! rules name. A database has two roots: `committed` (the last applied entry) and `head` (committed plus what was
//! executed and proposed here). Roots and pages never change once made. spec: state-machine 2.2, 7.2.

mod cache;
mod database;
mod epoch;
mod file;
mod header;
mod memory;
mod overlay;
mod page;
mod room;
mod scan;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

pub use database::{Appended, Commit, CommitError, Database, Discarded, Pin, Reserved, StaleEpoch};
pub use file::{Loss, PageFile};
pub use header::{BadPage, PageOneError};
pub use overlay::Overlay;
pub use page::{PageRef, PageSpace, has_memory};
pub use room::{Charge, Room};
pub use store::{Attached, DatabaseImages, NameError, PageStore, ReplaceError, check_name};
pub use tree::Root;
