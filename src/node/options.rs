//! Settings of a node with their defaults and rules, and the return codes of the C functions.
//! spec: c-api 3.0, 3.1, 3.5.

use std::time::Duration;

use crate::raft::SnapshotPace;
use crate::types::config;

/// Success.
pub const DQLITE_OK: i32 = 0;
/// Something failed.
pub const DQLITE_ERROR: i32 = 1;
/// A call that is not allowed, or a value out of its range.
pub const DQLITE_MISUSE: i32 = 2;

/// Longest network latency in milliseconds: an hour.
const LATENCY_MAX_MS: u64 = 3_600_000;
/// Nanoseconds in a millisecond.
const NANOSECONDS_PER_MS: u64 = 1_000_000;
/// Fewest entries kept behind a snapshot.
const TRAILING_MIN_ENTRIES: u32 = 4;
/// The block sizes in bytes are the powers of two from this one ...
const BLOCK_MIN_BYTES: usize = 512;
/// ... to this one.
const BLOCK_MAX_BYTES: usize = 256 * 1024;

/// How many entries stay in memory after a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailingStrategy {
    /// The trailing count.
    #[default]
    Static,
    /// As many as fit into the size of the snapshot, between threshold and trailing count.
    Dynamic,
}

impl TrailingStrategy {
    /// The strategy with this number of the C header.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<TrailingStrategy> {
        match number {
            0 => Some(TrailingStrategy::Static),
            1 => Some(TrailingStrategy::Dynamic),
            _ => None,
        }
    }
}

/// A refused value. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Zero or above an hour.
    #[error("network latency {0} ms is not between 1 and {LATENCY_MAX_MS}")]
    Latency(u64),
    /// Fewer than four trailing entries.
    #[error("snapshot trailing {0} is below {TRAILING_MIN_ENTRIES}")]
    TrailingTooShort(u32),
    /// Fewer trailing entries than lie between two snapshots.
    #[error("snapshot trailing {trailing} is below the threshold {threshold}")]
    TrailingBelowThreshold {
        /// Entries kept.
        trailing: u32,
        /// Entries between snapshots.
        threshold: u32,
    },
    /// A number that is no strategy.
    #[error("snapshot trailing strategy {0} is not 0 or 1")]
    Strategy(i32),
    /// No power of two in the range.
    #[error("block size {0} is not a power of two between {BLOCK_MIN_BYTES} and {BLOCK_MAX_BYTES}")]
    BlockSize(usize),
}

impl OptionError {
    /// The return code of the C function.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            OptionError::BlockSize(_) => DQLITE_ERROR,
            OptionError::Latency(_)
            | OptionError::TrailingTooShort(_)
            | OptionError::TrailingBelowThreshold { .. }
            | OptionError::Strategy(_) => DQLITE_MISUSE,
        }
    }
}

/// Settings that are fixed when the node starts. Those that may change later are in `core::LiveSettings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interval of heartbeats.
    pub heartbeat_interval: Duration,
    /// Election timeout.
    pub election_timeout: Duration,
    /// Entries between two snapshots; 0 is allowed.
    pub snapshot_threshold: u32,
    /// Entries kept behind a snapshot, at least the threshold.
    pub snapshot_trailing: u32,
    /// What else is looked at: the bytes logged, unless the host has set the two numbers.
    pub snapshot_pace: SnapshotPace,
    /// How many of them stay in memory.
    pub trailing_strategy: TrailingStrategy,
    /// Block size of the device in bytes if the host has set one; kept and not needed.
    pub block_size: Option<usize>,
    /// Whether damaged segments are set aside.
    pub auto_recovery: bool,
    /// Statements that run in SQLite at once.
    pub pool_thread_count: u32,
    /// Whether pages live in a file of the data directory instead of in memory.
    pub disk_mode: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heartbeat_interval: config::HEARTBEAT_INTERVAL,
            election_timeout: config::ELECTION_TIMEOUT,
            snapshot_threshold: config::SNAPSHOT_THRESHOLD_ENTRIES as u32,
            snapshot_trailing: config::SNAPSHOT_TRAILING_ENTRIES as u32,
            snapshot_pace: SnapshotPace::Bytes,
            trailing_strategy: TrailingStrategy::Static,
            block_size: None,
            auto_recovery: true,
            pool_thread_count: config::SQL_THREADS as u32,
            disk_mode: false,
        }
    }
}

impl Options {
    /// Derives the timers from a latency in nanoseconds; parts of a millisecond are dropped.
    ///
    /// # Errors
    /// Less than a millisecond or more than an hour.
    pub fn set_network_latency_ns(&mut self, nanoseconds: u64) -> Result<(), OptionError> {
        let milliseconds = nanoseconds / NANOSECONDS_PER_MS;
        if nanoseconds > LATENCY_MAX_MS * NANOSECONDS_PER_MS {
            return Err(OptionError::Latency(milliseconds));
        }
        self.set_network_latency_ms(milliseconds)
    }

    /// Derives the timers from a latency in milliseconds: heartbeat 1.5 times, election timeout 15 times as long.
    ///
    /// # Errors
    /// Zero or more than an hour.
    pub fn set_network_latency_ms(&mut self, milliseconds: u64) -> Result<(), OptionError> {
        if milliseconds == 0 || milliseconds > LATENCY_MAX_MS {
            return Err(OptionError::Latency(milliseconds));
        }
        self.heartbeat_interval = Duration::from_millis(milliseconds * 15 / 10);
        self.election_timeout = Duration::from_millis(milliseconds * 15);
        Ok(())
    }

    /// When snapshots are taken and what stays behind them.
    ///
    /// # Errors
    /// `trailing` below 4 or below `threshold`; `strategy` neither 0 nor 1.
    pub fn set_snapshot_params(
        &mut self,
        threshold: u32,
        trailing: u32,
        strategy: i32,
    ) -> Result<(), OptionError> {
        if trailing < TRAILING_MIN_ENTRIES {
            return Err(OptionError::TrailingTooShort(trailing));
        }
        if trailing < threshold {
            return Err(OptionError::TrailingBelowThreshold { trailing, threshold });
        }
        let strategy = TrailingStrategy::from_number(strategy).ok_or(OptionError::Strategy(strategy))?;
        self.snapshot_threshold = threshold;
        self.snapshot_trailing = trailing;
        self.snapshot_pace = SnapshotPace::Entries;
        self.trailing_strategy = strategy;
        Ok(())
    }

    /// Block size of the device in bytes.
    ///
    /// # Errors
    /// Not a power of two from 512 to 262144.
    pub fn set_block_size(&mut self, bytes: usize) -> Result<(), OptionError> {
        if !bytes.is_power_of_two() || !(BLOCK_MIN_BYTES..=BLOCK_MAX_BYTES).contains(&bytes) {
            return Err(OptionError::BlockSize(bytes));
        }
        self.block_size = Some(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // conformance: c-api 33
    #[test]
    fn latency_is_a_millisecond_to_an_hour() {
        let mut options = Options::default();
        let code = |result: Result<(), OptionError>| result.map_or_else(OptionError::code, |()| DQLITE_OK);

        for nanoseconds in [0, 1, 999_999, 3_600_000_000_001, u64::MAX] {
            assert_eq!(code(options.set_network_latency_ns(nanoseconds)), DQLITE_MISUSE, "{nanoseconds}");
        }
        for milliseconds in [0, 3_600_001] {
            assert_eq!(code(options.set_network_latency_ms(milliseconds)), DQLITE_MISUSE, "{milliseconds}");
        }
        assert_eq!(options, Options::default());
        assert_eq!(options.set_network_latency_ns(1_000_000), Ok(()));
        assert_eq!(options.set_network_latency_ns(3_600_000_000_000), Ok(()));
    }

    // conformance: c-api 34
    #[test]
    fn timers_follow_from_the_latency() {
        for (latency, heartbeat, election) in
            [(1, 1, 15), (3, 4, 45), (20, 30, 300), (3_600_000, 5_400_000, 54_000_000)]
        {
            let mut options = Options::default();
            assert_eq!(options.set_network_latency_ms(latency), Ok(()));
            assert_eq!(options.heartbeat_interval, Duration::from_millis(heartbeat));
            assert_eq!(options.election_timeout, Duration::from_millis(election));
        }
    }

    // conformance: c-api 35
    #[test]
    fn trailing_is_at_least_four_and_at_least_the_threshold() {
        let mut options = Options::default();
        for (threshold, trailing) in [(0, 3), (0, 0), (5, 4), (8192, 1024)] {
            let error = options.set_snapshot_params(threshold, trailing, 0).unwrap_err();
            assert_eq!(error.code(), DQLITE_MISUSE);
        }
        for strategy in [-1, 2] {
            let error = options.set_snapshot_params(0, 4, strategy).unwrap_err();
            assert_eq!(error, OptionError::Strategy(strategy));
            assert_eq!(error.code(), DQLITE_MISUSE);
        }
        assert_eq!(options, Options::default());
        for (threshold, trailing) in [(0, 4), (4, 4), (1024, 8192)] {
            assert_eq!(options.set_snapshot_params(threshold, trailing, 1), Ok(()));
        }
        assert_eq!(options.trailing_strategy, TrailingStrategy::Dynamic);
    }

    // conformance: c-api 36
    #[test]
    fn block_sizes_are_powers_of_two_from_512_to_256_kib() {
        let mut options = Options::default();
        for shift in 9..=18 {
            assert_eq!(options.set_block_size(1 << shift), Ok(()));
        }
        for bytes in [0, 1, 256, 511, 1000, 524_288] {
            assert_eq!(options.set_block_size(bytes).unwrap_err().code(), DQLITE_ERROR, "{bytes}");
        }
        assert_eq!(options.block_size, Some(1 << 18));
    }
}
