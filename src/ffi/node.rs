//! The life of a node. spec: c-api 3.1-3.3, 3.6, 3.8, 3.9.

use std::ffi::{OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::version::dqlite_node_id;
use super::{DQLITE_ERROR, DQLITE_MISUSE, bytes, call, destroy, dqlite_node};
use crate::host::panics;
use crate::host::threads::uncancelled;
use crate::node::handle::{CallError, NodeHandle};
use crate::node::options::DQLITE_OK;
use crate::types::NodeId;

/// Makes a node with an id (1 for the first of a cluster), the address that others dial, and an existing directory for its data.
///
/// After a failure `*n` is a node too, whose `dqlite_node_errmsg` tells why and which has to be destroyed.
///
/// # Safety
/// The strings are null or C strings; `n` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_create(
    id: dqlite_node_id,
    address: *const c_char,
    data_dir: *const c_char,
    n: *mut *mut dqlite_node,
) -> c_int {
    if n.is_null() {
        return DQLITE_MISUSE;
    }
    // SAFETY: null or a C string, by this function's contract.
    let address = unsafe { bytes(address) };
    // SAFETY: null or a C string, by this function's contract.
    let data_dir = unsafe { bytes(data_dir) };
    let (node, code) = match (address, data_dir) {
        (Some(address), Some(data_dir)) => create(NodeId(id), address, data_dir),
        _ => (std::ptr::null_mut(), DQLITE_MISUSE),
    };
    // SAFETY: not null, checked above; a place for a pointer, by this function's contract.
    unsafe { n.write(node) };
    code
}

fn create(id: NodeId, address: &[u8], data_dir: &[u8]) -> (*mut dqlite_node, c_int) {
    let directory = PathBuf::from(OsStr::from_bytes(data_dir));
    panics::install();
    let create = || NodeHandle::create(id, address.to_vec(), directory);
    let made = uncancelled(|| panics::caught(create));
    let Ok((handle, result)) = made else {
        return (std::ptr::null_mut(), DQLITE_ERROR);
    };
    let code = result.map_or_else(CallError::code, |()| DQLITE_OK);
    (Box::into_raw(Box::new(dqlite_node { handle })), code)
}

/// Frees a node, one whose creation failed too; stops it first if it runs. Null is allowed.
///
/// # Safety
/// `n` is null or a live node from `dqlite_node_create`, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_destroy(n: *mut dqlite_node) {
    // SAFETY: null, or made by `Box::into_raw` and not used again, by this function's contract.
    unsafe { destroy(n, |node| node.handle.finish()) };
}

/// Binds the address that clients and other nodes connect to: `IP`, `IPv4:PORT`, `[IPv6]:PORT`, `@NAME`, or `@` for any free name.
///
/// # Safety
/// `n` is null or a live node; `address` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_bind_address(n: *mut dqlite_node, address: *const c_char) -> c_int {
    // SAFETY: null or a C string, by this function's contract.
    let address = unsafe { bytes(address) };
    let set = |handle: &NodeHandle| match address {
        Some(address) => handle.set_bind_address(address),
        None => handle.refuse("a null pointer in place of an address"),
    };
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// The bound address, null before one is set; of `@` with the name that was found.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_get_bind_address(n: *mut dqlite_node) -> *const c_char {
    // SAFETY: null or live, by this function's contract.
    let Some(node) = (unsafe { n.as_ref() }) else {
        return std::ptr::null();
    };
    node.handle.bind_address()
}

/// Starts the node and returns when it serves clients; its directory is in use until it is stopped.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_start(n: *mut dqlite_node) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, NodeHandle::start) }
}

/// Closes all connections and stops the node, which cannot be started again. Returns when nothing of it runs any more, or fails.
///
/// Leadership, log and directory are given up within seconds, whoever is inside SQLite or the host's connect function. These are
/// waited for; if one does not return in time, `dqlite_node_errmsg` says so. Refused in a function that the node itself calls.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_stop(n: *mut dqlite_node) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, NodeHandle::stop) }
}

/// Gives leadership and vote to other nodes, as is good before a stop; fails if there are none, which does no harm.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_handover(n: *mut dqlite_node) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, NodeHandle::handover) }
}

/// Why the last call failed, empty if it did not; of a node that has stopped by itself since, why. Never null.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_errmsg(n: *mut dqlite_node) -> *const c_char {
    // SAFETY: null or live, by this function's contract.
    let Some(node) = (unsafe { n.as_ref() }) else {
        return c"node is NULL".as_ptr();
    };
    let text = catch_unwind(AssertUnwindSafe(|| node.handle.error_text().as_ptr()));
    text.map_or_else(|_| c"internal error".as_ptr(), <*const u8>::cast)
}
