//! What is asked of the snapshot files.

use std::io::Read;

use crate::raft::machine::SnapshotContent;
use crate::raft::types::SnapshotPosition;

/// The snapshot files of the directory. Called on the blocking pool.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Writes and syncs a snapshot; older ones may be removed.
    ///
    /// # Errors
    /// The disk failed; the earlier snapshot is still there.
    fn write(&self, position: &SnapshotPosition, content: &dyn SnapshotContent) -> Result<(), String>;

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

    /// Begins a snapshot that comes from elsewhere; it does not exist before it is named.
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

    /// Makes the whole content durable and reads it back.
    ///
    /// # Errors
    /// The disk failed, or the content is shorter than announced.
    fn seal(&mut self) -> Result<Box<dyn Read + Send>, String>;

    /// Makes it a snapshot of the directory.
    ///
    /// # Errors
    /// The disk failed.
    fn name(self: Box<Self>) -> Result<(), String>;
}
