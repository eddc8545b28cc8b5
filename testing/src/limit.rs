//! Processes with a bound on their memory, page cache included: a control group for each process, of version 1 or 2, whichever
//! this machine lets its user make.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where version 1 has its memory groups.
const VERSION_1: &str = "/sys/fs/cgroup/memory";
/// Where version 2 has all groups.
const VERSION_2: &str = "/sys/fs/cgroup";

/// What a group's files are called.
#[derive(Clone, Copy, Debug)]
struct Names {
    limit: &'static str,
    peak: &'static str,
}

const NAMES_1: Names = Names { limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes" };
const NAMES_2: Names = Names { limit: "memory.max", peak: "memory.peak" };

/// A bound for each process that is started through a wrapper. The groups go with this.
#[derive(Debug)]
pub struct MemoryLimit {
    parent: PathBuf,
    prefix: String,
    names: Names,
    bytes: u64,
}

impl MemoryLimit {
    /// A bound of `bytes`, if groups can be made here.
    ///
    /// # Errors
    /// Why they cannot, in a sentence.
    pub fn new(bytes: u64) -> Result<MemoryLimit, String> {
        let prefix = format!("dqlite-test-{}-", std::process::id());
        let mut reasons = Vec::new();
        for (parent, names) in [(VERSION_1, NAMES_1), (VERSION_2, NAMES_2)] {
            let limit = MemoryLimit { parent: parent.into(), prefix: prefix.clone(), names, bytes };
            match limit.probe() {
                Ok(()) => return Ok(limit),
                Err(error) => reasons.push(format!("{parent}: {error}")),
            }
        }
        Err(format!("no control group with a bound on memory can be made ({})", reasons.join("; ")))
    }

    /// Makes a group, bounds it and removes it.
    fn probe(&self) -> io::Result<()> {
        let group = self.parent.join(format!("{}probe", self.prefix));
        fs::create_dir(&group)?;
        let bounded = fs::write(group.join(self.names.limit), self.bytes.to_string())
            .and_then(|()| fs::read_to_string(group.join(self.names.peak)).map(drop));
        fs::remove_dir(&group)?;
        bounded
    }

    fn group(&self, process: u32) -> PathBuf {
        self.parent.join(format!("{}{process}", self.prefix))
    }

    /// A program in `folder` that runs `program` under the bound.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn wrap(&self, program: &Path, folder: &Path) -> io::Result<PathBuf> {
        let wrapper = folder.join("limited");
        let group = self.parent.join(format!("{}$$", self.prefix));
        let text = format!(
            "#!/bin/sh\nset -e\nmkdir {group}\necho {bytes} >{group}/{limit}\necho $$ >{group}/cgroup.procs\nexec {program} \"$@\"\n",
            group = group.display(),
            bytes = self.bytes,
            limit = self.names.limit,
            program = program.display()
        );
        fs::write(&wrapper, text)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        Ok(wrapper)
    }

    /// Most memory of a process that the kernel has counted, page cache included. It never goes beyond the bound.
    ///
    /// # Errors
    /// The process was not started through the wrapper.
    pub fn peak_bytes(&self, process: u32) -> io::Result<u64> {
        let text = fs::read_to_string(self.group(process).join(self.names.peak))?;
        text.trim().parse().map_err(|_| io::Error::other(format!("a peak of {text:?}")))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let Ok(groups) = fs::read_dir(&self.parent) else { return };
        for group in groups.flatten() {
            if group.file_name().to_string_lossy().starts_with(&self.prefix) {
                // One that still has a process stays.
                let _ = fs::remove_dir(group.path());
            }
        }
    }
}
