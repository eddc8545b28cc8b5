//! Registers a VFS with SQLite for one node and takes it away again.

use std::any::Any;
use std::ffi::{CStr, CString, c_int};
use std::mem::size_of;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libsqlite3_sys as sqlite;

use super::callbacks::{self, OpenFile};
use super::file::File;
use super::journal::Journal;
use super::platform;
use super::template::empty_page;
use super::threading::{serial_guard, sqlite_is_serial};
use super::view::View;
use crate::pages::PageStore;
use crate::types::config::{DATABASE_NAME_MAX_BYTES, ENTRY_MAX_BYTES, ENTRY_TO_MEMBERS_MAX_BYTES};

/// SQLite wants room for 8 bytes after a name.
const PATH_MAX_BYTES: c_int = DATABASE_NAME_MAX_BYTES as c_int + 8;

/// The VFS names of a process differ, since SQLite has one list of them: `dqlite-1`, `dqlite-2`, ...
static NEXT_NAME: AtomicU64 = AtomicU64::new(1);

/// Called once with the text of the first panic inside a callback.
pub type PanicReport = Box<dyn Fn(&str) + Send + Sync>;

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct VfsOptions {
    /// Largest entry in bytes; a larger transaction gets SQLITE_FULL.
    pub entry_max_bytes: u64,
    /// The same while the cluster has other members.
    pub entry_to_members_max_bytes: u64,
}

impl Default for VfsOptions {
    fn default() -> VfsOptions {
        VfsOptions {
            entry_max_bytes: ENTRY_MAX_BYTES,
            entry_to_members_max_bytes: ENTRY_TO_MEMBERS_MAX_BYTES,
        }
    }
}

/// Why there is no VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VfsError {
    /// SQLite could not be initialised.
    #[error("sqlite3_initialize: error {0}")]
    Initialize(i32),
    /// SQLite has no default VFS.
    #[error("SQLite has no default VFS")]
    NoPlatform,
    /// SQLite refused it.
    #[error("sqlite3_vfs_register: error {0}")]
    Register(i32),
}

pub(super) struct Shared {
    store: Arc<PageStore>,
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
    pub(super) fn platform(&self) -> *mut sqlite::sqlite3_vfs {
        self.platform.as_ptr()
    }

    /// `None` for a refused name and in a node where a callback has panicked.
    pub(super) fn open(&self, name: &[u8]) -> Option<File> {
        if self.poisoned.load(Ordering::Acquire) {
            return None;
        }
        let attached = self.store.attach(name, &empty_page()).ok()?;
        let connection_id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        Some(File::new(attached, connection_id, self.options, self.store.space().clone()))
    }

    /// A rollback journal, if pages are not in memory; else SQLite keeps its own in memory and asks for none.
    pub(super) fn open_journal(&self) -> Option<Journal> {
        self.store.space().scratch().map(|scratch| Journal::new(Arc::clone(scratch)))
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

/// A VFS that is registered with SQLite until this is dropped. Connections hold it.
pub struct Vfs {
    name: CString,
    /// Whether SQLite has no mutexes.
    serial: bool,
    registered: NonNull<sqlite::sqlite3_vfs>,
    data: NonNull<Arc<Shared>>,
}

// SAFETY: SQLite's list of VFSes is guarded by its own mutex, in single-thread mode by the process's guard; the rest is never
// changed.
unsafe impl Send for Vfs {}
// SAFETY: as above.
unsafe impl Sync for Vfs {}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Vfs {
    /// Registers a VFS, not as the default, over this store. Initialises SQLite. In SQLite's single-thread mode it waits until
    /// nobody else of the process is inside SQLite; so does dropping it.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn register(
        store: Arc<PageStore>,
        options: VfsOptions,
        on_panic: PanicReport,
    ) -> Result<Arc<Vfs>, VfsError> {
        let serial = sqlite_is_serial();
        let _serial = serial_guard(serial);
        // SAFETY: takes nothing.
        let code = unsafe { sqlite::sqlite3_initialize() };
        if code != sqlite::SQLITE_OK {
            return Err(VfsError::Initialize(code));
        }
        // SAFETY: null asks for the default VFS.
        let platform = unsafe { sqlite::sqlite3_vfs_find(ptr::null()) };
        let platform = NonNull::new(platform).ok_or(VfsError::NoPlatform)?;
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("dqlite-{number}")).expect("digits contain no NUL");
        let shared = Arc::new(Shared {
            store,
            options,
            platform,
            next_connection: AtomicU64::new(1),
            poisoned: AtomicBool::new(false),
            on_panic,
        });
        let data = NonNull::from(Box::leak(Box::new(shared)));
        // SAFETY: a registered VFS; its size is never changed.
        let platform_size = unsafe { platform.as_ref() }.szOsFile;
        let vfs = sqlite::sqlite3_vfs {
            szOsFile: platform_size.max(size_of::<OpenFile>() as c_int),
            mxPathname: PATH_MAX_BYTES,
            zName: name.as_ptr(),
            pAppData: data.as_ptr().cast(),
            xOpen: Some(callbacks::open),
            xDelete: Some(callbacks::delete),
            xAccess: Some(callbacks::access),
            xFullPathname: Some(callbacks::full_pathname),
            // SAFETY: a registered VFS.
            ..unsafe { platform::forwarding(platform) }
        };
        let registered = NonNull::from(Box::leak(Box::new(vfs)));
        let vfs = Vfs { name, serial, registered, data };
        // SAFETY: the VFS and its name live until `Drop`, which unregisters first.
        let code = unsafe { sqlite::sqlite3_vfs_register(registered.as_ptr(), 0) };
        if code == sqlite::SQLITE_OK { Ok(Arc::new(vfs)) } else { Err(VfsError::Register(code)) }
    }

    /// The name by which SQLite knows it.
    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }

    fn shared(&self) -> &Arc<Shared> {
        // SAFETY: lives until `Drop`.
        unsafe { self.data.as_ref() }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<PageStore> {
        &self.shared().store
    }

    /// Whether pages live in a file; then rollback journals are served here, else SQLite keeps them in memory.
    #[must_use]
    pub fn serves_journals(&self) -> bool {
        self.store().space().scratch().is_some()
    }

    /// Whether a callback has panicked; the node is to stop.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared().poisoned.load(Ordering::Acquire)
    }

    /// The view of the main database of this connection, if it goes through a VFS of this kind.
    ///
    /// # Safety
    /// `connection` is an open SQLite connection that nobody else uses meanwhile.
    #[must_use]
    pub unsafe fn view_of(connection: *mut sqlite::sqlite3) -> Option<Arc<View>> {
        let mut file: *mut sqlite::sqlite3_file = ptr::null_mut();
        // SAFETY: an open connection; for this operation the argument is a place for a file pointer.
        let code = unsafe {
            sqlite::sqlite3_file_control(
                connection,
                c"main".as_ptr(),
                sqlite::SQLITE_FCNTL_FILE_POINTER,
                (&raw mut file).cast(),
            )
        };
        if code != sqlite::SQLITE_OK {
            return None;
        }
        // SAFETY: SQLite gave its open file.
        unsafe { callbacks::view_of(file) }
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        let _serial = serial_guard(self.serial);
        // SAFETY: registered in `register`, or unknown to SQLite, which then does nothing.
        unsafe { sqlite::sqlite3_vfs_unregister(self.registered.as_ptr()) };
        // SAFETY: made by a box in `register`; no connection is open, since connections hold the `Vfs`.
        drop(unsafe { Box::from_raw(self.registered.as_ptr()) });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.data.as_ptr()) });
    }
}
