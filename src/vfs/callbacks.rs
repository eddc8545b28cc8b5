//! The functions that SQLite calls for a VFS and its main databases, each under the guard.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::file::{File, page_at};
use super::journal_callbacks;
use super::shared::{Shared, guard, shared_of};
use super::view::View;
use crate::types::config::PAGE_SIZE;
use crate::types::pause;

/// What SQLite has room for: its own part first, then ours.
#[repr(C)]
pub(super) struct OpenFile {
    base: sqlite::sqlite3_file,
    inner: *mut Inner,
}

struct Inner {
    file: File,
    shared: Arc<Shared>,
}

static METHODS: sqlite::sqlite3_io_methods = sqlite::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// Runs `work` on the file under the guard.
///
/// # Safety
/// `file` was opened by `open` below and is not closed; SQLite uses a file from one thread at a time.
unsafe fn with_file(file: *mut sqlite::sqlite3_file, work: impl FnOnce(&mut File) -> c_int) -> c_int {
    // SAFETY: `open` made it an `OpenFile`, by this function's contract.
    let inner = unsafe { (*file.cast::<OpenFile>()).inner };
    // SAFETY: `open` put a box there that `close` has not taken; nobody else uses it meanwhile.
    let inner = unsafe { &mut *inner };
    let Inner { file, shared } = inner;
    guard(shared, || work(file))
}

/// The view of the open main database, if `file` is one of ours.
///
/// # Safety
/// `file` is null or an open file of SQLite, used by nobody else meanwhile.
pub(super) unsafe fn view_of(file: *mut sqlite::sqlite3_file) -> Option<Arc<View>> {
    // SAFETY: null or an open file, by this function's contract.
    let methods = unsafe { file.as_ref() }?.pMethods;
    if !ptr::eq(methods, &METHODS) {
        return None;
    }
    // SAFETY: our methods, so `open` made it an `OpenFile`.
    let inner = unsafe { (*file.cast::<OpenFile>()).inner };
    // SAFETY: the box is there until `close`.
    let inner = unsafe { &*inner };
    Some(Arc::clone(inner.file.view()))
}

pub(super) unsafe extern "C" fn open(
    vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` made.
    let shared = unsafe { shared_of(vfs) };
    // SAFETY: SQLite passes room for `szOsFile` bytes; no methods means that there is nothing to close.
    unsafe { (*file).pMethods = ptr::null() };
    if flags & sqlite::SQLITE_OPEN_MAIN_JOURNAL != 0 && !name.is_null() {
        // SAFETY: SQLite passes room for `szOsFile` bytes, and a place for flags or null.
        return unsafe { journal_callbacks::open(shared, file, flags, out_flags) };
    }
    if flags & sqlite::SQLITE_OPEN_MAIN_DB == 0 {
        if !name.is_null() {
            return sqlite::SQLITE_CANTOPEN;
        }
        // SAFETY: the platform's VFS is registered for the life of the process.
        let Some(platform_open) = (unsafe { (*shared.platform()).xOpen }) else {
            return sqlite::SQLITE_CANTOPEN;
        };
        // SAFETY: `szOsFile` is at least what the platform's VFS asked for.
        return unsafe { platform_open(shared.platform(), name, file, flags, out_flags) };
    }
    if name.is_null() {
        return sqlite::SQLITE_CANTOPEN;
    }
    // SAFETY: a C string, by SQLite's contract.
    let name = unsafe { CStr::from_ptr(name) };
    guard(shared, || {
        let Some(opened) = shared.open(name.to_bytes()) else {
            return sqlite::SQLITE_CANTOPEN;
        };
        let inner = Box::into_raw(Box::new(Inner { file: opened, shared: Arc::clone(shared) }));
        // SAFETY: SQLite passes room for `szOsFile` bytes, aligned for pointers.
        unsafe {
            file.cast::<OpenFile>()
                .write(OpenFile { base: sqlite::sqlite3_file { pMethods: &METHODS }, inner });
        }
        if !out_flags.is_null() {
            // SAFETY: not null, an int to be set, by SQLite's contract.
            unsafe { *out_flags = flags };
        }
        sqlite::SQLITE_OK
    })
}

pub(super) unsafe extern "C" fn delete(
    _vfs: *mut sqlite::sqlite3_vfs,
    _name: *const c_char,
    _sync: c_int,
) -> c_int {
    sqlite::SQLITE_IOERR_DELETE_NOENT
}

pub(super) unsafe extern "C" fn access(
    _vfs: *mut sqlite::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // There are no journals; a main database is made by opening it.
    // SAFETY: SQLite passes an int to be set.
    unsafe { *out = 0 };
    sqlite::SQLITE_OK
}

pub(super) unsafe extern "C" fn full_pathname(
    _vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    out_bytes: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a C string, by SQLite's contract.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(out_bytes).is_ok_and(|room| bytes.len() <= room) {
        // SAFETY: `out` has `out_bytes` bytes, at least as many as are copied; SQLite's buffers do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
        return sqlite::SQLITE_OK;
    }
    sqlite::SQLITE_CANTOPEN
}

unsafe extern "C" fn close(file: *mut sqlite::sqlite3_file) -> c_int {
    let open_file = file.cast::<OpenFile>();
    // SAFETY: SQLite closes a file that `open` made, once.
    let inner = unsafe { (*open_file).inner };
    // SAFETY: the box that `open` put there.
    let inner = unsafe { Box::from_raw(inner) };
    // SAFETY: as above; nobody uses the file from here on.
    unsafe { (*open_file).base.pMethods = ptr::null() };
    let shared = Arc::clone(&inner.shared);
    guard(&shared, || {
        drop(inner);
        sqlite::SQLITE_OK
    })
}

unsafe extern "C" fn read(
    file: *mut sqlite::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: sqlite::sqlite3_int64,
) -> c_int {
    let Ok(length) = usize::try_from(amount) else {
        return sqlite::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite passes a buffer of `amount` bytes, initialised or not, that nobody else uses meanwhile.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), length) };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, |file| file.read(buffer, offset)) }
}

unsafe extern "C" fn write(
    file: *mut sqlite::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: sqlite::sqlite3_int64,
) -> c_int {
    let Ok(length) = usize::try_from(amount) else {
        return sqlite::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes `amount` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, |file| file.write(bytes, offset)) }
}

unsafe extern "C" fn truncate(file: *mut sqlite::sqlite3_file, size: sqlite::sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, |file| file.truncate(size)) }
}

unsafe extern "C" fn sync(_file: *mut sqlite::sqlite3_file, _flags: c_int) -> c_int {
    sqlite::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut sqlite::sqlite3_file, out: *mut sqlite::sqlite3_int64) -> c_int {
    let set = |file: &mut File| {
        // SAFETY: SQLite passes a number to be set.
        unsafe { *out = file.size_bytes() };
        sqlite::SQLITE_OK
    };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, set) }
}

unsafe extern "C" fn lock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    // Not where pages are read: whether SQLite asks for a copy depends on addresses, and a simulation must not.
    pause::point();
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, |file| file.lock(level)) }
}

unsafe extern "C" fn unlock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    pause::point();
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, |file| file.unlock(level)) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite::sqlite3_file, out: *mut c_int) -> c_int {
    let set = |file: &mut File| {
        // SAFETY: SQLite passes an int to be set.
        unsafe { *out = c_int::from(file.is_reserved()) };
        sqlite::SQLITE_OK
    };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_file(file, set) }
}

unsafe extern "C" fn file_control(
    file: *mut sqlite::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pause::point();
    match operation {
        // SAFETY: SQLite passes a file that `open` made.
        sqlite::SQLITE_FCNTL_COMMIT_PHASETWO => unsafe { with_file(file, File::commit) },
        // SAFETY: for this operation SQLite passes the texts of the PRAGMA.
        sqlite::SQLITE_FCNTL_PRAGMA => unsafe { pragma(file, argument.cast()) },
        _ => sqlite::SQLITE_NOTFOUND,
    }
}

/// # Safety
/// `file` as for `with_file`; `texts` has three places: the answer to be set, the name, the value or null.
unsafe fn pragma(file: *mut sqlite::sqlite3_file, texts: *mut *mut c_char) -> c_int {
    // SAFETY: the second place is the name, a C string.
    let name = unsafe { CStr::from_ptr(*texts.add(1)) }.to_bytes();
    // SAFETY: the third place is the value or null.
    let has_value = !unsafe { *texts.add(2) }.is_null();
    if name.eq_ignore_ascii_case(b"journal_mode") && !has_value {
        // SAFETY: the first place is to be set.
        unsafe { answer(texts, c"wal") };
        return sqlite::SQLITE_OK;
    }
    if !name.eq_ignore_ascii_case(b"delete_database") {
        return sqlite::SQLITE_NOTFOUND;
    }
    let delete = |file: &mut File| match file.delete_database() {
        Ok(()) => sqlite::SQLITE_OK,
        Err(refused) => {
            // SAFETY: the first place is to be set.
            unsafe { answer(texts, refused.text) };
            refused.code
        }
    };
    // SAFETY: a file that `open` made, by this function's contract.
    unsafe { with_file(file, delete) }
}

/// # Safety
/// `place` can be written.
unsafe fn answer(place: *mut *mut c_char, text: &CStr) {
    // SAFETY: the format takes one C string.
    let copy = unsafe { sqlite::sqlite3_mprintf(c"%s".as_ptr(), text.as_ptr()) };
    // SAFETY: by this function's contract; SQLite frees the text.
    unsafe { *place = copy };
}

unsafe extern "C" fn sector_size(_file: *mut sqlite::sqlite3_file) -> c_int {
    PAGE_SIZE as c_int
}

unsafe extern "C" fn device_characteristics(_file: *mut sqlite::sqlite3_file) -> c_int {
    sqlite::SQLITE_IOCAP_SAFE_APPEND
        | sqlite::SQLITE_IOCAP_SEQUENTIAL
        | sqlite::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn fetch(
    file: *mut sqlite::sqlite3_file,
    offset: sqlite::sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes a pointer to be set.
    unsafe { *out = ptr::null_mut() };
    let Some(number) = page_at(offset).filter(|_| usize::try_from(amount) == Ok(PAGE_SIZE)) else {
        return sqlite::SQLITE_OK;
    };
    let mut page = None;
    // SAFETY: SQLite passes a file that `open` made.
    let code = unsafe {
        with_file(file, |file| {
            page = file.fetch(number);
            sqlite::SQLITE_OK
        })
    };
    if let Some(page) = page {
        // SQLite does not write to pages that it fetched.
        // SAFETY: SQLite passes a pointer to be set.
        unsafe { *out = page.cast_mut().cast() };
    }
    code
}

unsafe extern "C" fn unfetch(
    file: *mut sqlite::sqlite3_file,
    _offset: sqlite::sqlite3_int64,
    page: *mut c_void,
) -> c_int {
    if page.is_null() {
        // All mappings are to be forgotten: there are none.
        return sqlite::SQLITE_OK;
    }
    // SAFETY: SQLite passes a file that `open` made.
    unsafe {
        with_file(file, |file| {
            file.unfetch();
            sqlite::SQLITE_OK
        })
    }
}
