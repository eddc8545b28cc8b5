//! Names of snapshot files and the bytes of `.meta` files. No I/O. spec: disk-format 1, 5.1.

use super::checksum::crc32;
use super::error::SnapshotMetaError;
use super::segment::parse_number;
use crate::types::{Configuration, LogIndex, Term};

/// Bytes in front of the configuration.
const HEADER_BYTES: usize = 32;

/// Longest encoded configuration. spec: disk-format 5.1.
const CONFIGURATION_MAX_BYTES: u64 = 1_048_576;

/// What comes behind the name of the data file.
const META_SUFFIX: &str = ".meta";

/// Name of the `.meta` file beside a data file.
pub(super) fn meta_name_of(data_name: &str) -> String {
    format!("{data_name}{META_SUFFIX}")
}

/// What the name of a snapshot says. The order is that of age: term, index, time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// Term of the last entry in it.
    pub term: Term,
    /// Index of the last entry in it.
    pub index: LogIndex,
    /// Milliseconds of some monotonic clock; only breaks ties.
    pub timestamp: u64,
}

impl SnapshotName {
    /// Reads the name of a data file; `None` if it is not one.
    #[must_use]
    pub fn parse(name: &str) -> Option<SnapshotName> {
        let mut numbers = name.strip_prefix("snapshot-")?.split('-').map(parse_number);
        let parsed = SnapshotName {
            term: Term(numbers.next()??),
            index: LogIndex(numbers.next()??),
            timestamp: numbers.next()??,
        };
        numbers.next().is_none().then_some(parsed)
    }

    /// Reads the name of a `.meta` file; `None` if it is not one.
    #[must_use]
    pub fn parse_meta(name: &str) -> Option<SnapshotName> {
        SnapshotName::parse(name.strip_suffix(META_SUFFIX)?)
    }

    /// Name of the data file.
    #[must_use]
    pub fn data_name(&self) -> String {
        format!("snapshot-{}-{}-{}", self.term, self.index, self.timestamp)
    }

    /// Name of the `.meta` file.
    #[must_use]
    pub fn meta_name(&self) -> String {
        meta_name_of(&self.data_name())
    }
}

/// What is known of a snapshot without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Term of the last entry in it.
    pub term: Term,
    /// Index of the last entry in it.
    pub index: LogIndex,
    /// Milliseconds of some monotonic clock; only breaks ties.
    pub timestamp: u64,
    /// Last committed configuration.
    pub configuration: Configuration,
    /// Index of its entry.
    pub configuration_index: LogIndex,
}

impl SnapshotMeta {
    /// The part that stands in the name.
    #[must_use]
    pub fn name(&self) -> SnapshotName {
        SnapshotName { term: self.term, index: self.index, timestamp: self.timestamp }
    }

    /// The bytes of the `.meta` file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let configuration = self.configuration.encode();
        let mut checked = Vec::with_capacity(16 + configuration.len());
        checked.extend_from_slice(&self.configuration_index.0.to_le_bytes());
        checked.extend_from_slice(&(configuration.len() as u64).to_le_bytes());
        checked.extend_from_slice(&configuration);
        let mut bytes = Vec::with_capacity(16 + checked.len());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&u64::from(crc32(0, &checked)).to_le_bytes());
        bytes.extend_from_slice(&checked);
        bytes
    }

    /// Reads the bytes of the `.meta` file with this name. What follows the configuration is ignored.
    ///
    /// # Errors
    /// See `SnapshotMetaError`.
    pub fn decode(name: SnapshotName, bytes: &[u8]) -> Result<SnapshotMeta, SnapshotMetaError> {
        let short = |expected| SnapshotMetaError::ShortRead { found: bytes.len(), expected };
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(short(HEADER_BYTES))?;
        let mut words = [0; 4];
        for (word, source) in words.iter_mut().zip(header.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*source);
        }
        let [format, checksum, configuration_index, length] = words;
        if format != 1 {
            return Err(SnapshotMetaError::Format(format));
        }
        if length == 0 || length > CONFIGURATION_MAX_BYTES {
            return Err(SnapshotMetaError::ConfigurationLength(length));
        }
        let length = usize::try_from(length).map_err(|_| SnapshotMetaError::ConfigurationLength(length))?;
        let configuration = rest.get(..length).ok_or(short(HEADER_BYTES + length))?;
        let computed = crc32(crc32(0, header.get(16..).unwrap_or_default()), configuration);
        // Only the low 32 bits are the checksum.
        if u64::from(computed) != checksum & 0xFFFF_FFFF {
            return Err(SnapshotMetaError::Checksum);
        }
        Ok(SnapshotMeta {
            term: name.term,
            index: name.index,
            timestamp: name.timestamp,
            configuration: Configuration::decode(configuration)?,
            configuration_index: LogIndex(configuration_index),
        })
    }
}

/// A complete snapshot in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Content of its `.meta` file.
    pub meta: SnapshotMeta,
    /// Name of the data file in the directory.
    pub data_name: String,
    /// Length of the data file in bytes.
    pub data_bytes: u64,
}
