//! Puts a new configuration behind the log of a node that is not running, and says where a log ends.
//! spec: disk-format 9.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::bootstrap::write_configuration;
use super::directory::{Directory, DirectoryLock};
use super::error::StorageError;
use super::metadata::Metadata;
use super::plan::SetAside;
use super::settle::settle;
use super::survey::{LoadOptions, Loaded, Survey, survey};
use super::vault::write_metadata;
use crate::types::config::{PAGE_SIZE, TERM_END};
use crate::types::payload::{PayloadStore, StoredBytes};
use crate::types::{Configuration, LogIndex, NodeId, Term};

/// Takes payloads that nobody reads, for whoever only wants to know where a log ends: they need no memory.
#[derive(Debug)]
pub struct Forgotten;

impl PayloadStore for Forgotten {
    fn store(&self, _bytes: &[u8; PAGE_SIZE]) -> io::Result<Arc<dyn StoredBytes>> {
        Ok(Arc::new(Forgotten))
    }
}

impl StoredBytes for Forgotten {
    fn read(self: Arc<Self>) -> io::Result<Bytes> {
        Err(io::Error::other("this payload was not kept"))
    }

    fn cached(self: Arc<Self>) -> Option<Bytes> {
        None
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Appends `configuration` as an entry of term 1, whatever the terms before it. Metadata stays as it is, unless it is lost or its
/// term is so high that nobody can stand any more: then it is the one behind those of the log, without a vote.
///
/// # Errors
/// Those of `load`, but that metadata may be missing; `ConfigurationTooBig`; `TermsEnded`; those of the file system.
pub fn recover(
    directory: &Directory,
    lock: &DirectoryLock,
    options: &LoadOptions,
    configuration: &Configuration,
) -> Result<Vec<SetAside>, StorageError> {
    let Survey { loaded, plan, .. } = survey(directory, options)?;
    let metadata = repaired(&loaded)?;
    settle(directory, lock, &plan, options.wall_clock.as_ref())?;
    write_configuration(directory, lock, loaded.last_index().next(), configuration)?;
    // Last: a recovery that was cut off is to be repeated, and a node that forgot its term must not join the old members.
    if let Some(metadata) = metadata {
        lock.check()?;
        write_metadata(directory, &metadata)?;
    }
    Ok(loaded.set_aside)
}

/// What a directory begins anew with that has no metadata, or took up a term without a successor; none if its term is of use.
fn repaired(loaded: &Loaded) -> Result<Option<Metadata>, StorageError> {
    let Metadata { version, term, .. } = loaded.metadata;
    if version > 0 && term.0 < TERM_END - 1 {
        return Ok(None);
    }
    let in_snapshot = loaded.snapshot.iter().map(|file| file.meta.term);
    let last = loaded.entries.iter().map(|entry| entry.term).chain(in_snapshot).max().unwrap_or_default();
    if last.0 >= TERM_END - 2 {
        return Err(StorageError::TermsEnded(last));
    }
    Ok(Some(Metadata { version: version + 1, term: Term(last.0 + 1), voted_for: NodeId(0) }))
}

/// Index and term of the last entry, or of the snapshot behind which there is none; 0 and 0 in an empty directory.
/// Changes nothing: it may be asked beside a running node.
///
/// # Errors
/// Those of `load`, but that metadata may be missing.
pub fn describe_last_entry(
    directory: &Directory,
    options: &LoadOptions,
) -> Result<(LogIndex, Term), StorageError> {
    let Survey { loaded, .. } = survey(directory, options)?;
    let term = match (loaded.entries.last(), &loaded.snapshot) {
        (Some(entry), _) => entry.term,
        (None, Some(snapshot)) => snapshot.meta.term,
        (None, None) => Term(0),
    };
    Ok((loaded.last_index(), term))
}
