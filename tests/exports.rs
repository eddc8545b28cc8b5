//! What the shared object shows to a linker and a loader. spec: c-api 1.1, 2.1.

#![allow(clippy::unwrap_used)]

mod library;

use std::collections::BTreeSet;
use std::process::Command;

use library::{run, shared_object};

/// spec: c-api 1.1: all functions since 1.9.0, and the one variable.
const NAMES: &str = "dqlite_version_number dqlite_node_create dqlite_node_destroy dqlite_node_set_bind_address \
    dqlite_node_get_bind_address dqlite_node_set_connect_func dqlite_node_set_network_latency \
    dqlite_node_set_network_latency_ms dqlite_node_set_failure_domain dqlite_node_set_snapshot_params dqlite_node_start \
    dqlite_node_stop dqlite_node_recover dqlite_node_recover_ext dqlite_node_errmsg dqlite_generate_node_id \
    dqlite_node_enable_disk_mode dqlite_node_set_block_size dqlite_node_set_target_voters \
    dqlite_node_set_target_standbys dqlite_node_enable_role_management dqlite_node_handover \
    dqlite_node_set_auto_recovery dqlite_node_set_snapshot_compression dqlite_node_set_pool_thread_count \
    dqlite_node_describe_last_entry dqlite_node_set_snapshot_params_v2 dqlite_node_set_busy_timeout \
    dqlite_server_create dqlite_server_set_address dqlite_server_set_auto_bootstrap dqlite_server_set_auto_join \
    dqlite_server_set_bind_address dqlite_server_set_connect_func dqlite_server_start dqlite_server_get_id \
    dqlite_server_handover dqlite_server_stop dqlite_server_destroy dqlite_vfs_init dqlite_vfs_close dqlite_vfs_poll \
    dqlite_vfs_apply dqlite_vfs_abort dqlite_vfs_snapshot dqlite_vfs_restore dqlite_vfs_shallow_snapshot \
    dqlite_vfs_num_pages dqlite_vfs_enable_disk dqlite_vfs_snapshot_disk dqlite_vfs_restore_disk dqlite_version_string";

fn readelf(options: &[&str]) -> String {
    run(Command::new("readelf").args(options).arg(shared_object()))
}

// conformance: c-api 2
#[test]
fn exactly_the_documented_names_are_exported() {
    let listing = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared_object()));
    let exported: BTreeSet<&str> =
        listing.lines().filter_map(|line| line.split_whitespace().last()).collect();

    assert_eq!(exported, NAMES.split_whitespace().collect());
    assert_eq!(exported.len(), 52);
}

// conformance: c-api 1
#[test]
fn the_object_is_bound_at_load_and_stays() {
    let dynamic = readelf(&["-d"]);
    let names = |tag: &str| -> BTreeSet<String> {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
    };

    assert_eq!(names("(SONAME)"), BTreeSet::from(["libdqlite.so.0".to_owned()]));
    assert!(dynamic.contains("BIND_NOW") && dynamic.contains("NODELETE"), "{dynamic}");
    assert!(!dynamic.contains("TEXTREL") && !dynamic.contains("(VERDEF)"), "{dynamic}");
    for needed in names("(NEEDED)") {
        let known = ["libc.so.", "libgcc_s.so.", "libm.so.", "ld-linux", "libsqlite3.so.0"];
        assert!(known.iter().any(|name| needed.starts_with(name)), "{needed}");
    }
    if cfg!(not(feature = "bundled")) {
        assert!(names("(NEEDED)").contains("libsqlite3.so.0"), "{dynamic}");
    }
    let segments = readelf(&["-W", "-l"]);
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains(" RW ") && segments.contains("GNU_RELRO"), "{segments}");
}

// conformance: c-api 3
#[test]
fn the_version_string_is_a_pointer_that_programs_can_copy() {
    let symbols = readelf(&["-W", "--dyn-syms"]);
    let line = symbols.lines().find(|line| line.ends_with(" dqlite_version_string")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();

    assert_eq!(&fields[2..6], ["8", "OBJECT", "GLOBAL", "DEFAULT"]);
}
