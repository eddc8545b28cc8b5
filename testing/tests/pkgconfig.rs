//! dqlite.pc as `make install` writes it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

// conformance: c-api 13
#[test]
fn the_version_of_dqlite_pc_is_the_one_of_the_header() {
    let text = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-pc"))
        .args(["/usr", "/usr/lib", "/usr/include"])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
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
