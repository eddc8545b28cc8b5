//! Files without a name, for what memory is too small for: nothing in them outlives the process.

use std::fmt::Debug;
use std::io;

/// Whether a file could not be written because there is no space for it.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes files without a name.
pub trait ScratchDisk: Send + Sync + Debug {
    /// An empty file that is gone when it is dropped, and when the process ends, however it ends.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self) -> io::Result<Box<dyn ScratchFile>>;
}

/// A file without a name. Several threads may use different parts of it at once.
pub trait ScratchFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset` in bytes.
    ///
    /// # Errors
    /// Those of the file system; `UnexpectedEof` behind the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all `bytes` at `offset` in bytes.
    ///
    /// # Errors
    /// Those of the file system; any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Gives the space of these bytes back to the file system; they are zeros.
    ///
    /// # Errors
    /// Those of the file system, also of one that cannot do it.
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Bytes that files may still grow by on this file system.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}
