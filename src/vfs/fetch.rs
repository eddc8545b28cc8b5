//! Pages that SQLite reads where they lie: a reader's connection needs no copies of its own, which every commit of another
//! connection would make worthless. SQLite reference: `xFetch`, `PRAGMA mmap_size`.

use std::ffi::{c_int, c_void};
use std::ptr;

use libsqlite3_sys as sqlite;

use super::callbacks::with_file;
use super::file::page_at;
use crate::pages::{Pin, Root};
use crate::types::PageNumber;
use crate::types::config::PAGE_SIZE;

/// With a damaged page SQLite may look at so many bytes behind it, as its own VFS for Unix allows for.
const LOOKED_AT_BEHIND: usize = 256;

/// What is mapped in pieces of this size, or of multiples of it, on every platform.
const MAPPED_UNIT: usize = 4096;

/// Pages that SQLite holds, of the pinned root or of ones before it.
#[derive(Default)]
pub(super) struct Fetched {
    pages: usize,
    /// Roots that a commit replaced while SQLite held pages of theirs.
    before: Vec<Root>,
}

impl Fetched {
    /// Where a page of the pinned root lies. `None`: SQLite has to ask for a copy.
    pub(super) fn fetch(&mut self, pin: &Pin, number: PageNumber) -> Option<*const u8> {
        // Page 1 is not shown as it is stored.
        if number == PageNumber(1) || number.0 > pin.root.page_count() {
            return None;
        }
        let bytes = pin.root.get(number)?.in_memory()?.as_ptr();
        if !is_readable_behind(bytes) {
            return None;
        }
        self.pages += 1;
        Some(bytes)
    }

    pub(super) fn release(&mut self) {
        self.pages = self.pages.saturating_sub(1);
        if self.pages == 0 {
            self.before.clear();
        }
    }

    #[cfg(test)]
    pub(super) fn keeps_roots(&self) -> bool {
        !self.before.is_empty()
    }

    /// The pinned root is replaced.
    pub(super) fn keep(&mut self, root: Root) {
        if self.pages > 0 {
            self.before.push(root);
        }
    }
}

/// Whether what SQLite may look at behind the page surely is memory: it lies in the same piece as the page's end.
fn is_readable_behind(page: *const u8) -> bool {
    let end = page.addr() % MAPPED_UNIT;
    end != 0 && end + LOOKED_AT_BEHIND <= MAPPED_UNIT
}

pub(super) unsafe extern "C" fn fetch(
    file: *mut sqlite::sqlite3_file,
    offset: sqlite::sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes a pointer to be set.
    unsafe { *out = ptr::null_mut() };
    let Some(number) = page_at(offset).filter(|_| usize::try_from(amount) == Ok(PAGE_SIZE)) else {
        return sqlite::SQLITE_OK;
    };
    let mut page = None;
    // SAFETY: SQLite passes a file that `open` made.
    let code = unsafe {
        with_file(file, |file| {
            page = file.fetch(number);
            sqlite::SQLITE_OK
        })
    };
    if let Some(page) = page {
        // SQLite does not write to pages that it fetched.
        // SAFETY: SQLite passes a pointer to be set.
        unsafe { *out = page.cast_mut().cast() };
    }
    code
}

pub(super) unsafe extern "C" fn unfetch(
    file: *mut sqlite::sqlite3_file,
    _offset: sqlite::sqlite3_int64,
    page: *mut c_void,
) -> c_int {
    if page.is_null() {
        // All mappings are to be forgotten: there are none.
        return sqlite::SQLITE_OK;
    }
    // SAFETY: SQLite passes a file that `open` made.
    unsafe {
        with_file(file, |file| {
            file.unfetch();
            sqlite::SQLITE_OK
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::{PageRef, PageStore};
    use crate::vfs::empty_page;

    /// A root of so many pages.
    fn pinned(page_count: u32) -> Pin {
        let attached = PageStore::new().attach(b"test", &empty_page()).unwrap();
        let database = attached.database();
        let mut first = empty_page().with(|bytes| *bytes).unwrap();
        first[28..32].copy_from_slice(&page_count.to_be_bytes());
        let rest = (2..=page_count).map(|number| (PageNumber(number), PageRef::new(&[7; PAGE_SIZE])));
        let pages = [(PageNumber(1), PageRef::new(&first))].into_iter().chain(rest);
        database.apply_pages(pages.collect()).unwrap();
        database.committed()
    }

    #[test]
    fn what_sqlite_may_look_at_behind_a_page_is_memory() {
        let readable = |address| is_readable_behind(ptr::without_provenance(address));
        for address in [1 << 20 | 1, 1 << 20 | 16, 1 << 20 | (MAPPED_UNIT - LOOKED_AT_BEHIND)] {
            assert!(readable(address), "{address:#x}");
        }
        for address in [1 << 20, 1 << 20 | (MAPPED_UNIT - LOOKED_AT_BEHIND + 1), 1 << 20 | (MAPPED_UNIT - 1)]
        {
            assert!(!readable(address), "{address:#x}");
        }
    }

    #[test]
    fn every_page_but_the_first_is_shown_where_it_lies_if_memory_is_behind_it() {
        let mut shown = 0;
        for page_count in [40, 41, 42] {
            let pin = pinned(page_count);
            let mut fetched = Fetched::default();
            assert_eq!(fetched.fetch(&pin, PageNumber(1)), None);
            assert_eq!(fetched.fetch(&pin, PageNumber(page_count + 1)), None);
            for number in 2..=page_count {
                let place = pin.root.get(PageNumber(number)).unwrap().in_memory().unwrap().as_ptr();
                let expected = is_readable_behind(place).then_some(place);
                assert_eq!(fetched.fetch(&pin, PageNumber(number)), expected, "{number} of {page_count}");
                shown += usize::from(expected.is_some());
            }
        }
        assert!(shown > 80, "{shown}");
    }

    #[test]
    fn roots_that_were_replaced_are_kept_until_sqlite_holds_no_page() {
        let pin = pinned(40);
        let mut fetched = Fetched::default();
        fetched.keep(pin.root.clone());
        assert!(fetched.before.is_empty(), "nothing is held");
        let held: Vec<u32> =
            (2..=40).filter(|number| fetched.fetch(&pin, PageNumber(*number)).is_some()).collect();
        assert_eq!(fetched.pages, held.len());

        fetched.keep(pin.root.clone());
        for _ in &held[1..] {
            fetched.release();
            assert_eq!(fetched.before.len(), 1);
        }
        fetched.release();

        assert!(fetched.before.is_empty());
        assert_eq!(fetched.pages, 0);
    }
}
