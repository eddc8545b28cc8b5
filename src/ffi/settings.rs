//! Settings of a node. spec: c-api 3.5.

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::sync::atomic::Ordering;

use super::{call, dqlite_node};
use crate::node::handle::NodeHandle;
use crate::node::options::Options;

/// Derives heartbeats and elections from the network's latency in nanoseconds, 1 ms to 1 h. Deprecated: use `..._ms`.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency(
    n: *mut dqlite_node,
    nanoseconds: c_ulonglong,
) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| handle.change(|options| options.set_network_latency_ns(nanoseconds))) }
}

/// Derives heartbeats (1.5 times) and elections (15 times) from the network's latency, 1 ms to 1 h.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency_ms(
    n: *mut dqlite_node,
    milliseconds: c_uint,
) -> c_int {
    let milliseconds = u64::from(milliseconds);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| handle.change(|options| options.set_network_latency_ms(milliseconds))) }
}

/// Sets a number that is the same for nodes that fail together; voters are spread over the numbers. Default 0.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_failure_domain(n: *mut dqlite_node, code: c_ulonglong) -> c_int {
    let set =
        |handle: &NodeHandle| handle.change_live(|live| live.failure_domain.store(code, Ordering::Relaxed));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets after how many log entries a snapshot is taken (1024) and how many stay behind it (8192). Deprecated: use `..._v2`.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params(
    n: *mut dqlite_node,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { dqlite_node_set_snapshot_params_v2(n, snapshot_threshold, snapshot_trailing, 0) }
}

/// Sets after how many log entries a snapshot is taken, how many (4 or more, no less than that) stay behind it, and the strategy.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params_v2(
    n: *mut dqlite_node,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
    trailing_strategy: c_int,
) -> c_int {
    let set = |options: &mut Options| {
        options.set_snapshot_params(snapshot_threshold, snapshot_trailing, trailing_strategy)
    };
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| handle.change(set)) }
}

/// Sets the block size of the disk, a power of two from 512 to 262144 bytes. The library does without.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_block_size(n: *mut dqlite_node, size: usize) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| handle.change(|options| options.set_block_size(size))) }
}

/// Sets whether a start renames damaged segments at the log's end (`corrupt-...`) and goes on without. Default on.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_auto_recovery(n: *mut dqlite_node, enabled: bool) -> c_int {
    let set = |handle: &NodeHandle| handle.change_any_time(|options| options.auto_recovery = enabled);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets whether snapshots on disk are compressed, from the next one on. Default on.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_compression(n: *mut dqlite_node, enabled: bool) -> c_int {
    let set = |handle: &NodeHandle| {
        handle.change_live(|live| live.snapshot_compression.store(enabled, Ordering::Relaxed))
    };
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets how many voters role management aims at. Default 3.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_voters(n: *mut dqlite_node, voters: c_int) -> c_int {
    let set =
        |handle: &NodeHandle| handle.change_live(|live| live.target_voters.store(voters, Ordering::Relaxed));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets how many stand-bys role management aims at. Default 0.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_standbys(n: *mut dqlite_node, standbys: c_int) -> c_int {
    let set = |handle: &NodeHandle| {
        handle.change_live(|live| live.target_standbys.store(standbys, Ordering::Relaxed))
    };
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets how many statements run at once, from the next start on; 0 counts as 1. Default 4.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_pool_thread_count(
    n: *mut dqlite_node,
    thread_count: c_uint,
) -> c_int {
    let set =
        |handle: &NodeHandle| handle.change_any_time(|options| options.pool_thread_count = thread_count);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Sets how long a write waits for another client's open transaction before it fails with SQLITE_BUSY. Default 0.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_busy_timeout(n: *mut dqlite_node, msecs: c_uint) -> c_int {
    let set =
        |handle: &NodeHandle| handle.change_live(|live| live.busy_timeout_ms.store(msecs, Ordering::Relaxed));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}

/// Keeps pages in an unlinked file of the data directory: databases may be larger than memory. Before the start only.
///
/// What is durable, and what other nodes see, does not change: a node may be started with and without it in turn.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_disk_mode(n: *mut dqlite_node) -> c_int {
    // SAFETY: null or live, by this function's contract.
    unsafe {
        call(n, |handle| {
            handle.change(|options| {
                options.disk_mode = true;
                Ok(())
            })
        })
    }
}

/// Lets the leader change roles so that the targets are met. To be called before the start.
///
/// # Safety
/// `n` is null or a live node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_role_management(n: *mut dqlite_node) -> c_int {
    let set =
        |handle: &NodeHandle| handle.change_live(|live| live.role_management.store(true, Ordering::Relaxed));
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, set) }
}
