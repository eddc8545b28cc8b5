//! The methods that the host's default VFS serves: each is called with the host's own object, since that VFS may be a shim
//! that finds its state there.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use libsqlite3_sys as sqlite;

use super::shared::shared_of;

type Symbol = unsafe extern "C" fn(*mut sqlite::sqlite3_vfs, *mut c_void, *const c_char);

/// A VFS that has those methods which `platform` has, without a name, state or files. Its version is at most 2: what came
/// later, setting system calls, is for tests of the platform's VFS itself.
///
/// # Safety
/// `platform` is a registered VFS.
pub(super) unsafe fn forwarding(platform: NonNull<sqlite::sqlite3_vfs>) -> sqlite::sqlite3_vfs {
    // SAFETY: registered, by this function's contract. Fields beyond those of its version are not looked at.
    let version = unsafe { (*platform.as_ptr()).iVersion };
    // SAFETY: as above: a VFS of this version has the field.
    let has_time_int64 = version >= 2 && unsafe { (*platform.as_ptr()).xCurrentTimeInt64 }.is_some();
    // SAFETY: as above; these fields are there in every version.
    let has = |field: fn(&sqlite::sqlite3_vfs) -> bool| field(unsafe { platform.as_ref() });
    sqlite::sqlite3_vfs {
        iVersion: version.min(2),
        szOsFile: 0,
        mxPathname: 0,
        pNext: ptr::null_mut(),
        zName: ptr::null(),
        pAppData: ptr::null_mut(),
        xOpen: None,
        xDelete: None,
        xAccess: None,
        xFullPathname: None,
        xDlOpen: has(|vfs| vfs.xDlOpen.is_some()).then_some(dl_open),
        xDlError: has(|vfs| vfs.xDlError.is_some()).then_some(dl_error),
        xDlSym: has(|vfs| vfs.xDlSym.is_some()).then_some(dl_sym),
        xDlClose: has(|vfs| vfs.xDlClose.is_some()).then_some(dl_close),
        xRandomness: has(|vfs| vfs.xRandomness.is_some()).then_some(randomness),
        xSleep: has(|vfs| vfs.xSleep.is_some()).then_some(sleep),
        xCurrentTime: has(|vfs| vfs.xCurrentTime.is_some()).then_some(current_time),
        xGetLastError: has(|vfs| vfs.xGetLastError.is_some()).then_some(get_last_error),
        xCurrentTimeInt64: has_time_int64.then_some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The host's VFS behind one of ours.
///
/// # Safety
/// `vfs` is a VFS made by `register`, registered or with open files.
unsafe fn behind(vfs: *mut sqlite::sqlite3_vfs) -> *mut sqlite::sqlite3_vfs {
    // SAFETY: by this function's contract.
    unsafe { shared_of(vfs) }.platform()
}

unsafe extern "C" fn dl_open(vfs: *mut sqlite::sqlite3_vfs, file: *const c_char) -> *mut c_void {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: the host's VFS is registered for the life of the process; the rest is SQLite's, passed on.
    unsafe { (*host).xDlOpen.map_or(ptr::null_mut(), |method| method(host, file)) }
}

unsafe extern "C" fn dl_error(vfs: *mut sqlite::sqlite3_vfs, room: c_int, text: *mut c_char) {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    if let Some(method) = unsafe { (*host).xDlError } {
        // SAFETY: as in `dl_open`.
        unsafe { method(host, room, text) };
    }
}

unsafe extern "C" fn dl_sym(
    vfs: *mut sqlite::sqlite3_vfs,
    library: *mut c_void,
    symbol: *const c_char,
) -> Option<Symbol> {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    unsafe { (*host).xDlSym.and_then(|method| method(host, library, symbol)) }
}

unsafe extern "C" fn dl_close(vfs: *mut sqlite::sqlite3_vfs, library: *mut c_void) {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    if let Some(method) = unsafe { (*host).xDlClose } {
        // SAFETY: as in `dl_open`.
        unsafe { method(host, library) };
    }
}

unsafe extern "C" fn randomness(vfs: *mut sqlite::sqlite3_vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    unsafe { (*host).xRandomness.map_or(0, |method| method(host, room, out)) }
}

unsafe extern "C" fn sleep(vfs: *mut sqlite::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    unsafe { (*host).xSleep.map_or(0, |method| method(host, microseconds)) }
}

unsafe extern "C" fn current_time(vfs: *mut sqlite::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    unsafe { (*host).xCurrentTime.map_or(sqlite::SQLITE_ERROR, |method| method(host, out)) }
}

unsafe extern "C" fn get_last_error(vfs: *mut sqlite::sqlite3_vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`.
    unsafe { (*host).xGetLastError.map_or(0, |method| method(host, room, out)) }
}

unsafe extern "C" fn current_time_int64(
    vfs: *mut sqlite::sqlite3_vfs,
    out: *mut sqlite::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let host = unsafe { behind(vfs) };
    // SAFETY: as in `dl_open`; only a VFS that has this method has this function before it.
    unsafe { (*host).xCurrentTimeInt64.map_or(sqlite::SQLITE_ERROR, |method| method(host, out)) }
}
