//! Upstream's libraries, which `tests/upstream/fetch.sh` unpacked into the folder that `UPSTREAM` names. For tests: everything
//! panics when something is missing.

use std::path::{Path, PathBuf};

/// Versions that must be there; any other is the newest, which Debian unstable has.
pub const NAMED: [&str; 2] = ["1.11.1", "1.18.1"];

fn folder() -> PathBuf {
    let Some(folder) = std::env::var_os("UPSTREAM") else {
        panic!("UPSTREAM is the folder of tests/upstream/fetch.sh");
    };
    folder.into()
}

/// The unpacked root of a version that must be there.
///
/// # Panics
/// It is not.
#[must_use]
pub fn root(version: &str) -> PathBuf {
    let root = folder().join(version);
    assert!(root.join(".complete").exists(), "{} is missing", root.display());
    root
}

/// What Debian unstable has, if it could be had.
///
/// # Panics
/// The folder cannot be read.
#[must_use]
pub fn newest() -> Option<PathBuf> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join(".complete").exists() && !NAMED.iter().any(|name| path.ends_with(name)))
        .max()
}

/// The named versions and the newest.
///
/// # Panics
/// A named one is missing.
#[must_use]
pub fn roots() -> Vec<PathBuf> {
    NAMED.into_iter().map(root).chain(newest()).collect()
}

/// All but the oldest, which lacks half of the functions.
///
/// # Panics
/// As `roots`.
#[must_use]
pub fn later_roots() -> Vec<PathBuf> {
    roots().split_off(1)
}

/// The version that a root is named by.
#[must_use]
pub fn version_of(root: &Path) -> String {
    root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
