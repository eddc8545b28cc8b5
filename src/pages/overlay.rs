//! The private changes of one write transaction over a root.

use std::collections::BTreeMap;

use super::page::PageRef;
use super::tree::Root;
use crate::types::PageNumber;

/// Changed pages and the new size over a base root.
#[derive(Clone, Debug)]
pub struct Overlay {
    base: Root,
    pages: BTreeMap<u32, PageRef>,
    page_count: u32,
    /// Pages of the base above this were cut off, even if the size grew again.
    base_count: u32,
}

impl Overlay {
    /// No change yet.
    #[must_use]
    pub fn new(base: Root) -> Overlay {
        let page_count = base.page_count();
        Overlay { base, pages: BTreeMap::new(), page_count, base_count: page_count }
    }

    /// Size in pages.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Pages written so far.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.pages.len()
    }

    /// Whether this page was written.
    #[must_use]
    pub fn contains(&self, number: PageNumber) -> bool {
        self.pages.contains_key(&number.0)
    }

    /// Writes a page; the size grows to contain it. Page 0 does not exist and is ignored.
    pub fn write(&mut self, number: PageNumber, page: PageRef) {
        if number.0 == 0 {
            return;
        }
        self.pages.insert(number.0, page);
        self.page_count = self.page_count.max(number.0);
    }

    /// Cuts or grows to `page_count` pages.
    pub fn truncate(&mut self, page_count: u32) {
        if page_count < self.page_count {
            self.pages.split_off(&(page_count + 1));
            self.base_count = self.base_count.min(page_count);
        }
        self.page_count = page_count;
    }

    /// The page as this transaction sees it; `None` reads as zeros.
    #[must_use]
    pub fn get(&self, number: PageNumber) -> Option<&PageRef> {
        if let Some(page) = self.pages.get(&number.0) {
            return Some(page);
        }
        if number.0 > self.base_count { None } else { self.base.get(number) }
    }

    pub(super) fn into_pages(self) -> BTreeMap<u32, PageRef> {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::page;
    use super::*;

    #[test]
    fn what_was_cut_off_is_zeros_when_the_size_grows_again() {
        let mut overlay = Overlay::new(Root::from_pages((1..=4).map(page), 1));
        overlay.write(PageNumber(2), page(8));
        overlay.write(PageNumber(4), page(9));
        overlay.truncate(4);
        assert_eq!((overlay.changed(), overlay.get(PageNumber(3))), (2, Some(&page(3))));

        overlay.truncate(2);
        assert_eq!((overlay.page_count(), overlay.changed()), (2, 1));
        assert_eq!(overlay.get(PageNumber(2)), Some(&page(8)));
        overlay.truncate(4);

        assert_eq!(overlay.page_count(), 4);
        assert!(overlay.contains(PageNumber(2)) && !overlay.contains(PageNumber(4)));
        assert_eq!((overlay.get(PageNumber(3)), overlay.get(PageNumber(4))), (None, None));
    }

    #[test]
    fn a_page_that_is_written_makes_room_for_itself_and_page_0_is_none() {
        let mut overlay = Overlay::new(Root::from_pages((1..=2).map(page), 1));
        overlay.write(PageNumber(6), page(7));
        overlay.write(PageNumber(0), page(7));

        assert_eq!((overlay.page_count(), overlay.changed()), (6, 1));
        assert_eq!((overlay.get(PageNumber(2)), overlay.get(PageNumber(5))), (Some(&page(2)), None));
        assert_eq!((overlay.get(PageNumber(6)), overlay.get(PageNumber(0))), (Some(&page(7)), None));
    }
}
