//! The functions that SQLite calls for a rollback journal, in disk mode.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::journal::Journal;
use super::shared::{Shared, guard};
use crate::types::config::PAGE_SIZE;
use crate::types::scratch::is_no_space;

/// What SQLite has room for: its own part first, then ours. No larger than a main database's.
#[repr(C)]
struct OpenJournal {
    base: sqlite::sqlite3_file,
    inner: *mut Inner,
}

struct Inner {
    journal: Journal,
    shared: Arc<Shared>,
}

static METHODS: sqlite::sqlite3_io_methods = sqlite::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Opens a journal that nothing is in.
///
/// # Safety
/// `file` has room for `szOsFile` bytes, its methods are null; `out_flags` is null or can be written.
pub(super) unsafe fn open(
    shared: &Arc<Shared>,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    guard(shared, || {
        let Some(journal) = shared.open_journal() else {
            return sqlite::SQLITE_CANTOPEN;
        };
        let inner = Box::into_raw(Box::new(Inner { journal, shared: Arc::clone(shared) }));
        // SAFETY: room for `szOsFile` bytes, aligned for pointers, by this function's contract.
        unsafe {
            file.cast::<OpenJournal>()
                .write(OpenJournal { base: sqlite::sqlite3_file { pMethods: &METHODS }, inner });
        }
        if !out_flags.is_null() {
            // SAFETY: by this function's contract.
            unsafe { *out_flags = flags };
        }
        sqlite::SQLITE_OK
    })
}

/// Runs `work` on the journal under the guard.
///
/// # Safety
/// `file` was opened by `open` above and is not closed; SQLite uses a file from one thread at a time.
unsafe fn with_journal(file: *mut sqlite::sqlite3_file, work: impl FnOnce(&mut Journal) -> c_int) -> c_int {
    // SAFETY: `open` made it an `OpenJournal`, by this function's contract.
    let inner = unsafe { (*file.cast::<OpenJournal>()).inner };
    // SAFETY: `open` put a box there that `close` has not taken; nobody else uses it meanwhile.
    let inner = unsafe { &mut *inner };
    let Inner { journal, shared } = inner;
    guard(shared, || work(journal))
}

fn written(result: io::Result<()>, failed: c_int) -> c_int {
    let Err(error) = result else { return sqlite::SQLITE_OK };
    tracing::warn!(%error, "a rollback journal cannot be written");
    if is_no_space(&error) { sqlite::SQLITE_FULL } else { failed }
}

unsafe extern "C" fn close(file: *mut sqlite::sqlite3_file) -> c_int {
    let open_file = file.cast::<OpenJournal>();
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
    let (Ok(length), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return sqlite::SQLITE_IOERR_READ;
    };
    // Zeroed first: what SQLite passes may be uninitialised memory.
    // SAFETY: SQLite passes a buffer of `amount` bytes.
    unsafe { ptr::write_bytes(buffer.cast::<u8>(), 0, length) };
    // SAFETY: `amount` initialised bytes that nobody else uses meanwhile.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let read = |journal: &mut Journal| match journal.read(buffer, offset) {
        Ok(count) if count == length => sqlite::SQLITE_OK,
        Ok(_) => sqlite::SQLITE_IOERR_SHORT_READ,
        Err(error) => {
            tracing::error!(%error, "a rollback journal cannot be read");
            sqlite::SQLITE_IOERR_READ
        }
    };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_journal(file, read) }
}

unsafe extern "C" fn write(
    file: *mut sqlite::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: sqlite::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return sqlite::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes `amount` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    let write = |journal: &mut Journal| written(journal.write(bytes, offset), sqlite::SQLITE_IOERR_WRITE);
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_journal(file, write) }
}

unsafe extern "C" fn truncate(file: *mut sqlite::sqlite3_file, size: sqlite::sqlite3_int64) -> c_int {
    let Ok(size) = u64::try_from(size) else {
        return sqlite::SQLITE_IOERR_TRUNCATE;
    };
    let truncate = |journal: &mut Journal| written(journal.truncate(size), sqlite::SQLITE_IOERR_TRUNCATE);
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_journal(file, truncate) }
}

unsafe extern "C" fn sync(_file: *mut sqlite::sqlite3_file, _flags: c_int) -> c_int {
    sqlite::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut sqlite::sqlite3_file, out: *mut sqlite::sqlite3_int64) -> c_int {
    let set = |journal: &mut Journal| {
        // SAFETY: SQLite passes a number to be set.
        unsafe { *out = i64::try_from(journal.len()).unwrap_or(i64::MAX) };
        sqlite::SQLITE_OK
    };
    // SAFETY: SQLite passes a file that `open` made.
    unsafe { with_journal(file, set) }
}

unsafe extern "C" fn lock(_file: *mut sqlite::sqlite3_file, _level: c_int) -> c_int {
    sqlite::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut sqlite::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes an int to be set.
    unsafe { *out = 0 };
    sqlite::SQLITE_OK
}

unsafe extern "C" fn file_control(
    _file: *mut sqlite::sqlite3_file,
    _operation: c_int,
    _argument: *mut c_void,
) -> c_int {
    sqlite::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut sqlite::sqlite3_file) -> c_int {
    PAGE_SIZE as c_int
}

unsafe extern "C" fn device_characteristics(_file: *mut sqlite::sqlite3_file) -> c_int {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_cannot_be_written_is_told_by_its_reason() {
        let failed = |number| written(Err(io::Error::from_raw_os_error(number)), sqlite::SQLITE_IOERR_WRITE);
        assert_eq!(failed(libc::ENOSPC), sqlite::SQLITE_FULL);
        assert_eq!(failed(libc::EIO), sqlite::SQLITE_IOERR_WRITE);
        assert_eq!(written(Ok(()), sqlite::SQLITE_IOERR_WRITE), sqlite::SQLITE_OK);
    }
}
