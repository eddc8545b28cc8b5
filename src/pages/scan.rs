//! All pages of a root in order: those that lie side by side in the page file are read together.

use std::io;
use std::ops::RangeInclusive;

use super::page::PageRef;
use super::tree::Root;
use crate::types::PageNumber;
use crate::types::config::{PAGE_SIZE, SCAN_AHEAD_PAGES};

const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

impl Root {
    /// Gives these pages to `take`, in order; zeros for one that was never stored. What others use stays in memory.
    ///
    /// # Errors
    /// A page cannot be read; those of `take`.
    pub fn scan(
        &self,
        numbers: RangeInclusive<u32>,
        mut take: impl FnMut(&[u8; PAGE_SIZE]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut next, last) = (*numbers.start(), *numbers.end());
        let mut window = vec![0; if self.is_in_file() { SCAN_AHEAD_PAGES * PAGE_SIZE } else { 0 }];
        while next <= last {
            let Some(page) = self.get(PageNumber(next)) else {
                take(&ZEROS)?;
                next += 1;
                continue;
            };
            let most = window.len() / PAGE_SIZE;
            let run = page.run((next + 1..=last).map_while(|number| self.get(PageNumber(number))), most);
            if run.len() > 1 && PageRef::read_run(&run, &mut window).is_ok() {
                for (page, bytes) in run.iter().zip(window.chunks_exact(PAGE_SIZE)) {
                    match bytes.try_into() {
                        Ok(bytes) if page.holds(bytes) => take(bytes)?,
                        // Once more, alone.
                        _ => page.scan(&mut take)??,
                    }
                }
            } else {
                run.iter().try_for_each(|page| page.scan(&mut take)?)?;
            }
            next += run.len() as u32;
        }
        Ok(())
    }

    /// Whether pages of it may be in the page file: page 1 never is.
    fn is_in_file(&self) -> bool {
        (2..=self.page_count())
            .find_map(|number| self.get(PageNumber(number)))
            .is_some_and(PageRef::is_in_file)
    }
}
