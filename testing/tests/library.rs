//! The shared object and the header as a C program and a distribution see them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn library() -> PathBuf {
    std::env::var_os("DQLITE_LIBRARY").map_or_else(|| root().join("target/debug/libdqlite.so"), PathBuf::from)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The union of all releases, spec: c-api 1.1 rows 1-51 and 1.2.
const NAMES: &[&str] = &[
    "dqlite_version_number",
    "dqlite_node_create",
    "dqlite_node_destroy",
    "dqlite_node_set_bind_address",
    "dqlite_node_get_bind_address",
    "dqlite_node_set_connect_func",
    "dqlite_node_set_network_latency",
    "dqlite_node_set_network_latency_ms",
    "dqlite_node_set_failure_domain",
    "dqlite_node_set_snapshot_params",
    "dqlite_node_start",
    "dqlite_node_stop",
    "dqlite_node_recover",
    "dqlite_node_recover_ext",
    "dqlite_node_errmsg",
    "dqlite_generate_node_id",
    "dqlite_node_enable_disk_mode",
    "dqlite_node_set_block_size",
    "dqlite_node_set_target_voters",
    "dqlite_node_set_target_standbys",
    "dqlite_node_enable_role_management",
    "dqlite_node_handover",
    "dqlite_node_set_auto_recovery",
    "dqlite_node_set_snapshot_compression",
    "dqlite_node_set_pool_thread_count",
    "dqlite_node_describe_last_entry",
    "dqlite_node_set_snapshot_params_v2",
    "dqlite_node_set_busy_timeout",
    "dqlite_server_create",
    "dqlite_server_set_address",
    "dqlite_server_set_auto_bootstrap",
    "dqlite_server_set_auto_join",
    "dqlite_server_set_bind_address",
    "dqlite_server_set_connect_func",
    "dqlite_server_start",
    "dqlite_server_get_id",
    "dqlite_server_handover",
    "dqlite_server_stop",
    "dqlite_server_destroy",
    "dqlite_vfs_init",
    "dqlite_vfs_close",
    "dqlite_vfs_poll",
    "dqlite_vfs_apply",
    "dqlite_vfs_abort",
    "dqlite_vfs_snapshot",
    "dqlite_vfs_restore",
    "dqlite_vfs_shallow_snapshot",
    "dqlite_vfs_num_pages",
    "dqlite_vfs_enable_disk",
    "dqlite_vfs_snapshot_disk",
    "dqlite_vfs_restore_disk",
    "dqlite_version_string",
];

// checklist c-api 2: `nm -D` contains all 39 names of 1.18.6 plus dqlite_node_enable_disk_mode (and the 12 vfs stubs if
// chosen) and no `sqlite3_*`, `uv_*`, `raft_*`
#[test]
fn exactly_the_names_of_the_union_leave_the_library() {
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let found: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(found, NAMES.iter().copied().collect());
    // checklist c-api 3: dqlite_version_string: OBJECT, in writable data
    assert!(symbols.lines().any(|line| line.ends_with(" D dqlite_version_string")), "{symbols}");
}

// checklist c-api 1: `readelf -d`: SONAME is exactly libdqlite.so.0; no symbol version definitions; no TEXTREL; GNU_STACK
// not executable
#[test]
fn the_shared_object_is_named_and_hardened_as_a_distribution_wants() {
    let dynamic = run(Command::new("readelf").args(["--wide", "-d"]).arg(library()));
    assert!(dynamic.contains("Library soname: [libdqlite.so.0]"), "{dynamic}");
    assert!(dynamic.contains("BIND_NOW") && dynamic.contains("NODELETE"), "{dynamic}");
    for absent in ["TEXTREL", "VERDEF", "RPATH", "RUNPATH"] {
        assert!(!dynamic.contains(absent), "{dynamic}");
    }
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .filter(|name| !name.starts_with("ld-linux"))
        .collect();
    let allowed = ["libsqlite3.so.0", "libgcc_s.so.1", "libm.so.6", "libc.so.6"];
    assert!(needed.iter().all(|name| allowed.contains(name)), "{needed:?}");
    assert!(needed.contains(&"libsqlite3.so.0"), "{needed:?}");
    let headers = run(Command::new("readelf").args(["--wide", "-l"]).arg(library()));
    let stack = headers.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains(" RW ") && !stack.contains("RWE"), "{stack}");
    assert!(headers.contains("GNU_RELRO"), "{headers}");
}

// checklist c-api 5: header compiles as C99, C11 with -Wall -Werror, as C++, and with DQLITE_API predefined to nothing;
// 8: redeclaring the four weak prototypes of 5.1; 9: LXD's probe one-liner compiles and links without -ldqlite
#[test]
fn the_header_compiles_alone_as_c_and_as_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let (include, tests) = (root().join("include"), root().join("tests-c"));
    let output = folder.path().join("program");
    for (compiler, standard, source) in [
        ("cc", "c99", "header_c.c"),
        ("cc", "c11", "header_c.c"),
        ("cc", "c2x", "header_c.c"),
        ("c++", "c++11", "header_cpp.cc"),
        ("c++", "c++17", "header_cpp.cc"),
    ] {
        for define in ["-DNOTHING", "-DDQLITE_API="] {
            let standard = format!("-std={standard}");
            let mut command = Command::new(compiler);
            command.args([&standard, "-Wall", "-Wextra", "-Werror", define, "-I"]).arg(&include);
            run(command.arg(tests.join(source)).arg("-o").arg(&output));
            run(&mut Command::new(&output));
        }
    }
}

// checklist c-api 4: `dqlite_version_number() == DQLITE_VERSION_NUMBER`, at least 11802; 3: a non-PIE C program can print
// dqlite_version_string (copy relocation); prefix equals the macros; 10: loading the library starts no thread, opens no
// descriptor, prints nothing, leaves SIGPIPE alone; 11: sqlite3_config works before create
#[test]
fn a_program_without_pie_sees_the_version_and_an_untouched_process() {
    let folder = tempfile::tempdir().unwrap();
    let library = std::fs::canonicalize(library()).unwrap();
    for name in ["libdqlite.so", "libdqlite.so.0"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).unwrap();
    }
    let program = folder.path().join("version");
    let mut command = Command::new("cc");
    command
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-no-pie", "-fno-pie", "-I"])
        .arg(root().join("include"));
    command.arg(root().join("tests-c/version.c")).arg("-o").arg(&program).arg("-L").arg(folder.path());
    run(command.args(["-ldqlite", "-lsqlite3"]));
    // Without what this test has open.
    let close = (3..=9).map(|descriptor| format!("{descriptor}>&- ")).collect::<String>();
    let script = format!("exec {} {close}", program.display());
    let printed = run(Command::new("sh").args(["-c", &script]).env("LD_LIBRARY_PATH", folder.path()));
    assert_eq!(printed, "11807 11807 1.18.7@\nthreads 1, descriptors 3, SIGPIPE default, config 0 0\n");
}

// checklist c-api 13: pkg-config --cflags/--libs/--static --libs dqlite usable; file list and symlinks as 2.4
#[test]
fn the_version_of_dqlite_pc_is_the_one_of_the_header() {
    let text = run(Command::new(root().join("scripts/make-pc")).args(["/usr", "/usr/lib", "/usr/include"]));
    for line in [
        "Name: dqlite",
        "Version: 1.18.7",
        "Libs: -L${libdir} -ldqlite",
        "Cflags: -I${includedir}",
        "libdir=/usr/lib",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
    assert!(!text.contains('@'), "{text}");
}
