//! Version and ids: what needs no node.

use std::ffi::{c_char, c_int, c_ulonglong};
use std::panic::catch_unwind;
use std::sync::atomic::AtomicPtr;

use super::bytes;
use crate::node::node_id;
use crate::types::clock::SystemWallClock;

/// What `DQLITE_VERSION_NUMBER` of the header is.
const VERSION_NUMBER: c_int = 11807;

/// Id of a node.
pub type dqlite_node_id = c_ulonglong;

/// `const char *`, in writable data so that programs may copy it. spec: c-api 1.2.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static dqlite_version_string: AtomicPtr<c_char> = AtomicPtr::new(c"1.18.7@".as_ptr().cast_mut());

/// Version of the library as one number; `DQLITE_VERSION_NUMBER` is the header's.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_version_number() -> c_int {
    VERSION_NUMBER
}

/// A new id for a node that others will dial at `address`; another one with every call, 0 without an address.
///
/// # Safety
/// `address` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_generate_node_id(address: *const c_char) -> dqlite_node_id {
    // SAFETY: null or a C string, by this function's contract.
    let Some(address) = (unsafe { bytes(address) }) else {
        return 0;
    };
    catch_unwind(|| node_id::generate(address, &SystemWallClock).0).unwrap_or(0)
}
