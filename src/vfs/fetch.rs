//! Pages that SQLite reads where they lie: a reader's connection needs no copies of its own, which every commit of another
//! connection would make worthless. SQLite reference: `xFetch`, `PRAGMA mmap_size`.

use crate::pages::{Pin, Root};
use crate::types::PageNumber;

/// With a damaged page SQLite may look at so many bytes behind it, as its own VFS for Unix allows for.
const LOOKED_AT_BEHIND: usize = 256;

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
        let bytes = pin.root.get(number)?.in_place(LOOKED_AT_BEHIND)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageStore;
    use crate::types::config::PAGE_SIZE;
    use crate::vfs::empty_page;

    /// A root of so many pages, where a store keeps them.
    fn pinned(page_count: u32) -> Pin {
        let store = PageStore::new();
        let attached = store.attach(b"test", &empty_page()).unwrap();
        let database = attached.database();
        let mut first = empty_page().with(|bytes| *bytes).unwrap();
        first[28..32].copy_from_slice(&page_count.to_be_bytes());
        let space = store.space();
        let page = |number, bytes| (PageNumber(number), space.page(PageNumber(number), bytes).unwrap());
        let rest = (2..=page_count).map(|number| page(number, &[7; PAGE_SIZE]));
        database.apply_pages([page(1, &first)].into_iter().chain(rest).collect()).unwrap();
        database.committed()
    }

    #[test]
    fn every_page_but_the_first_is_shown_where_it_lies_if_memory_is_behind_it() {
        let pin = pinned(1200);
        let mut fetched = Fetched::default();

        assert_eq!(fetched.fetch(&pin, PageNumber(1)), None);
        assert_eq!(fetched.fetch(&pin, PageNumber(1201)), None);
        for number in 2..=1200 {
            let place = pin.root.get(PageNumber(number)).unwrap().with(|bytes| bytes.as_ptr()).unwrap();
            assert_eq!(fetched.fetch(&pin, PageNumber(number)), Some(place), "{number}");
            // SAFETY: that many bytes behind a page that is shown can be read, whatever is in them.
            let behind = unsafe { place.wrapping_add(PAGE_SIZE + LOOKED_AT_BEHIND - 1).read_volatile() };
            assert!(behind == 7 || behind == 0);
        }
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
