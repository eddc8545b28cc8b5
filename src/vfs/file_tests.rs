//! An open file as SQLite may use it, though it seldom does: parts of pages, exact bounds, calls at the wrong time.

use std::sync::atomic::Ordering;

use super::*;
use crate::pages::PageStore;
use crate::pages::testing::FaultyDisk;
use crate::vfs::empty_page;

const PAGE: i64 = PAGE_SIZE as i64;

/// Page 1 of a database of three pages.
fn first_page() -> [u8; PAGE_SIZE] {
    let mut first = empty_page().with(|bytes| *bytes).unwrap();
    first[28..32].copy_from_slice(&3_u32.to_be_bytes());
    first[88..92].fill(5);
    first
}

/// A file of three pages, of which the last two are full of 2 and 3. It may write.
fn opened(entry_max_bytes: u64) -> File {
    let store = PageStore::new();
    let attached = store.attach(b"test", &empty_page()).unwrap();
    let pages = [(1, first_page()), (2, [2; PAGE_SIZE]), (3, [3; PAGE_SIZE])];
    let pages = pages.into_iter().map(|(number, bytes)| {
        let number = PageNumber(number);
        (number, store.space().page(number, &bytes).unwrap())
    });
    attached.database().apply_pages(pages.collect()).unwrap();
    let options = VfsOptions { entry_max_bytes, ..VfsOptions::default() };
    let file = File::new(attached, 1, options, PageSpace::memory());
    file.view().set_use_head(true);
    file.view().set_turn(true);
    file
}

fn read(file: &File, offset: i64, length: usize) -> (i32, Vec<u8>) {
    let mut buffer = vec![MaybeUninit::new(0xee); length];
    let code = file.read(&mut buffer, offset);
    // SAFETY: every byte was made with a value.
    (code, buffer.into_iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

#[test]
fn a_read_over_the_edge_of_pages_has_the_bytes_of_all_and_zeros_behind_the_end() {
    let mut file = opened(u64::MAX);
    for pinned in [false, true] {
        if pinned {
            assert_eq!(file.lock(sqlite::SQLITE_LOCK_SHARED), sqlite::SQLITE_OK);
        }
        let (code, bytes) = read(&file, 2 * PAGE - 100, 300);
        assert_eq!((code, &bytes[..]), (sqlite::SQLITE_OK, &[&[2; 100][..], &[3; 200]].concat()[..]));
        let (code, bytes) = read(&file, 2 * PAGE - 1, PAGE_SIZE + 2);
        assert_eq!(code, sqlite::SQLITE_IOERR_SHORT_READ);
        assert_eq!(bytes, [&[2][..], &[3; PAGE_SIZE], &[0]].concat());
        assert_eq!(read(&file, -1, 1).0, sqlite::SQLITE_IOERR_READ);
        assert_eq!(file.size_bytes(), 3 * PAGE);
    }
}

#[test]
fn page_1_is_shown_as_it_is_stored_but_for_the_versions() {
    let mut file = opened(u64::MAX);
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_SHARED), sqlite::SQLITE_OK);
    let version = file.pin.as_ref().unwrap().root.version().to_be_bytes();
    let mut expected = first_page();
    expected[18..20].fill(VERSION_SHOWN);
    expected[24..28].copy_from_slice(&version);
    expected[92..96].copy_from_slice(&version);

    assert_eq!(read(&file, 0, PAGE_SIZE), (sqlite::SQLITE_OK, expected.to_vec()));
    for offset in [17, 19, 25, 90, 94, 97] {
        assert_eq!(read(&file, offset as i64, 6).1, expected[offset..offset + 6], "from {offset} on");
    }
}

#[test]
fn only_a_writer_writes_and_its_transaction_has_as_many_pages_as_an_entry_takes() {
    let three = ENTRY_BYTES_ONCE + 3 * (PAGE_SIZE as u64 + ENTRY_BYTES_PER_PAGE);
    for (entry_max_bytes, taken) in [(three, 3), (three - 1, 2)] {
        let mut file = opened(entry_max_bytes);
        assert_eq!(file.lock(sqlite::SQLITE_LOCK_SHARED), sqlite::SQLITE_OK);
        assert_eq!(file.write(&[9; PAGE_SIZE], PAGE), sqlite::SQLITE_IOERR_WRITE);
        assert_eq!(file.truncate(PAGE), sqlite::SQLITE_IOERR_TRUNCATE);
        assert_eq!(file.lock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
        assert_eq!(file.write(&[9; 100], PAGE), sqlite::SQLITE_IOERR_WRITE);
        assert_eq!(file.write(&[9; PAGE_SIZE], PAGE + 1), sqlite::SQLITE_IOERR_WRITE);

        for number in 0..4 {
            let expected = if number < taken { sqlite::SQLITE_OK } else { sqlite::SQLITE_FULL };
            assert_eq!(file.write(&[9; PAGE_SIZE], (number + 1) * PAGE), expected, "{number} of {taken}");
        }
        // What is in the entry already takes no further room.
        assert_eq!(file.write(&[8; PAGE_SIZE], PAGE), sqlite::SQLITE_OK);
        assert_eq!(read(&file, PAGE, 1).1, [8]);
        assert_eq!(file.unlock(sqlite::SQLITE_LOCK_NONE), sqlite::SQLITE_OK);
        assert_eq!(read(&file, PAGE, 1).1, [2]);
    }
}

#[test]
fn a_size_in_the_middle_of_a_page_is_that_of_the_whole_page() {
    for (bytes, pages) in [(0, 0), (1, 1), (PAGE, 1), (PAGE + 1, 2), (2 * PAGE, 2), (5 * PAGE, 5)] {
        let mut file = opened(u64::MAX);
        assert_eq!(file.lock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
        assert_eq!(file.truncate(bytes), sqlite::SQLITE_OK);
        assert_eq!(file.size_bytes(), pages * PAGE, "{bytes} bytes");
        assert_eq!(file.truncate(i64::MAX), sqlite::SQLITE_IOERR_TRUNCATE);
    }
}

#[test]
fn pages_are_shown_where_they_lie_to_readers_alone_and_given_back() {
    let mut file = opened(u64::MAX);
    assert_eq!(file.fetch(PageNumber(2)), None, "no snapshot");
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_SHARED), sqlite::SQLITE_OK);
    assert!([2, 3].into_iter().all(|number| file.fetch(PageNumber(number)).is_some()));
    let root = file.pin.as_ref().unwrap().root.clone();
    file.fetched.keep(root);
    assert!(file.fetched.keeps_roots());
    (0..2).for_each(|_| file.unfetch());

    assert!(!file.fetched.keeps_roots());
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
    assert_eq!([2, 3].map(|number| file.fetch(PageNumber(number))), [None, None]);
}

#[test]
fn what_the_page_file_refuses_is_told_by_its_reason() {
    let disk = FaultyDisk::default();
    let mut file = opened(u64::MAX);
    file.space = PageSpace::on_disk(Arc::new(disk.clone()), 0).unwrap();
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
    for (error, code) in [
        (libc::ENOSPC, sqlite::SQLITE_FULL),
        (libc::ENOMEM, sqlite::SQLITE_IOERR_NOMEM),
        (libc::EIO, sqlite::SQLITE_IOERR_WRITE),
        (0, sqlite::SQLITE_OK),
    ] {
        disk.0.write.store(error, Ordering::SeqCst);
        assert_eq!(file.write(&[9; PAGE_SIZE], PAGE), code, "error {error}");
    }
}

#[test]
fn a_writer_keeps_its_changes_down_to_reserved_and_gives_them_up_below() {
    let mut file = opened(u64::MAX);
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_EXCLUSIVE), sqlite::SQLITE_OK);
    assert!(file.is_reserved());
    assert_eq!(file.write(&[9; PAGE_SIZE], PAGE), sqlite::SQLITE_OK);

    assert_eq!(file.unlock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
    assert_eq!((read(&file, PAGE, 1).1, file.is_reserved()), (vec![9], true));
    assert_eq!(file.unlock(sqlite::SQLITE_LOCK_SHARED), sqlite::SQLITE_OK);

    assert_eq!((read(&file, PAGE, 1).1, file.is_reserved()), (vec![2], false));
    assert!(file.pin.is_some(), "the snapshot stays");
}

#[test]
fn a_file_that_is_closed_in_the_middle_gives_the_write_lock_back() {
    let mut file = opened(u64::MAX);
    let database = Arc::clone(file.database());
    assert_eq!(file.lock(sqlite::SQLITE_LOCK_RESERVED), sqlite::SQLITE_OK);
    assert!(database.is_reserved());

    drop(file);

    assert!(!database.is_reserved());
}
