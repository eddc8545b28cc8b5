//! Registers a VFS with SQLite for one node and takes it away again.

use std::ffi::{CStr, CString, c_int};
use std::mem::size_of;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libsqlite3_sys as sqlite;

use super::callbacks::{self, OpenFile};
use super::file::VfsOptions;
use super::platform;
use super::shared::{PanicReport, Shared};
use super::threading::{serial_guard, sqlite_is_serial};
use super::view::View;
use crate::pages::PageStore;
use crate::types::config::DATABASE_NAME_MAX_BYTES;

/// SQLite wants room for 8 bytes after a name.
const PATH_MAX_BYTES: c_int = DATABASE_NAME_MAX_BYTES as c_int + 8;

/// The VFS names of a process differ, since SQLite has one list of them: `dqlite-1`, `dqlite-2`, ...
static NEXT_NAME: AtomicU64 = AtomicU64::new(1);

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

/// A VFS that is registered with SQLite until `unregister`. Connections hold it. One that is dropped without that stays known to
/// SQLite, with what SQLite needs of it, and opens nothing: a drop may run anywhere, also where SQLite must not be called.
pub struct Vfs {
    name: CString,
    store: Arc<PageStore>,
    /// Whether SQLite has no mutexes.
    serial: bool,
    registered: NonNull<sqlite::sqlite3_vfs>,
    data: NonNull<Arc<Shared>>,
    is_registered: AtomicBool,
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
    /// nobody else of the process is inside SQLite; so does `unregister`.
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
        let shared = Arc::new(Shared::new(Arc::downgrade(&store), options, platform, on_panic));
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
        // SAFETY: the VFS and its name live until it is unregistered, or for ever.
        let code = unsafe { sqlite::sqlite3_vfs_register(registered.as_ptr(), 0) };
        let is_registered = AtomicBool::new(code == sqlite::SQLITE_OK);
        let vfs = Vfs { name, store, serial, registered, data, is_registered };
        if code == sqlite::SQLITE_OK { Ok(Arc::new(vfs)) } else { Err(VfsError::Register(code)) }
    }

    /// Takes it from SQLite: nothing can be opened any more. The last of a node's stop, once.
    pub fn unregister(&self) {
        if self.is_registered.swap(false, Ordering::AcqRel) {
            let _serial = serial_guard(self.serial);
            // SAFETY: registered in `register`, and not unregistered before.
            unsafe { sqlite::sqlite3_vfs_unregister(self.registered.as_ptr()) };
        }
    }

    /// The name by which SQLite knows it.
    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }

    #[cfg(test)]
    fn shared(&self) -> &Arc<Shared> {
        // SAFETY: lives until `Drop`.
        unsafe { self.data.as_ref() }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<PageStore> {
        &self.store
    }

    /// Whether pages live in a file; then rollback journals are served here, else SQLite keeps them in memory.
    #[must_use]
    pub fn serves_journals(&self) -> bool {
        self.store().space().scratch().is_some()
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
        if *self.is_registered.get_mut() {
            // SQLite keeps a pointer to the name.
            std::mem::forget(std::mem::take(&mut self.name));
            return;
        }
        // SAFETY: made by a box in `register`; SQLite does not know it, and no connection is open, since connections hold the
        // `Vfs`.
        drop(unsafe { Box::from_raw(self.registered.as_ptr()) });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.data.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Mutex;

    use super::*;
    use crate::pages::PageSpace;
    use crate::pages::testing::FaultyDisk;

    fn is_known(name: &CStr) -> bool {
        // SAFETY: a C string.
        !unsafe { sqlite::sqlite3_vfs_find(name.as_ptr()) }.is_null()
    }

    #[test]
    fn the_first_panic_is_reported_and_nothing_is_opened_after_it() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        for (panic, text) in [
            (Box::new("a text") as Box<dyn Any + Send>, "a text"),
            (Box::new("a string".to_owned()), "a string"),
            (Box::new(5), "panic in a SQLite callback"),
        ] {
            let told = Arc::clone(&reports);
            let report = Box::new(move |text: &str| told.lock().unwrap().push(text.to_owned()));
            let vfs = Vfs::register(PageStore::new(), VfsOptions::default(), report).unwrap();
            assert!(vfs.shared().open(b"test").is_some());

            vfs.shared().report(panic.as_ref());
            vfs.shared().report(&"another");

            assert_eq!(std::mem::take(&mut *reports.lock().unwrap()), [text]);
            assert!(vfs.shared().open(b"test").is_none());
            vfs.unregister();
        }
    }

    #[test]
    fn what_sqlite_knows_lives_until_it_is_unregistered_and_dropped() {
        let register = || Vfs::register(PageStore::new(), VfsOptions::default(), Box::new(|_| ())).unwrap();
        let vfs = register();
        let (name, shared) = (vfs.name().to_owned(), Arc::downgrade(vfs.shared()));
        assert!(is_known(&name));
        vfs.unregister();
        assert!(!is_known(&name) && shared.upgrade().is_some());
        drop(vfs);
        assert!(shared.upgrade().is_none());

        let vfs = register();
        let (name, shared) = (vfs.name().to_owned(), Arc::downgrade(vfs.shared()));
        drop(vfs);
        assert!(is_known(&name));
        assert!(shared.upgrade().unwrap().open(b"test").is_none(), "its store has gone");
    }

    #[test]
    fn journals_are_served_where_pages_live_in_a_file() {
        for (space, serves) in [
            (PageSpace::memory(), false),
            (PageSpace::on_disk(Arc::new(FaultyDisk::default()), 0).unwrap(), true),
        ] {
            let store = PageStore::in_space(space);
            let vfs = Vfs::register(store, VfsOptions::default(), Box::new(|_| ())).unwrap();
            assert_eq!((vfs.serves_journals(), vfs.shared().open_journal().is_some()), (serves, serves));
            vfs.unregister();
        }
    }
}
