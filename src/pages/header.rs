//! The bytes of page 1 that the rules of the log name. spec: state-machine 2.2, 2.4.

use crate::types::config::PAGE_SIZE;

/// Why a page 1 is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageOneError {
    /// Bytes 16..17 say another page size.
    #[error("page 1: page size field {0}, expected 4096")]
    PageSize(u16),
}

/// Why pages cannot be laid over a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPage {
    /// Page number 0.
    #[error("page number 0")]
    NumberZero,
    /// Page 1 is refused.
    #[error(transparent)]
    PageOne(#[from] PageOneError),
    /// Page 1 cannot be read.
    #[error("page 1: {0}")]
    Unreadable(String),
}

/// Checks the page size field.
pub(super) fn check(page: &[u8; PAGE_SIZE]) -> Result<(), PageOneError> {
    let size = u16::from_be_bytes([page[16], page[17]]);
    if usize::from(size) == PAGE_SIZE { Ok(()) } else { Err(PageOneError::PageSize(size)) }
}

/// Database size in pages, bytes 28..31; 0 in the page that deletes a database.
pub(super) fn page_count(page: &[u8; PAGE_SIZE]) -> u32 {
    u32::from_be_bytes([page[28], page[29], page[30], page[31]])
}

/// Whether two pages 1 are equal but for the change counter, version-valid-for and the SQLite version.
pub(super) fn equal_but_for_counters(left: &[u8; PAGE_SIZE], right: &[u8; PAGE_SIZE]) -> bool {
    left[..24] == right[..24] && left[28..92] == right[28..92] && left[100..] == right[100..]
}
