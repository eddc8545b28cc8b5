//! The host's default VFS is a shim that finds its state in its own `pAppData`, as vfstrace and multiplex do, and has no more
//! than the first version's methods where it is asked for the time. A program of its own, since the default is the process's.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dqlite::executor::sqlite::{Connection, Inside, Step, Value};
use dqlite::pages::PageStore;
use dqlite::vfs::{Vfs, VfsOptions};
use libsqlite3_sys as sqlite;

/// What a shim keeps: the VFS below it, how often it was asked.
struct State {
    real: *mut sqlite::sqlite3_vfs,
    opened: AtomicUsize,
    asked_for_the_time: AtomicUsize,
    libraries: AtomicUsize,
}

/// # Safety
/// `vfs` is the shim.
unsafe fn state<'a>(vfs: *mut sqlite::sqlite3_vfs) -> &'a State {
    // SAFETY: the shim, by this function's contract.
    unsafe { &*(*vfs).pAppData.cast::<State>() }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's arguments, passed on to the VFS below.
    unsafe {
        state(vfs).opened.fetch_add(1, Ordering::Relaxed);
        let real = state(vfs).real;
        (*real).xOpen.unwrap()(real, name, file, flags, out)
    }
}

unsafe extern "C" fn now(vfs: *mut sqlite::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: as above.
    unsafe {
        state(vfs).asked_for_the_time.fetch_add(1, Ordering::Relaxed);
        let real = state(vfs).real;
        (*real).xCurrentTime.unwrap()(real, out)
    }
}

unsafe extern "C" fn now_int64(vfs: *mut sqlite::sqlite3_vfs, out: *mut sqlite::sqlite3_int64) -> c_int {
    // SAFETY: as above.
    unsafe {
        state(vfs).asked_for_the_time.fetch_add(1, Ordering::Relaxed);
        let real = state(vfs).real;
        (*real).xCurrentTimeInt64.unwrap()(real, out)
    }
}

unsafe extern "C" fn dl_open(vfs: *mut sqlite::sqlite3_vfs, _file: *const c_char) -> *mut c_void {
    // SAFETY: SQLite passes the shim.
    unsafe { state(vfs) }.libraries.fetch_add(1, Ordering::Relaxed);
    ptr::null_mut()
}

/// Makes a shim of this version the default.
fn register_shim(version: c_int) -> &'static State {
    // SAFETY: null asks for the default VFS.
    let real = unsafe { sqlite::sqlite3_vfs_find(ptr::null()) };
    let state: &State = Box::leak(Box::new(State {
        real,
        opened: AtomicUsize::new(0),
        asked_for_the_time: AtomicUsize::new(0),
        libraries: AtomicUsize::new(0),
    }));
    // SAFETY: a registered VFS, whose fields may be copied.
    let mut shim = unsafe { ptr::read(real) };
    shim.iVersion = version;
    shim.pNext = ptr::null_mut();
    shim.zName = if version == 1 { c"shim-1".as_ptr() } else { c"shim-3".as_ptr() };
    shim.pAppData = ptr::from_ref(state).cast_mut().cast();
    shim.xOpen = Some(open);
    shim.xDlOpen = Some(dl_open);
    shim.xCurrentTime = Some(now);
    shim.xCurrentTimeInt64 = Some(now_int64);
    // SAFETY: the shim lives as long as the process.
    assert_eq!(unsafe { sqlite::sqlite3_vfs_register(Box::leak(Box::new(shim)), 1) }, 0);
    state
}

#[test]
fn methods_of_a_shim_are_called_with_the_shim() {
    // SAFETY: takes nothing.
    assert_eq!(unsafe { sqlite::sqlite3_initialize() }, 0);
    for version in [1, 3] {
        let state = register_shim(version);
        let report = Box::new(|text: &str| panic!("{text}"));
        let vfs = Vfs::register(PageStore::new(), VfsOptions::default(), report).unwrap();
        let connection = Connection::open(&mut Inside::alone(), &vfs, b"test").unwrap();

        let sql = b"SELECT datetime('now') > '2020', length(hex(randomblob(8)))";
        let mut statement = connection.prepare(&mut Inside::alone(), sql).unwrap().0.unwrap();
        assert_eq!(statement.step(&mut Inside::alone()).unwrap(), Step::Row);
        assert_eq!(
            (statement.value(&Inside::alone(), 0), statement.value(&Inside::alone(), 1)),
            (Value::Integer(1), Value::Integer(16))
        );
        assert_eq!(state.asked_for_the_time.load(Ordering::Relaxed), 1);

        // A file without a name: temporary tables beyond the cache.
        let fill = b"PRAGMA temp_store = FILE; PRAGMA temp.cache_size = 10; CREATE TEMP TABLE t(b);
            WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT zeroblob(1000) FROM n";
        connection.execute(&mut Inside::alone(), fill).unwrap();
        assert!(state.opened.load(Ordering::Relaxed) > 0);

        statement.finalize(&mut Inside::alone());
        connection.close(&mut Inside::alone()).unwrap();
        assert_eq!(Arc::strong_count(&vfs), 1);
        // A host's hook may load a library into a connection of the node; here it is told that there is none.
        // SAFETY: a registered VFS that has this method.
        unsafe {
            let ours = sqlite::sqlite3_vfs_find(vfs.name().as_ptr());
            assert!((*ours).xDlOpen.unwrap()(ours, c"none".as_ptr()).is_null());
        }
        assert_eq!(state.libraries.load(Ordering::Relaxed), 1);
    }
}
