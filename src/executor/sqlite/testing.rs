//! Connections for the tests of this folder.

use std::sync::Arc;

use super::{Connection, Inside};
use crate::pages::PageStore;
use crate::vfs::{Vfs, VfsOptions};

/// A connection to a database of its own, which may write.
pub(super) fn opened() -> Connection {
    writer(&vfs_of(PageStore::new()))
}

/// A VFS over a store; a panic in it is one of the test.
pub(super) fn vfs_of(store: Arc<PageStore>) -> Arc<Vfs> {
    let report = Box::new(|text: &str| panic!("{text}"));
    Vfs::register(store, VfsOptions::default(), report).unwrap()
}

/// Another connection, which may write.
pub(super) fn writer(vfs: &Arc<Vfs>) -> Connection {
    let connection = Connection::open(&mut Inside::alone(), vfs, b"test").unwrap();
    connection.view().set_use_head(true);
    connection.view().set_turn(true);
    connection
}
