//! The exported C functions: handles, strings, codes, panic guard; no logic.
//! The first line of each function's description goes into include/dqlite.h.

#![allow(unsafe_code, non_camel_case_types)]

pub mod version;

pub mod node;

pub mod connect;

pub mod settings;

pub mod recover;

pub mod server;
pub mod vfs;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::threads::uncancelled;
use crate::node::handle::{CallError, NodeHandle};
use crate::node::keeper::Ending;
use crate::node::options::DQLITE_OK;

pub use crate::node::options::{DQLITE_ERROR, DQLITE_MISUSE};

/// A node.
pub struct dqlite_node {
    handle: NodeHandle,
}

/// Runs a call on a node and gives its code.
///
/// # Safety
/// `n` is null or a live node from `dqlite_node_create`.
unsafe fn call(n: *const dqlite_node, run: impl FnOnce(&NodeHandle) -> Result<(), CallError>) -> c_int {
    // SAFETY: null or live, by this function's contract.
    let Some(node) = (unsafe { n.as_ref() }) else {
        return DQLITE_MISUSE;
    };
    uncancelled(|| run(&node.handle)).map_or_else(CallError::code, |()| DQLITE_OK)
}

/// Ends what C holds, and frees it unless something of it stays.
///
/// # Safety
/// `held` is null, or was made by `Box::into_raw` and is not used again.
unsafe fn destroy<T>(held: *mut T, finish: impl FnOnce(&T) -> Ending) {
    // SAFETY: null or live, by this function's contract.
    let Some(ending) = (unsafe { held.as_ref() }) else { return };
    // What panics while it ends has been reported where it happened; nothing may reach C.
    uncancelled(|| {
        if let Ok(Ending::Free) = catch_unwind(AssertUnwindSafe(|| finish(ending))) {
            // SAFETY: made by `Box::into_raw` and not used again, by this function's contract.
            let held = unsafe { Box::from_raw(held) };
            let _ = catch_unwind(AssertUnwindSafe(|| drop(held)));
        }
    });
}

/// The bytes of a C string; none of a null pointer.
///
/// # Safety
/// `text` is null or a NUL-terminated string that outlives the result.
unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, NUL-terminated and living long enough, by this function's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}
