//! What is asked of the snapshot files.

use std::io::Read;

use crate::raft::machine::SnapshotContent;
use crate::raft::types::SnapshotPosition;
use crate::storage::snapshot::Sealed;

/// The snapshot files of the directory. Called on the blocking pool.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Writes and syncs the content of a snapshot, which does not exist yet.
    ///
    /// # Errors
    /// The disk failed.
    fn write(
        &self,
        position: &SnapshotPosition,
        content: &dyn SnapshotContent,
    ) -> Result<Box<dyn Sealed>, String>;

    /// Opens the content of a snapshot.
    ///
    /// # Errors
    /// The snapshot has gone or cannot be read.
    fn open(&self, position: &SnapshotPosition) -> Result<Box<dyn Read + Send>, String>;

    /// Bytes of that content.
    ///
    /// # Errors
    /// The snapshot has gone or cannot be read.
    fn content_bytes(&self, position: &SnapshotPosition) -> Result<u64, String>;

    /// Begins a snapshot that comes from elsewhere.
    ///
    /// # Errors
    /// The disk failed.
    fn receive(
        &self,
        position: &SnapshotPosition,
        content_bytes: u64,
    ) -> Result<Box<dyn ReceivedSnapshot>, String>;
}

/// A snapshot on its way to the disk. Called on the blocking pool.
pub trait ReceivedSnapshot: Send {
    /// Takes the next bytes of the content.
    ///
    /// # Errors
    /// The disk failed, or there are more than announced.
    fn write(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Makes the whole content durable; the snapshot does not exist yet.
    ///
    /// # Errors
    /// The disk failed, or the content is shorter than announced.
    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, String>;
}
