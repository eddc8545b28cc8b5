//! Committed entries become versions of the page store; snapshots come and go. Never skips an entry: an error is final
//! for the node. spec: state-machine 2, 3.3.

use std::io::{self, Read};
use std::sync::Arc;

use crate::pages::{BadPage, DatabaseImages, NameError, PageRef, PageSpace, PageStore, ReplaceError};
use crate::types::scratch::is_no_space;
use crate::types::{Entry, EntryKind, LogIndex, PageNumber};

use super::command::{Command, CommandError, Frames};
use super::content::{self, Content, ContentError};
use super::frames;

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
    /// Whether nothing but space or memory was missing: the entry can be applied when there is some.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let ApplyError::Io { error, .. } = self else { return false };
        is_no_space(error) || error.kind() == io::ErrorKind::OutOfMemory
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
        self.apply_command(entry)?;
        if let Some(name) = frames::deleted_database(entry) {
            self.store.remove_deleted(&name);
        }
        Ok(())
    }

    fn apply_command(&self, entry: &Entry) -> Result<(), ApplyError> {
        if let Some(proposals) = entry.proposals
            && let Some(name) = frames::frames_name(&entry.data)
            && self.store.get(&name).is_some_and(|database| database.apply_own(proposals))
        {
            return Ok(());
        }
        match Command::decode(&entry.data)? {
            Command::Open { .. } | Command::Undo { .. } | Command::Checkpoint { .. } => Ok(()),
            Command::Frames(frames) => self.apply_frames(&frames),
        }
    }

    fn apply_frames(&self, frames: &Frames) -> Result<(), ApplyError> {
        // Attached: nobody takes an empty database for one that is left while its first pages are on their way.
        let attached = self.store.attach(&frames.name, &self.empty_page)?;
        let database = attached.database();
        let space = self.store.space();
        // Images in a buffer are copied: one small page must not keep a large entry alive.
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
        self.store.space().file().is_some() && entry.kind == EntryKind::Command && entry.proposals.is_none()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::config::PAGE_SIZE;
    use crate::types::{EntryData, PageNumber, Term};

    fn page_one(size: u32, mark: u8) -> PageRef {
        let mut bytes = [mark; PAGE_SIZE];
        bytes[..16].copy_from_slice(b"SQLite format 3\0");
        bytes[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        bytes[28..32].copy_from_slice(&size.to_be_bytes());
        PageRef::new(&bytes)
    }

    fn databases() -> (Arc<PageStore>, Databases) {
        let store = PageStore::new();
        (Arc::clone(&store), Databases::new(store, page_one(1, 0)))
    }

    fn frames(name: &[u8], pages: &[(u32, PageRef)]) -> Entry {
        let pages: Vec<_> = pages.iter().map(|(number, page)| (PageNumber(*number), page.clone())).collect();
        let data = frames::encode_frames(name, &pages);
        Entry { term: Term(1), kind: EntryKind::Command, data, proposals: None }
    }

    // conformance: state-machine 7
    #[test]
    fn the_first_frames_make_their_database_from_the_empty_page() {
        let (store, databases) = databases();
        let second = PageRef::new(&[2; PAGE_SIZE]);
        assert!(store.get(b"test").is_none());

        databases.apply(LogIndex(2), &frames(b"test", &[(2, second.clone())])).unwrap();

        // Page 1 does not come with them, so that the size is that of the empty page.
        let root = store.get(b"test").unwrap().committed().root;
        assert_eq!((root.page_count(), root.get(PageNumber(1))), (1, Some(&page_one(1, 0))));
        databases.apply(LogIndex(3), &frames(b"test", &[(1, page_one(2, 7)), (2, second.clone())])).unwrap();
        let root = store.get(b"test").unwrap().committed().root;
        assert_eq!((root.page_count(), root.get(PageNumber(2))), (2, Some(&second)));
    }

    // conformance: state-machine 2
    #[test]
    fn the_old_commands_change_nothing_and_bad_ones_are_errors() {
        let (store, databases) = databases();
        let entry = |bytes: &'static [u8]| Entry {
            term: Term(1),
            kind: EntryKind::Command,
            data: EntryData::from_bytes(bytes::Bytes::from_static(bytes)),
            proposals: None,
        };
        for nothing in [
            &b"\x01\x01\0\0\0\0\0\0test.db\0"[..],
            b"\x01\x03\0\0\0\0\0\0\x05\0\0\0\0\0\0\0",
            b"\x01\x04\0\0\0\0\0\0test.db\0",
        ] {
            databases.apply(LogIndex(2), &entry(nothing)).unwrap();
        }
        assert!(store.get(b"test.db").is_none());
        for bad in [&b"\x02\x01\0\0\0\0\0\0test.db\0"[..], b"\x01\x05\0\0\0\0\0\0test.db\0", b"\x01"] {
            assert!(databases.apply(LogIndex(3), &entry(bad)).is_err(), "{bad:?}");
        }
    }

    // conformance: state-machine 12
    #[test]
    fn a_snapshot_is_the_state_of_its_moment_whatever_is_applied_while_it_is_written() {
        let (_store, databases) = databases();
        let write =
            |mark: u8| frames(b"test", &[(1, page_one(2, mark)), (2, PageRef::new(&[mark; PAGE_SIZE]))]);
        databases.apply(LogIndex(2), &write(1)).unwrap();
        let mut before = Vec::new();
        databases.pin().write_to(&mut before).unwrap();

        let pinned = databases.pin();
        databases.apply(LogIndex(3), &write(2)).unwrap();
        databases.apply(LogIndex(4), &frames(b"more", &[(1, page_one(1, 3))])).unwrap();

        let (mut during, mut after) = (Vec::new(), Vec::new());
        pinned.write_to(&mut during).unwrap();
        databases.pin().write_to(&mut after).unwrap();
        assert!(during == before && after != before);
    }
}
