//! Errors of the data directory, with the texts that upstream gives. spec: disk-format 3, 4.4, 7.5.

use std::io;

use crate::host::register::lost_in;
use crate::types::{ConfigurationError, LogIndex, Term};

/// What kind of failure it is; upstream's return codes follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// The content contradicts itself (`RAFT_CORRUPT`).
    Corrupt,
    /// The content is of an unknown form (`RAFT_MALFORMED`).
    Malformed,
    /// The file system, or a file that ends too early (`RAFT_IOERR`).
    Io,
    /// A payload that is not allowed (`RAFT_INVALID`).
    Invalid,
    /// Too large (`RAFT_TOOBIG`).
    TooBig,
    /// The directory cannot be used (`RAFT_INVALID`, `RAFT_NOTFOUND`, `RAFT_UNAUTHORIZED`).
    Directory,
    /// Somebody else uses the directory.
    Locked,
    /// Something is there that must not be (`RAFT_CANTBOOTSTRAP`).
    Exists,
}

/// Why one batch of a segment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside the batch.
    #[error("read {what}: short read: {found} bytes instead of {expected}")]
    ShortRead {
        /// Which part.
        what: &'static str,
        /// Bytes there.
        found: usize,
        /// Bytes needed.
        expected: u64,
    },
    /// Count of zero: the normal end of a segment that was not closed.
    #[error("entries count in preamble is zero")]
    ZeroCount,
    /// More entries than any writer puts into a batch.
    #[error("entries count {0} in preamble is too high")]
    TooManyEntries(u64),
    /// Header CRC.
    #[error("header checksum mismatch")]
    HeaderChecksum,
    /// A type other than 1, 2, 3.
    #[error("unknown entry type {0}")]
    EntryType(u8),
    /// Data CRC.
    #[error("data checksum mismatch")]
    DataChecksum,
    /// Payload length is not a multiple of 8.
    #[error("entry buffers must be 8-byte aligned")]
    Unaligned,
    /// The file cannot be read, or a payload cannot be kept.
    #[error("{0}")]
    Unreadable(String),
}

impl From<io::Error> for BatchError {
    fn from(error: io::Error) -> BatchError {
        BatchError::Unreadable(error.to_string())
    }
}

impl BatchError {
    /// Kind of the failure. spec: disk-format 4.4.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        match self {
            BatchError::ShortRead { .. } | BatchError::Unreadable(_) => StorageErrorKind::Io,
            BatchError::EntryType(_) => StorageErrorKind::Malformed,
            BatchError::Unaligned => StorageErrorKind::Invalid,
            BatchError::ZeroCount
            | BatchError::TooManyEntries(_)
            | BatchError::HeaderChecksum
            | BatchError::DataChecksum => StorageErrorKind::Corrupt,
        }
    }
}

/// Why a segment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// A closed segment without a byte.
    #[error("file is empty")]
    Empty,
    /// Not even a format word.
    #[error("file has only {0} bytes")]
    TooShort(usize),
    /// Format word.
    #[error("unexpected format version {0}")]
    Format(u64),
    /// The name says otherwise.
    #[error("found {found} entries, the name says {expected}")]
    Count {
        /// Entries in the file.
        found: u64,
        /// Entries by the name.
        expected: u64,
    },
    /// One batch.
    #[error("entries batch {number} starting at byte {offset}: {error}")]
    Batch {
        /// From 1.
        number: u64,
        /// Where it starts.
        offset: usize,
        /// What is wrong with it.
        error: BatchError,
    },
}

impl SegmentError {
    /// Kind of the failure. spec: disk-format 4.4.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        match self {
            SegmentError::Empty | SegmentError::Format(_) | SegmentError::Count { .. } => {
                StorageErrorKind::Corrupt
            }
            SegmentError::TooShort(_) => StorageErrorKind::Io,
            SegmentError::Batch { error, .. } => error.kind(),
        }
    }
}

/// Why a `.meta` file cannot be read. spec: disk-format 5.1, 7.5.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotMetaError {
    /// Shorter than its header or its configuration.
    #[error("short read: {found} bytes instead of {expected}")]
    ShortRead {
        /// Bytes there.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// Format word.
    #[error("unexpected format version {0}")]
    Format(u64),
    /// Length of the configuration is 0 or above the bound.
    #[error("configuration data length {0} is not between 1 and 1048576")]
    ConfigurationLength(u64),
    /// CRC.
    #[error("checksum mismatch")]
    Checksum,
    /// The configuration.
    #[error("decode configuration: {0}")]
    Configuration(#[from] ConfigurationError),
}

/// Why metadata cannot be read. spec: disk-format 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Format word.
    #[error("bad format version {0}")]
    Format(u64),
    /// Version 0.
    #[error("version is set to zero")]
    ZeroVersion,
}

/// Failure of an operation on the data directory.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The path has more than 894 bytes.
    #[error("directory path too long")]
    PathTooLong,
    /// Nothing there.
    #[error("directory '{0}' does not exist")]
    DirectoryMissing(String),
    /// Something else is there.
    #[error("path '{0}' is not a directory")]
    NotADirectory(String),
    /// The owner may not write.
    #[error("directory '{0}' is not writable")]
    NotWritable(String),
    /// It cannot be looked at.
    #[error("can't access directory '{path}': {source}")]
    NoAccess {
        /// Directory.
        path: String,
        /// Of the file system.
        source: io::Error,
    },
    /// Another node holds `dqlite-lock`.
    #[error("couldn't lock the raft directory")]
    Locked {
        /// Who holds it, as far as that can be found out.
        by: Option<String>,
    },
    /// It was removed after it had been opened.
    #[error("the data directory '{0}' was removed: nothing that is written to it is kept")]
    DirectoryGone(String),
    /// The lock that was taken is not what others would have to take.
    #[error("lost the lock of the data directory '{path}': {source}")]
    LockLost {
        /// Directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file of the log is a link, a directory or the like.
    #[error("{0} is no regular file: what it stands for is not read, and nothing is written over it")]
    NoRegularFile(String),
    /// A metadata file is too long.
    #[error("{name} has size {size} instead of 32")]
    MetadataSize {
        /// File.
        name: &'static str,
        /// Bytes there.
        size: u64,
    },
    /// The content of a metadata file.
    #[error("decode content of {name}: {error}")]
    Metadata {
        /// File.
        name: &'static str,
        /// What is wrong.
        error: MetadataError,
    },
    /// Both files have one version.
    #[error("metadata1 and metadata2 are both at version {0}")]
    MetadataVersions(u64),
    /// Entries beyond which no election can be held.
    #[error("the log has entries of term {0}: no term is left for others")]
    TermsEnded(Term),
    /// A closed segment cannot be read.
    #[error("load closed segment {name}: {error}")]
    ClosedSegment {
        /// File.
        name: String,
        /// What is wrong.
        error: SegmentError,
    },
    /// An open segment cannot be read.
    #[error("load open segment {name}: {error}")]
    OpenSegment {
        /// File.
        name: String,
        /// What is wrong.
        error: SegmentError,
    },
    /// A gap or an overlap.
    #[error("unexpected closed segment {name}: first index should have been {expected}")]
    UnexpectedSegment {
        /// File.
        name: String,
        /// Index that comes next.
        expected: LogIndex,
    },
    /// Entries between the snapshot and the segments are missing.
    #[error("closed segment {segment} is past last snapshot {snapshot}")]
    PastSnapshot {
        /// First kept closed segment.
        segment: String,
        /// Newest snapshot.
        snapshot: String,
    },
    /// Entries before an open segment are missing: what is in it cannot be applied.
    #[error("{}", not_one_run(.name, *.expected, *.found, .behind.as_deref()))]
    Hole {
        /// The open segment.
        name: String,
        /// Index of the entry that would come next.
        expected: LogIndex,
        /// Index of its first entry, if it is known.
        found: Option<LogIndex>,
        /// The damaged segment before it.
        behind: Option<String>,
    },
    /// Entries of an open segment may be two things.
    #[error(
        "open segment {name} fits neither behind the closed segments, which end before snapshot {snapshot}, nor behind \
         the snapshot: its terms are lower"
    )]
    Unplaceable {
        /// The open segment.
        name: String,
        /// Newest snapshot.
        snapshot: String,
    },
    /// The log is not that of the snapshot, and goes on behind it.
    #[error(
        "snapshot {snapshot} and the log contradict each other: entry {index} of the log has term {found}, and entries up \
         to {last} follow"
    )]
    Contradiction {
        /// Newest snapshot.
        snapshot: String,
        /// Its index.
        index: LogIndex,
        /// Term of the log there.
        found: Term,
        /// Last entry of the log.
        last: LogIndex,
    },
    /// Term and vote are lost.
    #[error(
        "metadata1 and metadata2 are missing or empty beside a log ({log}): term and vote are lost. Put the files back; or \
         remove this node from its cluster; a node that is alone gets others with dqlite_node_recover_ext"
    )]
    MetadataMissing {
        /// A file of the log.
        log: String,
    },
    /// The log ends before the snapshot.
    #[error("last entry on disk has index {last}, which is behind last snapshot's index {snapshot}")]
    BehindSnapshot {
        /// Last entry.
        last: LogIndex,
        /// Index of the snapshot.
        snapshot: LogIndex,
    },
    /// A `.meta` file cannot be read.
    #[error("read {name}: {error}")]
    SnapshotMeta {
        /// File.
        name: String,
        /// What is wrong.
        error: SnapshotMetaError,
    },
    /// More than one block.
    #[error("configuration of {len} bytes does not fit into {max}")]
    ConfigurationTooBig {
        /// Bytes encoded.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The servers given are no configuration.
    #[error("configuration: {0}")]
    Configuration(#[from] ConfigurationError),
    /// A file that is to be made is there.
    #[error("file {0} already exists")]
    Exists(String),
    /// A part of an entry that is to be written is not in memory and cannot be read.
    #[error("entries from {first}: {source}")]
    Payload {
        /// Index of the first entry of the batch.
        first: LogIndex,
        /// Of the page file.
        source: io::Error,
    },
    /// The file system.
    #[error("{what}: {source}")]
    Io {
        /// Operation and file.
        what: String,
        /// Of the file system.
        source: io::Error,
    },
}

fn not_one_run(name: &str, expected: LogIndex, found: Option<LogIndex>, behind: Option<&str>) -> String {
    match (found, behind) {
        (Some(found), _) => {
            format!("open segment {name} begins with entry {found}, and {expected} comes next")
        }
        (None, Some(damaged)) => format!("open segment {name} follows {damaged}, which is damaged"),
        (None, None) => format!("open segment {name} does not follow entry {}", expected.previous()),
    }
}

impl StorageError {
    /// A failure of the file system while doing `operation` with the file `name`.
    #[must_use]
    pub fn io(operation: &str, name: &str, source: io::Error) -> StorageError {
        StorageError::Io { what: format!("{operation} {name}"), source }
    }

    /// Whether no later try succeeds: others have closed a descriptor of the node, or have taken its directory away.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => lost_in(source).is_some(),
            StorageError::LockLost { .. } | StorageError::DirectoryGone(_) => true,
            _ => false,
        }
    }

    /// Who holds the lock that could not be had.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        match self {
            StorageError::Locked { by } => by.as_deref(),
            _ => None,
        }
    }

    /// Kind of the failure.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        match self {
            StorageError::PathTooLong
            | StorageError::DirectoryMissing(_)
            | StorageError::DirectoryGone(_)
            | StorageError::NotADirectory(_)
            | StorageError::LockLost { .. }
            | StorageError::NotWritable(_)
            | StorageError::NoAccess { .. } => StorageErrorKind::Directory,
            StorageError::Locked { .. } => StorageErrorKind::Locked,
            StorageError::Metadata { error: MetadataError::Format(_), .. } => StorageErrorKind::Malformed,
            StorageError::MetadataSize { .. }
            | StorageError::Metadata { error: MetadataError::ZeroVersion, .. }
            | StorageError::MetadataVersions(_)
            | StorageError::UnexpectedSegment { .. }
            | StorageError::PastSnapshot { .. }
            | StorageError::BehindSnapshot { .. }
            | StorageError::Hole { .. }
            | StorageError::Unplaceable { .. }
            | StorageError::Contradiction { .. }
            | StorageError::NoRegularFile(_)
            | StorageError::MetadataMissing { .. } => StorageErrorKind::Corrupt,
            StorageError::ClosedSegment { error, .. } | StorageError::OpenSegment { error, .. } => {
                error.kind()
            }
            StorageError::SnapshotMeta { error, .. } => match error {
                SnapshotMetaError::ShortRead { .. } => StorageErrorKind::Io,
                SnapshotMetaError::Format(_) | SnapshotMetaError::Configuration(_) => {
                    StorageErrorKind::Malformed
                }
                SnapshotMetaError::ConfigurationLength(_) | SnapshotMetaError::Checksum => {
                    StorageErrorKind::Corrupt
                }
            },
            StorageError::ConfigurationTooBig { .. } => StorageErrorKind::TooBig,
            StorageError::Configuration(_) | StorageError::TermsEnded(_) => StorageErrorKind::Invalid,
            StorageError::Exists(_) => StorageErrorKind::Exists,
            StorageError::Io { .. } | StorageError::Payload { .. } => StorageErrorKind::Io,
        }
    }
}
