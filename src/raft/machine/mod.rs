//! What raft asks of the replicated state: implemented by `state_machine/`, called by one task in log order.

use std::any::Any;
use std::io;
use std::sync::Arc;

use crate::pages::PageSpace;
use crate::state_machine::content::Content;
use crate::state_machine::databases::{Databases, RestorableDatabases};
use crate::types::{Entry, LogIndex};

/// The replicated state.
pub trait Machine: Send + 'static {
    /// Applies a committed entry; called in order, once per entry that is applied.
    ///
    /// # Errors
    /// The entry is not applied.
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), NotApplied>;

    /// Whether applying this entry may wait for a disk; then it is done on the blocking pool.
    fn may_wait(&self, entry: &Entry) -> bool;

    /// The state after the last applied entry, unmoved by what is applied later.
    fn pin(&mut self) -> Box<dyn SnapshotContent>;

    /// Replaces the state by the content of a snapshot.
    ///
    /// # Errors
    /// The content is refused; nothing has changed.
    fn restore(&mut self, state: DecodedState) -> Result<(), String>;

    /// Decodes snapshots for `restore`, on any thread.
    fn decoder(&self) -> Arc<dyn Decoder>;
}

/// Why an entry was not applied; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// Only space is missing: it is tried again.
    NoSpace(String),
    /// It cannot be applied: the node stops serving for good.
    Refused(String),
}

/// A state as a snapshot holds it; only its machine knows what is inside.
pub type DecodedState = Box<dyn Any + Send>;

/// Decodes the content of snapshots.
pub trait Decoder: Send + Sync {
    /// Reads and checks a whole content: `restore` takes what this gives.
    ///
    /// # Errors
    /// The content cannot be read or is not a snapshot.
    fn decode(&self, reader: Box<dyn io::Read + Send>) -> Result<DecodedState, String>;
}

/// A pinned state that can be written out.
pub trait SnapshotContent: Send {
    /// Length of what `write_to` writes, in bytes.
    fn content_size(&self) -> u64;

    /// Writes the content.
    ///
    /// # Errors
    /// The writer failed.
    fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()>;
}

impl Machine for Databases {
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), NotApplied> {
        Databases::apply(self, index, entry).map_err(|error| match error.is_no_space() {
            true => NotApplied::NoSpace(error.to_string()),
            false => NotApplied::Refused(error.to_string()),
        })
    }

    fn may_wait(&self, entry: &Entry) -> bool {
        Databases::may_wait(self, entry)
    }

    fn pin(&mut self) -> Box<dyn SnapshotContent> {
        Box::new(Databases::pin(self))
    }

    fn restore(&mut self, state: DecodedState) -> Result<(), String> {
        let state =
            state.downcast::<RestorableDatabases>().map_err(|_| "a state of another kind".to_owned())?;
        Databases::restore(self, *state);
        Ok(())
    }

    fn decoder(&self) -> Arc<dyn Decoder> {
        Arc::new(DatabasesDecoder(self.space().clone()))
    }
}

/// Where decoded pages go.
struct DatabasesDecoder(PageSpace);

impl Decoder for DatabasesDecoder {
    fn decode(&self, mut reader: Box<dyn io::Read + Send>) -> Result<DecodedState, String> {
        let state = RestorableDatabases::read(&mut reader, &self.0).map_err(|error| error.to_string())?;
        Ok(Box::new(state))
    }
}

impl SnapshotContent for Content {
    fn content_size(&self) -> u64 {
        self.size()
    }

    fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        Content::write_to(self, writer)
    }
}
