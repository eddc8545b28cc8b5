//! One file operation each, with the path in the error.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::disk::OpenMode;
use super::error::StorageError;

pub(super) fn failed(operation: &'static str, path: PathBuf, error: io::Error) -> StorageError {
    StorageError::io(operation, &path, error)
}

pub(super) fn list(directory: &Directory) -> Result<Vec<String>, StorageError> {
    let found = directory.disk().list(directory.path());
    let found = found.map_err(|error| failed("list directory", directory.path().to_path_buf(), error))?;
    Ok(found.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name).collect())
}

pub(super) fn sync_directory(directory: &Directory) -> Result<(), StorageError> {
    let synced = directory.disk().sync_directory(directory.path());
    synced.map_err(|error| failed("sync directory", directory.path().to_path_buf(), error))
}

pub(super) fn rename(directory: &Directory, from: PathBuf, to: PathBuf) -> Result<(), StorageError> {
    directory.disk().rename(&from, &to).map_err(|error| failed("rename", from, error))
}

pub(super) fn exists(directory: &Directory, path: &Path) -> Result<bool, StorageError> {
    match directory.disk().stat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("stat", path.to_path_buf(), error)),
    }
}

/// A rename that may have happened before its directory could not be synced.
pub(super) fn rename_unless_done(
    directory: &Directory,
    from: PathBuf,
    to: PathBuf,
) -> Result<(), StorageError> {
    if !exists(directory, &from)? && exists(directory, &to)? {
        return Ok(());
    }
    rename(directory, from, to)
}

pub(super) fn remove_if_there(directory: &Directory, path: PathBuf) -> Result<(), StorageError> {
    match directory.disk().remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes a file of `content`, synced; replaces one left by an earlier attempt.
pub(super) fn make_file(directory: &Directory, path: PathBuf, content: &[u8]) -> Result<(), StorageError> {
    remove_if_there(directory, path.clone())?;
    let make = || {
        let mut file = directory.disk().open(&path, OpenMode::CreateExclusive)?;
        file.write_vectored_at(&[IoSlice::new(content)], 0)?;
        file.sync_all()
    };
    make().map_err(|error| failed("write", path.clone(), error))
}

/// The content of a file that this library wrote or loaded.
pub(super) fn read_whole(directory: &Directory, path: PathBuf) -> Result<Vec<u8>, StorageError> {
    let read = || {
        let file = directory.disk().open(&path, OpenMode::Read)?;
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut content = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut content[filled..], filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(content)
    };
    read().map_err(|error| failed("read", path.clone(), error))
}
