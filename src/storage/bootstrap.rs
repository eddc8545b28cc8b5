//! Makes the log of a new cluster: term 1 and one configuration entry. spec: disk-format 7.2.

use super::directory::{Directory, DirectoryLock};
use super::error::StorageError;
use super::metadata::Metadata;
use super::segment::{FORMAT_WORD, closed_name, encode_batch_prefix, parse_name};
use super::snapshot_meta::SnapshotName;
use super::vault::write_metadata;
use crate::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};

/// Longest configuration of a bootstrap or a recovery in bytes: one block of 4096 without what stands before it.
const CONFIGURATION_MAX_BYTES: usize = 4096 - 40;

/// What a bootstrap writes before the first segment.
const FIRST_METADATA: Metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };

/// Whether there is a segment, one that was set aside too, or a snapshot. Without one, metadata of a bootstrap means that a crash cut it off.
fn has_log(directory: &Directory) -> Result<bool, StorageError> {
    let is_log = |name: &str| {
        parse_name(name).is_some() || SnapshotName::parse_meta(name).is_some() || name.starts_with("corrupt-")
    };
    Ok(directory.list()?.iter().any(|(name, _)| is_log(name)))
}

/// Makes `id` at `address` the only voter, if the stored term is 0; otherwise does nothing. Which ids do that is the
/// caller's decision.
///
/// # Errors
/// `Exists` if the first segment is there (term 1 is written then); those of the file system.
pub fn bootstrap(
    directory: &Directory,
    lock: &DirectoryLock,
    id: NodeId,
    address: &[u8],
) -> Result<(), StorageError> {
    let metadata = directory.read_metadata()?;
    let was_cut = metadata == FIRST_METADATA && !has_log(directory)?;
    if metadata.term != Term(0) && !was_cut {
        return Ok(());
    }
    let server = Server { id, address: address.to_vec(), role: Role::Voter };
    let configuration = Configuration::new(vec![server])?;
    write_metadata(directory, &FIRST_METADATA)?;
    write_configuration(directory, lock, LogIndex(1), &configuration)
}

/// Makes a closed segment of one configuration entry of term 1. spec: disk-format 9.
pub(super) fn write_configuration(
    directory: &Directory,
    _lock: &DirectoryLock,
    index: LogIndex,
    configuration: &Configuration,
) -> Result<(), StorageError> {
    let bytes = configuration.encode();
    if bytes.len() > CONFIGURATION_MAX_BYTES {
        return Err(StorageError::ConfigurationTooBig { len: bytes.len(), max: CONFIGURATION_MAX_BYTES });
    }
    let data = EntryData::from_bytes(bytes.clone());
    let entry = Entry { term: Term(1), kind: EntryKind::Change, data, proposals: None };
    let prefix =
        encode_batch_prefix(&[entry]).map_err(|source| StorageError::Payload { first: index, source })?;
    directory.make_file(&closed_name(index, index), &[&FORMAT_WORD, &prefix, &bytes])
}
