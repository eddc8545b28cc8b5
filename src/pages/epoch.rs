//! How a database ends the epoch, which all databases of a node share.

/// Whoever counts the epochs.
pub(super) trait EpochEnd: Send + Sync {
    /// Ends the current epoch: every head is thrown away.
    fn end(&self);

    /// Ends this epoch, unless it has ended.
    fn end_this(&self, epoch: u64);
}
