//! Makes the log of a new cluster: term 1 and one configuration entry. spec: disk-format 7.2.

use std::io::IoSlice;

use super::catalogue::Catalogue;
use super::directory::{Directory, DirectoryLock};
use super::error::StorageError;
use super::metadata::Metadata;
use super::new_file::NewFile;
use super::segment::{FORMAT_WORD, closed_name, decode_open, encode_batch_prefix};
use super::vault::{read_metadata, write_metadata};
use crate::types::{Configuration, Entry, EntryData, EntryKind, LogIndex, NodeId, Role, Server, Term};

/// Longest configuration of a bootstrap or a recovery in bytes: one block of 4096 without what stands before it.
const CONFIGURATION_MAX_BYTES: usize = 4096 - 40;

/// What a bootstrap writes before the first segment.
const FIRST_METADATA: Metadata = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };

/// A file of a log, one that was set aside too; none if there are none but prepared segments.
fn file_of_log(directory: &Directory) -> Result<Option<String>, StorageError> {
    directory.check_names()?;
    let files = directory.list()?;
    let Catalogue { snapshot, closed, open } = Catalogue::of(&files);
    if let Some(snapshot) = snapshot {
        return Ok(Some(snapshot.data_name));
    }
    if let Some(segment) = closed.into_iter().next() {
        return Ok(Some(segment.name));
    }
    for name in open {
        // What cannot be read is no prepared segment either.
        let is_prepared =
            decode_open(&directory.read(&name)?).is_ok_and(|content| content.entries.is_empty());
        if !is_prepared {
            return Ok(Some(name));
        }
    }
    Ok(files.into_iter().map(|(name, _)| name).find(|name| name.starts_with("corrupt-")))
}

/// Makes `id` at `address` the only voter, if the stored term is 0 or nothing but the metadata of a bootstrap is there, which
/// a crash cut off; otherwise does nothing. Which ids do that is the caller's decision.
///
/// # Errors
/// `MetadataMissing` if there is a log, which then stays as it is; those of the file system.
pub fn bootstrap(
    directory: &Directory,
    lock: &DirectoryLock,
    id: NodeId,
    address: &[u8],
) -> Result<(), StorageError> {
    let metadata = read_metadata(directory)?;
    if metadata.term != Term(0) && metadata != FIRST_METADATA {
        return Ok(());
    }
    match file_of_log(directory)? {
        Some(_) if metadata == FIRST_METADATA => return Ok(()),
        Some(log) => return Err(StorageError::MetadataMissing { log }),
        None => {}
    }
    let server = Server { id, address: address.to_vec(), role: Role::Voter };
    let configuration = Configuration::new(vec![server])?;
    lock.check()?;
    write_metadata(directory, &FIRST_METADATA)?;
    write_configuration(directory, lock, LogIndex(1), &configuration)
}

/// Makes a closed segment of one configuration entry of term 1. spec: disk-format 9.
pub(super) fn write_configuration(
    directory: &Directory,
    lock: &DirectoryLock,
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
    let name = closed_name(index, index);
    lock.check()?;
    let mut segment = NewFile::create(directory, &name)?;
    let slices = [IoSlice::new(&FORMAT_WORD), IoSlice::new(&prefix), IoSlice::new(&bytes)];
    segment.write(&slices).map_err(|source| StorageError::io("make", &name, source))?;
    lock.check()?;
    segment.name()?;
    directory.sync()
}
