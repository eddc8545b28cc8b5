//! Page 1 of a database that nobody has written to, and the page 1 that deletes a database.

use crate::pages::PageRef;
use crate::types::config::PAGE_SIZE;

/// Page 1 of an empty database, with the version of the SQLite in use. spec: state-machine 2.4.
#[must_use]
pub fn empty_page() -> PageRef {
    // SAFETY: takes nothing, initialises nothing, returns a constant.
    let version = unsafe { libsqlite3_sys::sqlite3_libversion_number() };
    PageRef::new(&empty_page_bytes(version))
}

fn empty_page_bytes(sqlite_version: i32) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..24].copy_from_slice(&[0x10, 0x00, 2, 2, 0, 0x40, 0x20, 0x20]);
    page[24..28].copy_from_slice(&1_u32.to_be_bytes());
    page[28..32].copy_from_slice(&1_u32.to_be_bytes());
    page[92..96].copy_from_slice(&1_u32.to_be_bytes());
    page[96..100].copy_from_slice(&sqlite_version.to_be_bytes());
    set_empty_leaf(&mut page);
    page
}

fn set_empty_leaf(page: &mut [u8; PAGE_SIZE]) {
    page[100] = 0x0d;
    page[101..105].fill(0);
    page[105..107].copy_from_slice(&[0x10, 0x00]);
    page[107..].fill(0);
}

/// Page 1 that deletes the database with this page 1. spec: state-machine 4.9.
pub(super) fn deletion_page(old: &[u8; PAGE_SIZE]) -> PageRef {
    let mut page = *old;
    for field in [28, 32, 36, 48, 52, 60, 64, 68] {
        page[field..field + 4].fill(0);
    }
    let cookie = u32::from_be_bytes([old[40], old[41], old[42], old[43]]).wrapping_add(1);
    page[40..44].copy_from_slice(&cookie.to_be_bytes());
    page[92..96].copy_from_slice(&[1, 0, 0, 0]);
    set_empty_leaf(&mut page);
    PageRef::new(&page)
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;

    // conformance: state-machine 7
    #[test]
    fn the_empty_page_has_the_specified_bytes() {
        let page = empty_page_bytes(3_040_001);

        assert_eq!(page[0x10..0x20], [0x10, 0, 2, 2, 0, 0x40, 0x20, 0x20, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(page[0x60..0x6c], [0, 0x2e, 0x63, 1, 0x0d, 0, 0, 0, 0, 0x10, 0, 0]);
        // SHA-1 of the page whose SHA-256 the specification names.
        let digest: String = Sha1::digest(page).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "c281f9b16d324ca4f799ad1853c8df760f799ff8");
    }

    // conformance: state-machine 9
    #[test]
    fn the_deletion_page_has_the_specified_bytes() {
        let mut old = empty_page_bytes(3_040_001);
        old[28..32].copy_from_slice(&7_u32.to_be_bytes());
        old[40..44].copy_from_slice(&3_u32.to_be_bytes());
        old[2000] = 5;

        let page = deletion_page(&old);

        page.with(|page| {
            assert_eq!(page[0x10..0x20], [0x10, 0, 2, 2, 0, 0x40, 0x20, 0x20, 0, 0, 0, 1, 0, 0, 0, 0]);
            assert_eq!(page[0x20..0x30], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
            assert_eq!(page[0x5c..0x6c], [1, 0, 0, 0, 0, 0x2e, 0x63, 1, 0x0d, 0, 0, 0, 0, 0x10, 0, 0]);
            assert_eq!(page[2000], 0);
        })
        .unwrap();
    }
}
