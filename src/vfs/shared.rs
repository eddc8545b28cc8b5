//! What the files of a VFS share: what it opens them on, and the one guard around all that SQLite calls.

use std::any::Any;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use libsqlite3_sys as sqlite;

use super::file::{File, VfsOptions};
use super::journal::Journal;
use super::template::empty_page;
use crate::pages::PageStore;

/// Called once with the text of the first panic inside a callback.
pub type PanicReport = Box<dyn Fn(&str) + Send + Sync>;

/// What is shared.
pub(super) struct Shared {
    /// Of the `Vfs`; none is left when a VFS that is still registered has no connection any more.
    store: Weak<PageStore>,
    options: VfsOptions,
    platform: NonNull<sqlite::sqlite3_vfs>,
    next_connection: AtomicU64,
    poisoned: AtomicBool,
    on_panic: PanicReport,
}

// SAFETY: the platform's VFS is registered for the life of the process and may be used from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above; the rest is atomics and types that are `Sync`.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(
        store: Weak<PageStore>,
        options: VfsOptions,
        platform: NonNull<sqlite::sqlite3_vfs>,
        on_panic: PanicReport,
    ) -> Shared {
        let (next_connection, poisoned) = (AtomicU64::new(1), AtomicBool::new(false));
        Shared { store, options, platform, next_connection, poisoned, on_panic }
    }

    pub(super) fn platform(&self) -> *mut sqlite::sqlite3_vfs {
        self.platform.as_ptr()
    }

    /// `None` for a refused name and in a node where a callback has panicked.
    pub(super) fn open(&self, name: &[u8]) -> Option<File> {
        if self.poisoned.load(Ordering::Acquire) {
            return None;
        }
        let store = self.store.upgrade()?;
        let attached = store.attach(name, &empty_page()).ok()?;
        let connection_id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        Some(File::new(attached, connection_id, self.options, store.space().clone()))
    }

    /// A rollback journal, if pages are not in memory; else SQLite keeps its own in memory and asks for none.
    pub(super) fn open_journal(&self) -> Option<Journal> {
        self.store.upgrade()?.space().scratch().map(|scratch| Journal::new(Arc::clone(scratch)))
    }

    pub(super) fn report(&self, panic: &(dyn Any + Send)) {
        if self.poisoned.swap(true, Ordering::AcqRel) {
            return;
        }
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic in a SQLite callback".to_owned());
        (self.on_panic)(&text);
    }
}

/// Runs `work`; a panic is reported to the node and becomes an I/O error.
pub(super) fn guard(shared: &Shared, work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        shared.report(panic.as_ref());
        sqlite::SQLITE_IOERR
    })
}

/// The state shared by the files of this VFS.
///
/// # Safety
/// `vfs` is a VFS made by `register`, which keeps its shared state while it is registered or open files exist.
pub(super) unsafe fn shared_of<'a>(vfs: *mut sqlite::sqlite3_vfs) -> &'a Arc<Shared> {
    // SAFETY: by this function's contract.
    let data = unsafe { (*vfs).pAppData };
    // SAFETY: `register` put a pointer to an `Arc<Shared>` there that lives as long as the VFS.
    unsafe { &*data.cast::<Arc<Shared>>() }
}
