//! Functions that upstream had until 1.18.1 for its own tests. They exist so that a program linked against them loads; they fail.
//! spec: c-api 1.1. The header does not declare them.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

use super::DQLITE_ERROR;

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_init(_vfs: *mut c_void, _name: *const c_char) -> c_int {
    DQLITE_ERROR
}

/// Does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_close(_vfs: *mut c_void) {}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_poll(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _frames: *mut *mut c_void,
    _n: *mut c_uint,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_apply(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _n: c_uint,
    _page_numbers: *mut c_ulong,
    _frames: *mut c_void,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_abort(_vfs: *mut c_void, _filename: *const c_char) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_snapshot(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _data: *mut *mut c_void,
    _n: *mut usize,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_restore(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _data: *const c_void,
    _n: usize,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_shallow_snapshot(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _bufs: *mut c_void,
    _n: c_uint,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_num_pages(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _n: *mut c_uint,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_enable_disk(_vfs: *mut c_void) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_snapshot_disk(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _bufs: *mut c_void,
    _n: c_uint,
) -> c_int {
    DQLITE_ERROR
}

/// Fails.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_vfs_restore_disk(
    _vfs: *mut c_void,
    _filename: *const c_char,
    _data: *const c_void,
    _main_size: usize,
    _wal_size: usize,
) -> c_int {
    DQLITE_ERROR
}
