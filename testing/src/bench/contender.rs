//! A library that is measured.

use std::path::Path;

use super::Failure;
use crate::cluster::Cluster;
use crate::process::Library;

/// A library and how its nodes are started.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    /// Where it is.
    pub library: Library,
    /// Arguments of its nodes.
    pub arguments: Vec<String>,
}

impl Contender {
    /// A library with a busy timeout.
    #[must_use]
    pub fn new(name: &str, folder: &Path) -> Contender {
        Contender { name: name.to_owned(), library: Library::at(folder), arguments: arguments(true) }
    }

    /// Upstream's, in an unpacked root named by its version. Where it has a busy timeout, LXD's is set.
    #[must_use]
    pub fn upstream(root: &Path) -> Contender {
        let version = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let arguments = arguments(version_of(&version) >= [1, 18, 2]);
        Contender { name: format!("upstream {version}"), library: Library::of_root(root), arguments }
    }

    /// A cluster of voters, with an empty database; `more` arguments for its nodes.
    ///
    /// # Errors
    /// It does not start.
    pub fn cluster(
        &self,
        program: &Path,
        work: &Path,
        nodes: usize,
        more: &[String],
    ) -> Result<Cluster, Failure> {
        let arguments: Vec<&str> = self.arguments.iter().chain(more).map(String::as_str).collect();
        Ok(Cluster::of_voters(program, work, &arguments, &vec![self.library.clone(); nodes])?)
    }
}

/// What hosts in Go have: connections between nodes without Nagle's algorithm and, where there is one, LXD's busy timeout.
fn arguments(has_busy_timeout: bool) -> Vec<String> {
    let timeout: &[&str] = if has_busy_timeout { &["--busy-timeout", "5000"] } else { &[] };
    ["--no-delay"].iter().chain(timeout).map(|text| (*text).to_owned()).collect()
}

fn version_of(text: &str) -> [u32; 3] {
    let mut version = [0; 3];
    for (place, part) in version.iter_mut().zip(text.split('.')) {
        *place = part.parse().unwrap_or(0);
    }
    version
}
