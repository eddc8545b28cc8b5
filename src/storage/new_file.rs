//! A file that gets its name when it is whole: until then it has none, so that nobody who lists the directory trips over it. Where
//! there are no files without a name it has a `tmp-` one, which every node ignores and the next start removes.
//! spec: disk-format 1, 6.1, 7.1.

use std::io::{self, ErrorKind, IoSlice};

use super::directory::{Directory, TEMPORARY_PREFIX};
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;

/// What is made; without `name` it goes away.
#[derive(Debug)]
pub(super) struct NewFile {
    directory: Directory,
    file: Box<dyn DiskFile>,
    name: String,
    /// The name that it has meanwhile, if it needs one.
    temporary: Option<String>,
    /// It may have its name.
    named: bool,
}

impl NewFile {
    /// An empty file that is to be called `name`.
    pub(super) fn create(directory: &Directory, name: &str) -> Result<NewFile, StorageError> {
        let failed = |source| StorageError::io("make", name, source);
        let (file, temporary) = match directory.place().create_unnamed().map_err(failed)? {
            Some(file) => (file, None),
            None => {
                let temporary = format!("{TEMPORARY_PREFIX}{name}");
                // Left by an earlier attempt.
                directory.remove_if_there(&temporary)?;
                let file = directory.place().open(&temporary, OpenMode::CreateExclusive).map_err(failed)?;
                (file, Some(temporary))
            }
        };
        Ok(NewFile { directory: directory.clone(), file, name: name.to_owned(), temporary, named: false })
    }

    /// The name that it is to have.
    pub(super) fn target(&self) -> &str {
        &self.name
    }

    /// Makes this its content, durably.
    pub(super) fn write(&mut self, content: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.write_vectored_at(content, 0)?;
        self.file.sync_all()
    }

    /// The same open file once more.
    pub(super) fn duplicate(&self) -> Result<Box<dyn DiskFile>, StorageError> {
        self.file.duplicate().map_err(|source| StorageError::io("open", &self.name, source))
    }

    /// Gives it its name, unless that is taken. Durable after a sync of the directory. Can be called again after an error.
    pub(super) fn name(&mut self) -> Result<(), StorageError> {
        if self.named {
            return Ok(());
        }
        match self.temporary.clone() {
            None => match self.file.link(&self.name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Err(StorageError::Exists(self.name.clone()));
                }
                result => result.map_err(|source| StorageError::io("name", &self.name, source))?,
            },
            Some(_) if self.directory.exists(&self.name)? => {
                return Err(StorageError::Exists(self.name.clone()));
            }
            Some(temporary) => self.directory.rename(&temporary, &self.name)?,
        }
        self.named = true;
        Ok(())
    }

    /// Gives it its name, from the file that has it. A name is never free in between: this needs a temporary one on the way.
    pub(super) fn replace(mut self) -> Result<(), StorageError> {
        let temporary = match self.temporary.clone() {
            Some(temporary) => temporary,
            None => {
                let temporary = format!("{TEMPORARY_PREFIX}{}", self.name);
                self.directory.remove_if_there(&temporary)?;
                let linked = self.file.link(&temporary);
                linked.map_err(|source| StorageError::io("name", &temporary, source))?;
                self.temporary = Some(temporary.clone());
                temporary
            }
        };
        self.directory.rename(&temporary, &self.name)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.as_ref().filter(|_| !self.named) {
            // What cannot be removed here is removed by the next start.
            let _ = self.directory.remove(temporary);
        }
    }
}
