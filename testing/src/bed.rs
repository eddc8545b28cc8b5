//! What a test of processes begins with: the library of this build, the compiled program of a node, a folder. For tests: everything
//! panics when something is missing.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::process::{Library, NodeOptions, compile, free_address};

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
///
/// # Panics
/// The library is not built, or the program does not compile.
#[must_use]
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

/// A folder with the compiled program, and this library.
#[derive(Debug)]
pub struct Bed {
    /// Removed at the end.
    pub folder: TempDir,
    /// `tests-c/dqlite-node.c`, compiled.
    pub program: PathBuf,
    /// The library of this build.
    pub library: Library,
}

impl Bed {
    /// An empty one.
    ///
    /// # Panics
    /// As `options`.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        Bed { folder, program: options.program, library: options.library }
    }

    /// A cluster of voters, each on a library.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn cluster(&self, arguments: &[&str], libraries: &[Library]) -> Cluster {
        Cluster::of_voters(&self.program, &self.folder.path().join("nodes"), arguments, libraries).unwrap()
    }

    /// A cluster of voters on this library.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn own_cluster(&self, nodes: usize, arguments: &[&str]) -> Cluster {
        self.cluster(arguments, &vec![self.library.clone(); nodes])
    }
}
