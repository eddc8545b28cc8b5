//! Slots, the cache above them, and a disk that fails or lies.

use std::sync::atomic::Ordering;

use super::*;
use crate::pages::testing::FaultyDisk;
use crate::pages::{PageRef, PageSpace};
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
    assert_eq!(stored.cached().as_deref(), Some(&[5; PAGE_SIZE][..]));
    let (left, right) = (page(&space, 3, 7), page(&space, 4, 8));
    // Out of the cache.
    let _others: Vec<PageRef> = (5..100).map(|number| page(&space, number, 1)).collect();

    assert_eq!(stored.cached(), None);
    assert_ne!(left, right);

    assert_eq!(disk.0.reads.load(Ordering::SeqCst), 0);
}
