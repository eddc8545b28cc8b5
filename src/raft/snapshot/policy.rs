//! When a snapshot is taken, and what stays behind it. Pure.

use crate::types::LogIndex;
use crate::types::config::{
    SNAPSHOT_LOG_BYTES_MIN, SNAPSHOT_LOG_CONTENTS_MAX, SNAPSHOT_LOG_SHARE, SNAPSHOT_THRESHOLDS_MAX,
};

/// When to take a snapshot and how many entries to keep behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Entries applied since the last snapshot before the next is taken.
    pub threshold_entries: u64,
    /// Entries kept behind a snapshot.
    pub trailing_entries: u64,
    /// What else is looked at before a snapshot is taken.
    pub pace: SnapshotPace,
}

/// When a snapshot is taken once there are enough entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPace {
    /// At once: the host has said after how many entries.
    Entries,
    /// When the log has grown by what writing the databases anew is worth: a large database is not rewritten for a few
    /// small entries.
    Bytes,
}

impl SnapshotPolicy {
    /// Whether a snapshot is due: `entries` were applied and `log_bytes` logged since the last one, which has
    /// `content_bytes`. Pure.
    #[must_use]
    pub fn is_due(self, entries: u64, log_bytes: u64, content_bytes: u64) -> bool {
        let threshold = self.threshold_entries.max(1);
        if entries < threshold {
            // The log holds its pages in memory and on the disk, however few entries they are.
            let most = SNAPSHOT_LOG_BYTES_MIN.max(content_bytes.saturating_mul(SNAPSHOT_LOG_CONTENTS_MAX));
            return entries > 0 && log_bytes > most;
        }
        let worth = content_bytes.min(SNAPSHOT_LOG_BYTES_MIN.max(content_bytes / SNAPSHOT_LOG_SHARE));
        self.pace == SnapshotPace::Entries
            || log_bytes >= worth
            || entries >= threshold.saturating_mul(SNAPSHOT_THRESHOLDS_MAX)
    }

    /// Last index that need not be kept once the snapshot at `index` is on disk; 0 for none. Entries up to `beyond` are more
    /// bytes than are kept behind a snapshot. Pure.
    #[must_use]
    pub fn purge_upto(self, index: LogIndex, beyond: LogIndex) -> LogIndex {
        LogIndex(index.0.saturating_sub(self.trailing_entries)).max(beyond.min(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(pace: SnapshotPace) -> SnapshotPolicy {
        SnapshotPolicy { threshold_entries: 1024, trailing_entries: 8192, pace }
    }

    // c-api 3.5: threshold and trailing.
    #[test]
    fn a_threshold_of_the_host_counts_entries_and_needs_no_bytes() {
        let policy = policy(SnapshotPace::Entries);

        assert!(!policy.is_due(1023, 64 * MIB, 0));
        assert!(policy.is_due(1024, 0, u64::MAX));
    }

    #[test]
    fn few_large_entries_are_a_reason_for_a_snapshot_whoever_has_set_the_threshold() {
        for policy in [policy(SnapshotPace::Entries), policy(SnapshotPace::Bytes)] {
            for (content, most) in [(0, 64), (30, 64), (32, 64), (40, 80), (1024, 2048)] {
                let (content, most) = (content * MIB, most * MIB);
                assert!(!policy.is_due(3, most, content), "{content}");
                assert!(policy.is_due(1, most + 1, content), "{content}");
                assert!(!policy.is_due(0, most + 1, content), "nothing is new");
            }
            assert!(!policy.is_due(1, u64::MAX - 1, u64::MAX));
        }
    }

    #[test]
    fn what_stays_behind_a_snapshot_is_bounded_by_entries_and_bytes() {
        let policy = policy(SnapshotPace::Bytes);
        for (index, beyond, expected) in [
            (1024, 0, 0),
            (10_000, 0, 1808),
            (10_000, 1000, 1808),
            (10_000, 9990, 9990),
            // The newest entries alone are more: what no snapshot covers stays.
            (10_000, 10_050, 10_000),
        ] {
            assert_eq!(policy.purge_upto(LogIndex(index), LogIndex(beyond)), LogIndex(expected));
        }
    }

    #[test]
    fn a_large_database_is_not_rewritten_for_a_few_small_entries() {
        let policy = policy(SnapshotPace::Bytes);

        assert!(!policy.is_due(1023, 10 * MIB, MIB));
        assert!(policy.is_due(1024, MIB, 0));
        for (content, enough) in [(1, 1), (40, 40), (64, 64), (400, 64), (1024, 128)] {
            let (content, enough) = (content * MIB, enough * MIB);
            assert!(!policy.is_due(1024, enough - 1, content), "{content}");
            assert!(policy.is_due(1024, enough, content), "{content}");
        }
        assert!(policy.is_due(32 * 1024, 0, 1024 * MIB), "a start replays no more entries than that");
    }
}
