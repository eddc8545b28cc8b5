//! Slots, the cache above them, and a disk that fails or lies.

use std::sync::atomic::Ordering;

use super::*;
use crate::pages::testing::FaultyDisk;
use crate::pages::tree::Root;
use crate::pages::{PageRef, PageSpace};
use crate::types::config::SCAN_AHEAD_PAGES;
use crate::types::scratch::is_no_space;
use crate::types::tasks::LaterPool;
use crate::types::{Chunk, PageNumber};

const EIO: i32 = libc::EIO;
const ENOSPC: i32 = libc::ENOSPC;

fn space(cache_bytes: usize) -> (FaultyDisk, PageSpace) {
    let disk = FaultyDisk::default();
    let space = PageSpace::on_disk(Arc::new(disk.clone()), cache_bytes).unwrap();
    (disk, space)
}

fn page(space: &PageSpace, number: u32, byte: u8) -> PageRef {
    space.page(PageNumber(number), &[byte; PAGE_SIZE]).unwrap()
}

fn first_byte(page: &PageRef) -> u8 {
    page.with(|bytes| bytes[0]).unwrap()
}

#[test]
fn pages_are_read_back_and_slots_without_references_are_used_again() {
    let (_, space) = space(16 * PAGE_SIZE);
    assert!(space.scratch().is_some() && PageSpace::memory().scratch().is_none());
    let file = space.file().unwrap();
    let pages: Vec<PageRef> = (2..=200).map(|number| page(&space, number, number as u8)).collect();
    assert_eq!(file.slots(), (199, 199));
    for (index, page) in pages.iter().enumerate() {
        assert_eq!(first_byte(page), index as u8 + 2);
        assert_eq!(page.scan(|bytes| bytes[4095]).unwrap(), index as u8 + 2);
    }

    let kept = pages[7].clone();
    drop(pages);
    assert_eq!(file.slots(), (1, 199));
    let again: Vec<PageRef> = (2..=199).map(|number| page(&space, number, 250)).collect();

    assert_eq!(file.slots(), (199, 199));
    assert_eq!(first_byte(&kept), 9);
    assert!(again.iter().all(|page| first_byte(page) == 250));
}

#[test]
fn page_one_is_in_memory_and_needs_no_disk() {
    let (disk, space) = space(16 * PAGE_SIZE);
    disk.0.write.store(EIO, Ordering::SeqCst);
    disk.0.read.store(EIO, Ordering::SeqCst);

    assert_eq!(first_byte(&page(&space, 1, 7)), 7);

    assert_eq!(space.file().unwrap().slots(), (0, 0));
}

#[test]
fn a_scan_does_not_drive_out_what_is_used() {
    let (disk, space) = space(16 * PAGE_SIZE);
    let pages: Vec<PageRef> = (2..=400).map(|number| page(&space, number, number as u8)).collect();
    first_byte(&pages[0]);
    for page in &pages {
        page.scan(|_| ()).unwrap();
    }

    let reads = disk.0.reads.load(Ordering::SeqCst);
    first_byte(&pages[0]);

    assert_eq!(disk.0.reads.load(Ordering::SeqCst), reads);
}

#[test]
fn errors_of_the_disk_are_errors_and_take_no_slot() {
    let (disk, space) = space(16 * PAGE_SIZE);
    let old: Vec<PageRef> = (2..100).map(|number| page(&space, number, 1)).collect();

    disk.0.write.store(ENOSPC, Ordering::SeqCst);
    let error = space.page(PageNumber(2), &[2; PAGE_SIZE]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENOSPC));
    assert_eq!(space.file().unwrap().slots(), (98, 99));
    disk.0.read.store(EIO, Ordering::SeqCst);
    assert!(old.iter().any(|page| page.with(|_| ()).is_err()));
    disk.0.write.store(0, Ordering::SeqCst);
    disk.0.read.store(0, Ordering::SeqCst);

    assert!(old.iter().all(|page| first_byte(page) == 1));
    assert_eq!(first_byte(&page(&space, 2, 2)), 2);
    assert_eq!(space.file().unwrap().slots(), (98, 99));
}

#[test]
fn a_page_that_is_not_what_was_written_is_an_error() {
    let (disk, space) = space(0);
    disk.0.falsify.store(1, Ordering::SeqCst);
    let lie = page(&space, 2, 7);
    disk.0.falsify.store(0, Ordering::SeqCst);
    // Out of the cache.
    let _others: Vec<PageRef> = (3..100).map(|number| page(&space, number, 1)).collect();

    let error = lie.with(|_| ()).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("slot 0"), "{error}");
    assert_ne!(lie, page(&space, 2, 7), "an unreadable page equals nothing");
    assert_eq!(lie, lie.clone(), "but itself");
}

#[test]
fn equal_pages_are_equal_wherever_they_are() {
    let (_, space) = space(0);
    let (file, memory) = (page(&space, 2, 7), page(&space, 1, 7));

    assert_eq!(file, memory);
    assert_eq!(file, page(&space, 3, 7));
    assert!(file.is_same(&file.clone()) && memory.is_same(&memory.clone()));
    assert!(!file.is_same(&memory) && !file.is_same(&page(&space, 3, 7)));
    assert_ne!(file, page(&space, 3, 8));
    assert_ne!(memory, page(&space, 3, 8));
}

#[test]
fn a_page_of_an_entry_is_taken_over_without_a_copy() {
    let (_, space) = space(16 * PAGE_SIZE);
    let stored = Chunk::Stored(space.file().unwrap().store(&[5; PAGE_SIZE]).unwrap());

    let adopted = space.page_of(PageNumber(9), &stored).unwrap();
    let one = space.page_of(PageNumber(1), &stored).unwrap();
    assert_eq!(space.file().unwrap().slots(), (1, 1));
    let (_, other) = self::space(0);
    let copied = other.page_of(PageNumber(9), &stored).unwrap();
    drop(stored);

    assert_eq!(other.file().unwrap().slots(), (1, 1));
    assert_eq!((first_byte(&adopted), first_byte(&one), first_byte(&copied)), (5, 5, 5));
    assert_eq!(space.page_of(PageNumber(2), &adopted.chunk()).unwrap(), adopted);
    let short = Chunk::Memory(Bytes::from_static(b"short"));
    assert!(space.page_of(PageNumber(2), &short).is_err());
}

#[test]
fn pages_that_differ_are_told_apart_without_a_look_at_the_disk_and_a_cached_one_is_had_at_once() {
    let (disk, space) = space(0);
    let stored = space.file().unwrap().store(&[5; PAGE_SIZE]).unwrap();
    assert_eq!(Arc::clone(&stored).cached().as_deref(), Some(&[5; PAGE_SIZE][..]));
    let (left, right) = (page(&space, 3, 7), page(&space, 4, 8));
    // Out of the cache.
    let _others: Vec<PageRef> = (5..100).map(|number| page(&space, number, 1)).collect();

    assert_eq!(Arc::clone(&stored).cached(), None);
    assert_ne!(left, right);

    assert_eq!(disk.0.reads.load(Ordering::SeqCst), 0);
}

/// Slots that are kept free when so many are used.
fn kept(used: u32) -> u32 {
    PAGE_FILE_KEPT_PAGES + used / PAGE_FILE_KEPT_SHARE
}

#[test]
fn the_file_gives_back_what_is_free_and_ends_with_what_is_used() {
    let (disk, space) = space(0);
    let file = space.file().unwrap();
    let low: Vec<PageRef> = (2..100).map(|number| page(&space, number, 1)).collect();
    let large: Vec<PageRef> =
        (0..5 * PAGE_FILE_KEPT_PAGES).map(|number| page(&space, 1000 + number, number as u8)).collect();
    let returned = *space.returned().watch().borrow();

    // A transaction that was rolled back.
    large.into_iter().rev().for_each(drop);

    let (used, count) = file.slots();
    assert_eq!(used, 98);
    assert!(count <= kept(used) + used, "{count}");
    assert_eq!(disk.0.length.load(Ordering::SeqCst), u64::from(count) * PAGE_SIZE as u64);
    let given = *space.returned().watch().borrow() - returned;
    assert!(given >= u64::from(5 * PAGE_FILE_KEPT_PAGES - kept(used)) * PAGE_SIZE as u64, "{given}");
    assert!(low.iter().all(|page| first_byte(page) == 1));
}

#[test]
fn what_is_free_is_punched_out_wherever_it_lies() {
    let (disk, space) = space(0);
    let mut pages: Vec<Option<PageRef>> =
        (0..4 * PAGE_FILE_KEPT_PAGES).map(|number| Some(page(&space, 2 + number, number as u8))).collect();

    for (number, page) in pages.iter_mut().enumerate() {
        if number % 64 != 63 {
            *page = None;
        }
    }

    let used = space.file().unwrap().slots().0;
    let free = 4 * PAGE_FILE_KEPT_PAGES - used;
    let punched = disk.0.punched.load(Ordering::SeqCst) / PAGE_SIZE as u64;
    assert!(punched >= u64::from(free - kept(used)), "{punched} of {free}");
    for (number, page) in pages.iter().enumerate() {
        assert!(page.as_ref().is_none_or(|page| first_byte(page) == number as u8), "{number}");
    }
}

#[test]
fn a_transaction_leaves_space_to_log_and_snapshots_and_an_entry_takes_it() {
    let (disk, space) = space(0);
    let written = |number| space.page_if_possible(PageNumber(number), &[1; PAGE_SIZE]);
    let first = written(2).unwrap();
    let free = (1 << 40) - PAGE_FILE_RESERVE_BYTES;
    disk.0.taken.store(free, Ordering::SeqCst);

    let more: Vec<PageRef> = (3..1000).map_while(|number| written(number).ok()).collect();
    assert!(
        more.len() < PAGE_FILE_GROWTH_PAGES as usize,
        "free space is looked at again after so many pages"
    );
    let refused = written(3).unwrap_err();
    assert!(is_no_space(&refused), "{refused}");
    let entry = space.page(PageNumber(3), &[2; PAGE_SIZE]).unwrap();

    // What the file has already is no growth.
    drop(first);
    let again = written(4).unwrap();
    assert!(written(5).is_err());
    disk.0.taken.store(free - PAGE_SIZE as u64, Ordering::SeqCst);
    let one = written(5).unwrap();
    drop((entry, again, one));
}

#[test]
fn space_is_given_back_on_the_pool() {
    let (disk, space) = space(0);
    let pool = LaterPool::default();
    let shared: Arc<dyn BlockingPool> = Arc::new(pool.clone());
    space.set_pool(&shared);
    let pages: Vec<PageRef> = (2..3 * PAGE_FILE_KEPT_PAGES).map(|number| page(&space, number, 1)).collect();

    drop(pages);

    assert_eq!(disk.0.punched.load(Ordering::SeqCst), 0);
    pool.catch_up();
    assert!(disk.0.punched.load(Ordering::SeqCst) > 0);
    assert!(space.file().unwrap().slots().1 <= PAGE_FILE_KEPT_PAGES / 2);
}

#[test]
fn a_page_that_is_lost_is_told_and_one_that_can_be_read_the_second_time_is_not() {
    let (disk, space) = space(0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    space.set_loss(Box::new(move |text| hears.lock().unwrap().push(text.to_owned())));
    let good = page(&space, 2, 7);
    disk.0.falsify.store(1, Ordering::SeqCst);
    let lost = page(&space, 3, 8);
    disk.0.falsify.store(0, Ordering::SeqCst);
    // Out of the cache.
    let _others: Vec<PageRef> = (4..100).map(|number| page(&space, number, 1)).collect();

    disk.0.read_once.store(EIO, Ordering::SeqCst);
    assert_eq!(good.scan(|bytes| bytes[0]).unwrap(), 7);
    assert!(told.lock().unwrap().is_empty());
    assert!(lost.with(|_| ()).is_err());
    disk.0.read.store(EIO, Ordering::SeqCst);
    assert!(good.scan(|_| ()).is_err());

    let told = told.lock().unwrap();
    assert_eq!(told[0], "slot 1 of the page file does not hold what was written to it");
    assert!(told[1].starts_with("slot 0 of the page file cannot be read: Input/output error"), "{told:?}");
}

#[test]
fn a_scan_reads_what_lies_side_by_side_at_once_and_gives_every_page_in_order() {
    let (disk, space) = space(0);
    let one = page(&space, 1, 1);
    let pages: Vec<PageRef> = (2..=1000).map(|number| page(&space, number, number as u8)).collect();
    let root = Root::from_pages([one].into_iter().chain(pages), 1);
    // A page between two runs, and one that was never stored.
    let other = page(&space, 500, 77);
    let root = root.laid_over([(PageNumber(500), &other)], 1200, 2);
    let reads = disk.0.reads.load(Ordering::SeqCst);
    let mut found = Vec::new();

    root.scan(1..=1200, |bytes| {
        found.push(bytes[9]);
        Ok(())
    })
    .unwrap();

    let expected = (1..=1200_u32).map(|number| match number {
        500 => 77,
        1..=1000 => number as u8,
        _ => 0,
    });
    assert!(found.iter().copied().eq(expected), "{found:?}");
    let reads = disk.0.reads.load(Ordering::SeqCst) - reads;
    assert!(reads < 1000 / SCAN_AHEAD_PAGES as u64 + 5, "{reads} reads");

    disk.0.read_once.store(EIO, Ordering::SeqCst);
    let mut count = 0;
    let mut counted = |_: &[u8; PAGE_SIZE]| {
        count += 1;
        Ok(())
    };
    root.scan(2..=300, &mut counted).unwrap();
    disk.0.read.store(EIO, Ordering::SeqCst);
    assert!(root.scan(2..=300, &mut counted).is_err());
    assert_eq!(count, 299);
}
