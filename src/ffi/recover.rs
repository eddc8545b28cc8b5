//! A new configuration behind the log, and where the log ends. spec: c-api 3.10.

use std::ffi::{c_char, c_int};

use super::version::dqlite_node_id;
use super::{bytes, call, dqlite_node};
use crate::node::handle::{CallError, NodeHandle};
use crate::types::{NodeId, Role, Server};

/// Bytes of `dqlite_node_info_ext` that have a meaning: its four words.
const INFO_EXT_BYTES: u64 = 32;
/// Largest announced size in bytes that is looked at; no caller's struct comes near it.
const INFO_EXT_MAX_BYTES: u64 = 4096;

/// A node of the cluster.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dqlite_node_info {
    /// Id.
    pub id: dqlite_node_id,
    /// What others dial.
    pub address: *const c_char,
}

/// A node of the cluster with its role; the same on all machines.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dqlite_node_info_ext {
    /// Bytes of this struct; what lies behind its four words is zero.
    pub size: u64,
    /// Id.
    pub id: u64,
    /// Pointer to what others dial.
    pub address: u64,
    /// 0 voter, 1 stand-by, 2 spare.
    pub dqlite_role: u64,
}

/// Makes `infos` the cluster's members, all voters, by an entry behind the log. Deprecated: use `..._ext`.
///
/// # Safety
/// `n` is null or a live node; `infos` is null or an array of `n_info` with C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover(
    n: *mut dqlite_node,
    infos: *mut dqlite_node_info,
    n_info: c_int,
) -> c_int {
    // SAFETY: an element of the array, and null or a C string, by this function's contract.
    let server = |position| unsafe {
        let info = infos.add(position).read();
        let address = bytes(info.address)?.to_vec();
        Some(Server { id: NodeId(info.id), address, role: Role::Voter })
    };
    let servers = servers(infos.is_null(), n_info, server);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| recover(handle, servers)) }
}

/// Makes `infos` the cluster's members by an entry behind the log. The node does not run, nor any other on its directory.
///
/// # Safety
/// `n` is null or a live node; `infos` is null or an array of `n_info`, each as large as it says, with C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover_ext(
    n: *mut dqlite_node,
    infos: *mut dqlite_node_info_ext,
    n_info: c_int,
) -> c_int {
    // SAFETY: an element of the array, by this function's contract.
    let servers = servers(infos.is_null(), n_info, |position| unsafe { server(infos.add(position)) });
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| recover(handle, servers)) }
}

/// The servers of an array, or what is wrong with it.
fn servers(
    is_null: bool,
    count: c_int,
    server: impl Fn(usize) -> Option<Server>,
) -> Result<Vec<Server>, String> {
    let count = usize::try_from(count).unwrap_or(0);
    if is_null && count > 0 {
        return Err(format!("a null pointer in place of {count} servers"));
    }
    let known = (0..count).map(|position| {
        server(position).ok_or_else(|| {
            format!(
                "server {position} of {count} has no address, a size that is none, or something unknown in it"
            )
        })
    });
    known.collect()
}

fn recover(handle: &NodeHandle, servers: Result<Vec<Server>, String>) -> Result<(), CallError> {
    match servers {
        Ok(servers) => handle.recover(servers),
        Err(text) => handle.refuse(&text),
    }
}

/// The server that `info` describes, if its size is one and nothing unknown is in it.
///
/// # Safety
/// `info` is as large as it says, with a C string.
unsafe fn server(info: *const dqlite_node_info_ext) -> Option<Server> {
    // SAFETY: the first four words are there, by this function's contract.
    let known = unsafe { info.read() };
    if known.size < INFO_EXT_BYTES || !known.size.is_multiple_of(8) || known.size > INFO_EXT_MAX_BYTES {
        return None;
    }
    for word in (INFO_EXT_BYTES / 8)..(known.size / 8) {
        // SAFETY: inside the announced size, by this function's contract.
        if unsafe { info.cast::<u64>().add(word as usize).read() } != 0 {
            return None;
        }
    }
    // The pointer travels as a number (spec: c-api 3.10).
    let address = std::ptr::with_exposed_provenance::<c_char>(usize::try_from(known.address).ok()?);
    // SAFETY: null or a C string, by this function's contract.
    let address = unsafe { bytes(address) }?.to_vec();
    // compat: any other number is a stand-by, 1.18.6.
    let role = Role::from_client_number(known.dqlite_role).unwrap_or(Role::StandBy);
    Some(Server { id: NodeId(known.id), address, role })
}

/// Gives index and term of the last log entry of a node that does not run; 0 and 0 if there is none.
///
/// # Safety
/// `n` is null or a live node; the places are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_describe_last_entry(
    n: *mut dqlite_node,
    last_entry_index: *mut u64,
    last_entry_term: *mut u64,
) -> c_int {
    let describe = |handle: &NodeHandle| {
        if last_entry_index.is_null() || last_entry_term.is_null() {
            return handle.refuse("a null pointer in place of the index or the term");
        }
        let (index, term) = handle.describe_last_entry()?;
        // SAFETY: not null, checked above; writable, by this function's contract.
        unsafe { last_entry_index.write(index.0) };
        // SAFETY: as above.
        unsafe { last_entry_term.write(term.0) };
        Ok(())
    };
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, describe) }
}
