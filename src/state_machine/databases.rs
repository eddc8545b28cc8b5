//! Committed entries become versions of the page store; snapshots come and go. Never skips an entry: an error is final
//! for the node. spec: state-machine 2, 3.3.

use std::io::{self, Read};
use std::sync::Arc;

use crate::pages::{BadPage, DatabaseImages, NameError, PageRef, PageSpace, PageStore, ReplaceError};
use crate::types::scratch::is_no_space;
use crate::types::{Entry, EntryKind, LogIndex, PageNumber};

use super::command::{self, Command, CommandError, Frames};
use super::content::{self, Content, ContentError};

/// The replicated databases.
#[derive(Debug)]
pub struct Databases {
    store: Arc<PageStore>,
    /// Page 1 of a database that was never written. spec: state-machine 2.4.
    empty_page: PageRef,
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It does not decode.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its database cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// One of its pages cannot be.
    #[error(transparent)]
    Page(#[from] BadPage),
    /// A page cannot be read from the entry or written to the page file.
    #[error("page {number}: {error}")]
    Io {
        /// Which page.
        number: PageNumber,
        /// What happened.
        error: io::Error,
    },
}

impl ApplyError {
    /// Whether nothing but space was missing: the entry can be applied when there is some.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let ApplyError::Io { error, .. } = self else { return false };
        is_no_space(error)
    }
}

/// Why a snapshot cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It does not decode.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store refuses it.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl Databases {
    /// The databases of a store.
    #[must_use]
    pub fn new(store: Arc<PageStore>, empty_page: PageRef) -> Databases {
        Databases { store, empty_page }
    }

    /// Applies a committed entry: an own one by moving to the version that its writer made, any other by its bytes.
    ///
    /// # Errors
    /// The node must stop.
    pub fn apply(&self, _index: LogIndex, entry: &Entry) -> Result<(), ApplyError> {
        if entry.kind != EntryKind::Command {
            return Ok(());
        }
        if let Some(token) = entry.token
            && let Some(name) = command::frames_name(&entry.data)
            && self.store.get(&name).is_some_and(|database| database.apply_own(token))
        {
            return Ok(());
        }
        match Command::decode(&entry.data)? {
            Command::Open { .. } | Command::Undo { .. } | Command::Checkpoint { .. } => Ok(()),
            Command::Frames(frames) => self.apply_frames(&frames),
        }
    }

    fn apply_frames(&self, frames: &Frames) -> Result<(), ApplyError> {
        let database = self.store.open(&frames.name, &self.empty_page)?;
        let space = self.store.space();
        // Images in memory are copied: one small page must not keep a large entry alive.
        let pages = frames.pages.iter().map(|(number, image)| {
            let number = *number;
            let page = space.page_of(number, image).map_err(|error| ApplyError::Io { number, error })?;
            Ok((number, page))
        });
        Ok(database.apply_pages(pages.collect::<Result<_, ApplyError>>()?)?)
    }

    /// Whether applying this entry reads or writes the page file.
    #[must_use]
    pub fn may_wait(&self, entry: &Entry) -> bool {
        // An own entry's pages are there already, unless its epoch has ended: rare enough.
        self.store.space().file().is_some() && entry.kind == EntryKind::Command && entry.token.is_none()
    }

    /// Where the pages of the databases live.
    #[must_use]
    pub fn space(&self) -> &PageSpace {
        self.store.space()
    }

    /// The databases as they are, unmoved by what is applied later.
    #[must_use]
    pub fn pin(&self) -> Content {
        Content::new(self.store.pin_committed())
    }

    /// Makes the set of databases equal to a snapshot.
    pub fn restore(&self, state: RestorableDatabases) {
        self.store.replace_all(state.images);
    }
}

/// Databases of a snapshot, checked.
#[derive(Debug)]
pub struct RestorableDatabases {
    images: DatabaseImages,
}

impl RestorableDatabases {
    /// Reads the content of a snapshot; its pages go to `space`.
    ///
    /// # Errors
    /// It does not decode, holds what cannot be a database, or a page cannot be written.
    pub fn read(stream: &mut dyn Read, space: &PageSpace) -> Result<RestorableDatabases, RestoreError> {
        Ok(RestorableDatabases { images: DatabaseImages::check(content::read(stream, space)?)? })
    }
}
