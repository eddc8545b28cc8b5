//! What the system tells of its own of the process's epolls.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::RawFd;

/// How the system names such descriptors.
const NAME: &str = "anon_inode:[eventpoll]";

/// The epolls that watch a descriptor, which may be one under several numbers, and what else they watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watching {
    /// Their numbers.
    pub polls: Vec<RawFd>,
    /// The numbers of other descriptors that they watch.
    pub others: BTreeSet<RawFd>,
}

/// What watches a descriptor; nothing where the system does not tell.
#[must_use]
pub fn watching(number: RawFd) -> Watching {
    let mut watching = Watching::default();
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for entry in entries {
        let Some(poll) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == NAME) {
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{poll}")).unwrap_or_default();
            let watched: BTreeSet<RawFd> = text.lines().filter_map(watched).collect();
            if watched.contains(&number) {
                watching.polls.push(poll);
                watching.others.extend(watched);
            }
        }
    }
    watching.others.remove(&number);
    watching
}

/// The number in a line such as `tfd:        8 events:       19 data: ...`.
fn watched(line: &str) -> Option<RawFd> {
    line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_of_a_line_is_its_first_number() {
        let line = "tfd:        8 events:       19 data:                8  pos:0 ino:1f sdev:a";
        assert_eq!(watched(line), Some(8));
        assert_eq!(watched("pos:\t0"), None);
    }
}
