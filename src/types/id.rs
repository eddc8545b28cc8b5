//! Newtypes for the numbers of raft and of SQLite files.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Raft id of a node; 0 means nobody.
    NodeId,
    u64
);
number!(
    /// Raft term; 0 before the first.
    Term,
    u64
);
number!(
    /// Index of a log entry as upstream counts: the first entry is 1, 0 means none.
    LogIndex,
    u64
);
number!(
    /// Page of a database file; the first is 1.
    PageNumber,
    u32
);

impl LogIndex {
    /// No entry.
    pub const NONE: LogIndex = LogIndex(0);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The index before this one, at least 0.
    #[must_use]
    pub const fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// The index `count` entries later.
    #[must_use]
    pub const fn plus(self, count: u64) -> LogIndex {
        LogIndex(self.0 + count)
    }
}
