//! `tests-c/server.c`, which calls every server function and prints what it sees: on this library against what is written
//! down, and on upstream's against this one.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use dqlite_testing::loopback::lasting_address;
use dqlite_testing::process::{Library, compile};

mod support;

/// First of the ports on the loopback address of this process.
const FIRST_PORT: &str = "20001";

/// Versions of upstream that have servers.
const VERSIONS: [&str; 2] = ["1.18.1", "1.18.7"];

/// Sections that upstream lives through and ends the same; the others are listed in `docs/compat.md`.
const SAME: [&str; 7] =
    ["create", "bootstrap", "senseless", "bad_files", "empty_files", "cluster", "connect_function"];

fn source(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests-c").join(name)
}

/// What the program prints.
fn seen(library: &Library, program: &Path, sections: &[&str]) -> String {
    let work = tempfile::tempdir().unwrap();
    let address = lasting_address().unwrap();
    let (host, _) = address.rsplit_once(':').unwrap();
    let mut command = library.command(program);
    let output = command.current_dir(work.path()).args([host, FIRST_PORT]).args(sections).output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn assert_same(seen: &str, expected: &str, what: &str) {
    for (number, (seen, expected)) in seen.lines().zip(expected.lines()).enumerate() {
        assert_eq!(seen, expected, "line {} of {what}", number + 1);
    }
    assert_eq!(seen.lines().count(), expected.lines().count(), "{what}");
}

// The lines of c-api 7 are named above the sections of the program.
#[test]
fn every_server_function_in_and_out_of_order_does_what_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let ours = support::options(folder.path()).library;
    let program = folder.path().join("server");
    compile(&source("server.c"), &ours.folders[0], &program).unwrap();

    let seen = seen(&ours, &program, &["all"]);

    let path = source("server.expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &seen).unwrap();
    }
    assert_same(&seen, &std::fs::read_to_string(&path).unwrap(), "tests-c/server.expected");
}

#[test]
#[ignore = "needs upstream's libraries: make check-upstream"]
fn upstream_prints_the_same_but_for_the_roles_of_servers_that_join() {
    let upstream = std::env::var("UPSTREAM").expect("UPSTREAM is the folder of tests/upstream/fetch.sh");
    let folder = tempfile::tempdir().unwrap();
    let ours = support::options(folder.path()).library;
    let program = folder.path().join("server");
    compile(&source("server.c"), &ours.folders[0], &program).unwrap();
    let expected = seen(&ours, &program, &SAME);
    assert!(!expected.contains(" spare"), "{expected}");

    for version in VERSIONS {
        let theirs = Library::of_root(&Path::new(&upstream).join(version));
        let seen = seen(&theirs, &program, &SAME);

        assert!(seen.contains(" spare"), "{version}: who joins stays a spare\n{seen}");
        assert_same(&seen.replace(" spare", " voter"), &expected, version);
    }
}
