//! What a load wants to be done to a directory before its log is written on. spec: disk-format 4.4, 7.4.

use std::fmt;

use crate::types::LogIndex;

/// Repairs, in the order in which they are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Segments that nobody may read again but a human, in the order of the log.
    pub(super) set_aside: Vec<SetAside>,
    /// Segments whose entries the snapshot covers and the log does not go on from, in the order of the log.
    pub(super) stale: Vec<String>,
    /// Open segments, in the order of the log.
    pub(super) close: Vec<FoundOpen>,
}

/// A segment that is kept under another name, because its entries cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Name that it had.
    pub name: String,
    /// How many entries are in it, as far as that is known.
    pub entries: Option<u64>,
    /// Index of the first of them, if it is known.
    pub first: Option<LogIndex>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SetAside { name, entries, first, reason } = self;
        match (entries, first) {
            (Some(1), Some(first)) => write!(f, "{name} (1 entry, {first}): {reason}"),
            (Some(count), Some(first)) => {
                write!(f, "{name} ({count} entries, {first} to {}): {reason}", first.plus(*count).previous())
            }
            (Some(count), None) => write!(f, "{name} ({count} entries): {reason}"),
            (None, _) => write!(f, "{name} (entries that cannot be counted): {reason}"),
        }
    }
}

/// An open segment that was found, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundOpen {
    pub(super) name: String,
    /// Its first and last entry; none: it is removed.
    pub(super) entries: Option<(LogIndex, LogIndex)>,
    /// Where its last whole batch ends.
    pub(super) end: usize,
    /// Length of the file.
    pub(super) bytes: usize,
}
