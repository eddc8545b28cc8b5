//! `dqlite_server_*`. spec: c-api 4.

use std::ffi::{OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::connect::{connector, dqlite_connect_func};
use super::version::dqlite_node_id;
use super::{DQLITE_ERROR, DQLITE_MISUSE, bytes, destroy};
use crate::host::panics;
use crate::host::threads::uncancelled;
use crate::node::keeper::Refused;
use crate::node::options::DQLITE_OK;
use crate::node::threads::panic_text;
use crate::server::{Server, ServerError};
use crate::types::config::SERVER_AUTO_JOIN_MAX;

/// A server: a node that keeps its id and the addresses of its cluster in its directory.
pub struct dqlite_server {
    server: Server,
}

/// There is no `errmsg` for servers: what went wrong is an event of the log.
///
/// # Safety
/// `server` is null or a live server.
unsafe fn call(server: *const dqlite_server, run: impl FnOnce(&Server) -> Result<(), ServerError>) -> c_int {
    // SAFETY: null or live, by this function's contract.
    let Some(server) = (unsafe { server.as_ref() }) else {
        return DQLITE_MISUSE;
    };
    match uncancelled(|| panics::caught(|| run(&server.server))) {
        Ok(Ok(())) => DQLITE_OK,
        Ok(Err(ServerError::Refused(Refused::Misuse(text)))) => {
            tracing::warn!(text, "server");
            DQLITE_MISUSE
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "server");
            DQLITE_ERROR
        }
        Err(panic) => {
            tracing::error!(panic = panic_text(panic.as_ref()), "server");
            DQLITE_ERROR
        }
    }
}

/// Makes a server: a node that keeps its id and its cluster's members in the directory `path`, which must exist at start.
///
/// The files are `server-info` and `node-store`; a restart needs no settings. All `dqlite_server_*` functions return 0, or
/// another number if they fail; why is told in the log alone.
///
/// # Safety
/// `path` is null or a C string; `server` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_create(path: *const c_char, server: *mut *mut dqlite_server) -> c_int {
    if server.is_null() {
        return DQLITE_MISUSE;
    }
    // SAFETY: null or a C string, by this function's contract.
    let path = unsafe { bytes(path) };
    panics::install();
    let (made, code) = match path {
        Some(path) => {
            let server = Server::new(PathBuf::from(OsStr::from_bytes(path)));
            (Box::into_raw(Box::new(dqlite_server { server })), DQLITE_OK)
        }
        None => (std::ptr::null_mut(), DQLITE_MISUSE),
    };
    // SAFETY: not null, checked above; a place for a pointer, by this function's contract.
    unsafe { server.write(made) };
    code
}

/// Sets the address that others dial. Needed at the first start of the directory; later ones go by its `server-info`.
///
/// # Safety
/// `server` is null or a live server; `address` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_address(
    server: *mut dqlite_server,
    address: *const c_char,
) -> c_int {
    // SAFETY: null or a C string, by this function's contract.
    let Some(address) = (unsafe { bytes(address) }) else {
        return DQLITE_MISUSE;
    };
    let set = |server: &Server| server.change(|settings| settings.address = Some(address.to_vec()));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, set) }
}

/// Sets whether the first start of the directory makes a new cluster. Not together with auto join: the start fails then.
///
/// # Safety
/// `server` is null or a live server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_bootstrap(server: *mut dqlite_server, on: bool) -> c_int {
    let set = |server: &Server| server.change(|settings| settings.auto_bootstrap = on);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, set) }
}

/// Adds addresses of members of the cluster to join, at most 4096. They count while the directory has no `node-store`.
///
/// # Safety
/// `server` is null or a live server; `addrs` is null or an array of `n` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_join(
    server: *mut dqlite_server,
    addrs: *const *const c_char,
    n: c_uint,
) -> c_int {
    if addrs.is_null() && n > 0 {
        return DQLITE_MISUSE;
    }
    let mut addresses = Vec::new();
    // One more than there may be is refused, however many are said to follow.
    for position in 0..(n as usize).min(SERVER_AUTO_JOIN_MAX + 1) {
        // SAFETY: an element of the array, by this function's contract.
        let address = unsafe { addrs.add(position).read() };
        // SAFETY: null or a C string, by this function's contract.
        let Some(address) = (unsafe { bytes(address) }) else {
            return DQLITE_MISUSE;
        };
        addresses.push(address.to_vec());
    }
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, |server| server.add_auto_join(addresses)) }
}

/// Sets where the server listens, if that is not its address. Not kept in the directory: set it before each start.
///
/// # Safety
/// `server` is null or a live server; `addr` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_bind_address(
    server: *mut dqlite_server,
    addr: *const c_char,
) -> c_int {
    // SAFETY: null or a C string, by this function's contract.
    let Some(address) = (unsafe { bytes(addr) }) else {
        return DQLITE_MISUSE;
    };
    let set = |server: &Server| server.change(|settings| settings.bind_address = Some(address.to_vec()));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, set) }
}

/// Sets who connects to other nodes, as `dqlite_node_set_connect_func` does.
///
/// # Safety
/// `server` is null or a live server; `f` may be called with `arg` on any thread until the server is stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_connect_func(
    server: *mut dqlite_server,
    f: dqlite_connect_func,
    arg: *mut c_void,
) -> c_int {
    let connector = connector(f, arg);
    let set = |server: &Server| server.change(|settings| settings.connector = connector);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, set) }
}

/// Starts the server; waits 30 s at most for a cluster that takes it in, with a vote while fewer than three have one.
///
/// A server that is a member already waits 12 s for a leader and then runs all the same, since the other members may be
/// waiting for it: requests get an answer when enough of them run. After a failure nothing runs, and the start may be tried
/// again. Who votes is looked after from then on, so that a voter that is gone is replaced by a spare.
///
/// # Safety
/// `server` is null or a live server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_start(server: *mut dqlite_server) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, Server::start) }
}

/// The id of the server: 0 before a start that got as far as the node. It stays after the stop.
///
/// # Safety
/// `server` is null or a live server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_get_id(server: *mut dqlite_server) -> dqlite_node_id {
    // SAFETY: null or live, by this function's contract.
    let Some(server) = (unsafe { server.as_ref() }) else {
        return 0;
    };
    catch_unwind(AssertUnwindSafe(|| server.server.id().0)).unwrap_or(0)
}

/// Gives leadership and vote to other nodes, as is good before a stop; fails if no other node can take the vote.
///
/// Leadership has moved all the same if another voter is there. Takes about a minute at most.
///
/// # Safety
/// `server` is null or a live server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_handover(server: *mut dqlite_server) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, Server::handover) }
}

/// Stops the server, which may be started again; fails if it does not run.
///
/// # Safety
/// `server` is null or a live server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_stop(server: *mut dqlite_server) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(server, Server::stop) }
}

/// Frees a server; stops it first if it runs. Null is allowed.
///
/// # Safety
/// `server` is null or a live server, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_destroy(server: *mut dqlite_server) {
    // SAFETY: null, or made by `Box::into_raw` and not used again, by this function's contract.
    unsafe { destroy(server, |server| server.server.finish()) };
}
