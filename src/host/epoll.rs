//! What the system tells of its own of the process's epolls.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{BorrowedFd, RawFd};

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

/// What watches a descriptor; nothing where the system does not tell. An epoll keeps the number of a descriptor that was closed while
/// its file is open elsewhere, so a line counts where it names the same file.
#[must_use]
pub fn watching(number: RawFd) -> Watching {
    let mut watching = Watching::default();
    // SAFETY: borrowed for a call that only asks; that the number is no descriptor is an error of the call.
    let Ok(stat) = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) }) else { return watching };
    let probe = Watched { number, inode: Some(stat.st_ino) };
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for entry in entries {
        let Some(poll) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == NAME) {
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{poll}")).unwrap_or_default();
            let watched: Vec<Watched> = text.lines().filter_map(watched).collect();
            if watched.iter().any(|watched| watched.is(probe)) {
                watching.polls.push(poll);
                watching.others.extend(watched.iter().map(|watched| watched.number));
            }
        }
    }
    watching.others.remove(&number);
    watching
}

/// A descriptor that an epoll watches, and its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    number: RawFd,
    /// None before Linux 4.13.
    inode: Option<u64>,
}

impl Watched {
    fn is(self, other: Watched) -> bool {
        let same = self.inode.zip(other.inode).is_none_or(|(own, other)| own == other);
        self.number == other.number && same
    }
}

/// What a line such as `tfd:        8 events:       19 data:                8  pos:0 ino:1f sdev:a` tells of.
fn watched(line: &str) -> Option<Watched> {
    let words = line.strip_prefix("tfd:")?;
    let inode = words.split_whitespace().find_map(|word| word.strip_prefix("ino:"));
    let inode = inode.and_then(|inode| u64::from_str_radix(inode, 16).ok());
    Some(Watched { number: words.split_whitespace().next()?.parse().ok()?, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_number_and_the_file_of_a_descriptor() {
        let line = "tfd:        8 events:       19 data:                8  pos:0 ino:1f sdev:a";
        assert_eq!(watched(line), Some(Watched { number: 8, inode: Some(31) }));
        assert_eq!(watched("tfd:        8 events:       19"), Some(Watched { number: 8, inode: None }));
        assert_eq!(watched("pos:\t0"), None);
    }

    #[test]
    fn a_number_that_another_file_has_had_is_not_watched() {
        let of = |number, inode| Watched { number, inode };
        assert!(of(8, Some(31)).is(of(8, Some(31))));
        assert!(of(8, None).is(of(8, Some(31))));
        assert!(!of(8, Some(30)).is(of(8, Some(31))));
        assert!(!of(9, Some(31)).is(of(8, Some(31))));
    }
}
