//! What raft asks of the replicated state: implemented by `state_machine/`, called by one task in log order.

use std::io;

use crate::state_machine::content::Content;
use crate::state_machine::databases::Databases;
use crate::types::{Entry, LogIndex};

/// The replicated state.
pub trait Machine: Send + 'static {
    /// Applies a committed entry; called once per entry, in order.
    ///
    /// # Errors
    /// The entry cannot be applied: the node stops serving for good.
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), String>;

    /// The state after the last applied entry, unmoved by what is applied later.
    fn pin(&mut self) -> Box<dyn SnapshotContent>;

    /// Replaces the state by the content of a snapshot.
    ///
    /// # Errors
    /// The content cannot be read or is not a snapshot.
    fn restore(&mut self, reader: Box<dyn io::Read + Send>) -> Result<(), String>;
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
    fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<(), String> {
        Databases::apply(self, index, entry).map_err(|error| error.to_string())
    }

    fn pin(&mut self) -> Box<dyn SnapshotContent> {
        Box::new(Databases::pin(self))
    }

    fn restore(&mut self, mut reader: Box<dyn io::Read + Send>) -> Result<(), String> {
        Databases::restore(self, &mut reader).map_err(|error| error.to_string())
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
