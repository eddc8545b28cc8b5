//! A node of this build for a test.

use std::path::{Path, PathBuf};

use dqlite_testing::process::{Library, NodeOptions, compile, free_address};

/// The folder with libdqlite.so of this build, under its names.
fn library(folder: &Path) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/libdqlite.so");
    let built = std::env::var_os("DQLITE_LIBRARY").map_or(built, PathBuf::from);
    assert!(built.exists(), "{} is missing: `cargo build` makes it", built.display());
    std::os::unix::fs::symlink(std::fs::canonicalize(&built).unwrap(), folder.join("libdqlite.so.0"))
        .unwrap();
    std::os::unix::fs::symlink("libdqlite.so.0", folder.join("libdqlite.so")).unwrap();
    folder.to_owned()
}

/// A node with everything in `folder`.
pub fn options(folder: &Path) -> NodeOptions {
    let library = library(folder);
    let program = folder.join("dqlite-node");
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests-c/dqlite-node.c"), &library, &program)
        .unwrap();
    let directory = folder.join("data");
    std::fs::create_dir(&directory).unwrap();
    NodeOptions {
        program,
        library: Library::new(&library),
        id: 1,
        address: free_address().unwrap(),
        directory,
        arguments: vec!["--snapshot-threshold=64".into(), "--snapshot-trailing=128".into()],
    }
}
