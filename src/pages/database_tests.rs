//! Versions, heads, epochs and pins of one database.

use super::*;
use crate::pages::{DatabaseImages, PageStore};

fn page(count: u32, mark: u8) -> PageRef {
    let mut bytes = [mark; PAGE_SIZE];
    bytes[16..18].copy_from_slice(&4096_u16.to_be_bytes());
    bytes[28..32].copy_from_slice(&count.to_be_bytes());
    PageRef::new(&bytes)
}

fn opened() -> (Arc<PageStore>, Arc<Database>) {
    let store = PageStore::new();
    let attached = store.attach(b"test", &page(1, 0)).unwrap();
    let database = Arc::clone(attached.database());
    // The connection that it stands for outlives the test.
    std::mem::forget(attached);
    (store, database)
}

fn write(database: &Arc<Database>, pages: &[(u32, PageRef)]) -> Commit {
    let pin = database.head();
    let mut overlay = Overlay::new(pin.root.clone());
    for (number, page) in pages {
        overlay.write(PageNumber(*number), page.clone());
    }
    database.commit(&pin, overlay).unwrap()
}

fn token(epoch: u64, sequence: u64) -> ProposalToken {
    ProposalToken { epoch, sequence }
}

fn one(epoch: u64, sequence: u64) -> ProposalRange {
    ProposalRange::of(token(epoch, sequence))
}

#[tokio::test]
async fn an_entry_of_several_proposals_applies_all_or_none_of_them() {
    let (store, database) = opened();
    let first = write(&database, &[(1, page(2, 1)), (2, page(0, 2))]);
    let empty = write(&database, &[]);
    let second = write(&database, &[(2, page(0, 3))]);
    let third = write(&database, &[(2, page(0, 4))]);
    for (commit, sequence) in [(&first, 4), (&second, 5), (&third, 6)] {
        assert!(database.assign(commit.version, token(store.epoch(), sequence)));
    }
    let versions = [first.version, empty.version, second.version, third.version];
    let mut waits = versions.map(|version| Box::pin(database.when_applied(store.epoch(), version)));
    let range = |first, last| ProposalRange { epoch: store.epoch(), first, last };

    for wrong in [range(5, 6), range(4, 7), range(3, 5), ProposalRange { epoch: 99, ..range(4, 5) }] {
        assert!(!database.apply_own(wrong), "{wrong:?}");
        assert_eq!(database.in_flight_transactions(), 4, "{wrong:?}");
    }
    assert!(database.apply_own(range(4, 5)));

    assert_eq!(database.committed().root.version(), second.version);
    assert_eq!(database.in_flight_transactions(), 1);
    for wait in &mut waits[..3] {
        assert_eq!(wait.await, Ok(()));
    }
    assert!(futures_util::poll!(&mut waits[3]).is_pending());
    assert!(database.apply_own(range(6, 6)));
    assert_eq!((&mut waits[3]).await, Ok(()));
}

#[test]
fn a_commit_says_whether_the_database_became_smaller_or_is_deleted() {
    let (_, database) = opened();
    assert!(!write(&database, &[(1, page(3, 1)), (2, page(0, 2)), (3, page(0, 3))]).shrinks);
    assert!(!write(&database, &[(1, page(3, 7)), (2, page(0, 5))]).shrinks);
    assert!(write(&database, &[(1, page(2, 1))]).shrinks);
    assert!(!write(&database, &[(1, page(4, 1))]).shrinks);
    assert!(write(&database, &[(1, page(0, 1))]).shrinks);
}

#[tokio::test]
async fn own_entries_move_committed_in_order_and_wake_who_waits() {
    let (store, database) = opened();
    let first = write(&database, &[(1, page(2, 1)), (2, page(0, 2))]);
    let second = write(&database, &[(2, page(0, 3))]);
    assert_eq!(second.version, first.version + 1);
    assert!(database.assign(first.version, token(store.epoch(), 1)));
    assert!(database.assign(second.version, token(store.epoch(), 2)));
    let waits = database.when_applied(store.epoch(), second.version);
    assert_eq!(database.committed().root.page_count(), 1);
    assert_eq!(database.in_flight_transactions(), 2);

    assert!(!database.apply_own(one(store.epoch(), 2)));
    assert!(database.apply_own(one(store.epoch(), 1)));
    assert!(database.apply_own(one(store.epoch(), 2)));

    assert_eq!(waits.await, Ok(()));
    assert_eq!(database.committed().root.version(), second.version);
    assert_eq!(database.when_applied(store.epoch(), first.version).await, Ok(()));
    assert_eq!(store.room().usage(), (0, 0, 0));
}

#[tokio::test]
async fn a_commit_without_changes_takes_a_version_and_is_applied_with_its_base() {
    let (store, database) = opened();
    let before = database.head();
    let alone = write(&database, &[]);
    assert!(alone.pages.is_empty());
    assert_ne!(alone.version, before.root.version());
    assert_eq!(database.committed().root.version(), alone.version);

    let base = write(&database, &[(1, page(2, 1)), (2, page(0, 2))]);
    let empty = write(&database, &[(2, page(0, 2))]);
    assert!(empty.pages.is_empty());
    assert!(database.assign(base.version, token(store.epoch(), 1)));
    let waits = database.when_applied(store.epoch(), empty.version);
    assert!(database.apply_own(one(store.epoch(), 1)));

    assert_eq!(waits.await, Ok(()));
    assert_eq!(database.committed().root.version(), empty.version);
}

#[test]
fn page_1_with_other_counters_only_is_neither_listed_nor_stored() {
    let (_store, database) = opened();
    let old = database.head().root.get(PageNumber(1)).cloned().unwrap();
    let mut bytes = old.with(|bytes| *bytes).unwrap();
    bytes[24..28].fill(9);
    bytes[92..100].fill(9);

    let commit = write(&database, &[(1, PageRef::new(&bytes))]);
    assert!(commit.pages.is_empty());
    assert!(database.head().root.get(PageNumber(1)).unwrap().is_same(&old));

    bytes[40] = 1;
    assert_eq!(write(&database, &[(1, PageRef::new(&bytes))]).pages.len(), 1);
}

#[tokio::test]
async fn the_end_of_an_epoch_discards_the_head_and_says_what_was_surely_not_appended() {
    let (store, database) = opened();
    let epoch = store.epoch();
    let mut watch = store.watch_epoch();
    let commits: Vec<_> = (2..5).map(|mark| write(&database, &[(1, page(1, mark))])).collect();
    database.assign(commits[0].version, token(epoch, 1));
    database.assign(commits[1].version, token(epoch, 2));
    let waits: Vec<_> = commits.iter().map(|commit| database.when_applied(epoch, commit.version)).collect();
    let pin = database.head();

    // Another one has nothing to do with it.
    store.end_this_epoch(epoch - 1, None);
    store.end_this_epoch(epoch, Some(2));
    store.end_this_epoch(epoch, None);

    let mut outcomes = Vec::new();
    for wait in waits {
        outcomes.push(wait.await.unwrap_err().appended);
    }
    assert_eq!(outcomes, [Appended::Maybe, Appended::No, Appended::No]);
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), epoch + 1);
    assert!(database.head().root.version() > commits[2].version + 1);
    assert_eq!(database.head().root.version(), database.committed().root.version());
    let CommitError::Stale(stale) = database.commit(&pin, Overlay::new(pin.root.clone())).unwrap_err() else {
        panic!("an error of another kind")
    };
    assert_eq!(stale, StaleEpoch { version: commits[2].version, epoch });
    assert!(!database.apply_own(one(epoch, 1)));
    assert!(!database.assign(commits[2].version, token(epoch, 3)));
    assert!(database.when_applied(epoch, 1).await.is_err());
}

// conformance: state-machine 3, 6
#[test]
fn a_foreign_entry_discards_the_head_and_sets_both_roots() {
    let (store, database) = opened();
    write(&database, &[(1, page(3, 1)), (2, page(0, 2)), (3, page(0, 3))]);

    database.apply_pages(vec![(PageNumber(1), page(2, 9)), (PageNumber(3), page(0, 8))]).unwrap();

    assert_eq!(store.epoch(), 2);
    let root = database.head().root;
    assert_eq!(root.version(), database.committed().root.version());
    assert_eq!(root.page_count(), 2);
    assert_eq!(root.get(PageNumber(2)), None);
    assert_eq!(root.get(PageNumber(3)), None);
}

// conformance: state-machine 9
#[test]
fn size_0_in_page_1_means_deleted_and_leaves_one_page() {
    let store = PageStore::new();
    let attached = store.attach(b"test", &page(1, 0)).unwrap();
    let database = Arc::clone(attached.database());
    database.apply_pages(vec![(PageNumber(1), page(2, 9)), (PageNumber(2), page(0, 8))]).unwrap();

    database.apply_pages(vec![(PageNumber(1), page(0, 9))]).unwrap();

    assert_eq!(database.committed().root.page_count(), 1);
    assert!(store.get(b"test").is_some());
    drop(attached);
    assert!(store.get(b"test").is_none());
}

// conformance: state-machine 4
#[test]
fn a_page_1_of_another_page_size_is_refused() {
    let (_store, database) = opened();
    let mut bytes = page(1, 0).with(|bytes| *bytes).unwrap();
    bytes[16] = 4;

    let error = database.apply_pages(vec![(PageNumber(1), PageRef::new(&bytes))]).unwrap_err();

    assert_eq!(error.to_string(), "page 1: page size field 1024, expected 4096");
    assert_eq!(database.committed().root.version(), 1);
}

#[test]
fn one_connection_at_a_time_has_the_write_lock() {
    let (_store, database) = opened();

    let pin = database.head();
    assert_eq!(database.reserve(&pin, None), Reserved::No);
    assert_eq!(database.reserve(&pin, Some(1)), Reserved::Yes);
    assert_eq!(database.reserve(&pin, Some(1)), Reserved::Yes);
    assert_eq!(database.reserve(&pin, Some(2)), Reserved::No);
    database.unreserve(2);
    assert_eq!(database.reserve(&pin, Some(2)), Reserved::No);
    database.unreserve(1);
    assert_eq!(database.reserve(&pin, Some(2)), Reserved::Yes);
}

#[test]
fn a_connection_of_an_ended_epoch_gets_no_write_lock_in_the_next() {
    let (store, database) = opened();
    let pin = database.head();

    store.end_epoch(None);

    assert_eq!(database.reserve(&pin, Some(1)), Reserved::NotOnHead);
    assert_eq!(database.reserve(&database.head(), Some(2)), Reserved::Yes);
}

// conformance: state-machine 14
#[test]
fn a_snapshot_replaces_the_set_of_databases_and_open_handles_see_it() {
    let (store, database) = opened();
    let attached = store.attach(b"other", &page(1, 0)).unwrap();
    let other = attached.database();
    let stale = other.head();

    let images = DatabaseImages::check(vec![
        (b"test".to_vec(), vec![page(2, 4), page(0, 5)]),
        (b"new".to_vec(), vec![page(1, 6)]),
    ]);
    store.replace_all(images.unwrap());

    assert_eq!(database.committed().root.get(PageNumber(2)), Some(&page(0, 5)));
    assert_eq!(other.committed().root.page_count(), 1);
    assert!(other.commit(&stale, Overlay::new(stale.root.clone())).is_err());
    let names: Vec<_> = store.pin_committed().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [b"new".to_vec(), b"test".to_vec()]);
    assert_eq!(store.epoch(), 2);
}

#[test]
fn pages_of_old_pins_are_counted_while_the_pins_live() {
    let (_store, database) = opened();
    let pages = (1..=50).map(|number| (PageNumber(number), page(50, number as u8))).collect();
    database.apply_pages(pages).unwrap();
    let pin = database.committed();
    for mark in 0..20 {
        database.apply_pages(vec![(PageNumber(1), page(50, mark))]).unwrap();
    }
    let later = database.committed();
    database.apply_pages(vec![(PageNumber(2), page(50, 1)), (PageNumber(3), page(50, 2))]).unwrap();

    assert_eq!(database.pages_kept_by_old_pins(), 22);
    for mark in 0..100 {
        database.apply_pages(vec![(PageNumber(1), page(50, mark))]).unwrap();
    }
    // No root keeps more pages than it has.
    assert_eq!(database.pages_kept_by_old_pins(), 20 + 50);
    drop((pin, later));
    assert_eq!(database.pages_kept_by_old_pins(), 0);
}

// conformance: state-machine 5
#[test]
fn names_that_mean_something_else_to_sqlite_are_refused() {
    let store = PageStore::new();
    let long = vec![b'a'; 505];
    for name in [b"".as_slice(), b"a\0b", &long] {
        assert!(crate::pages::check_name(name).is_err(), "{name:?}");
        assert!(store.attach(name, &page(1, 0)).is_err(), "{name:?}");
    }
    // What a C node has replicated is kept; only clients may not open it.
    for name in [b":memory:".as_slice(), b"file:x", b"x-wal", b"x-journal"] {
        assert!(crate::pages::check_name(name).is_err(), "{name:?}");
        assert!(store.attach(name, &page(1, 0)).is_ok(), "{name:?}");
    }
    assert!(crate::pages::check_name(&long[..504]).is_ok());
}

// conformance: state-machine 6
#[test]
fn a_page_that_was_cut_off_does_not_come_back_when_the_database_grows_again() {
    let (_store, database) = opened();
    let four = [(1, page(4, 1)), (2, page(0, 2)), (3, page(0, 3)), (4, page(0, 4))];
    let numbered = |pages: &[(u32, PageRef)]| {
        pages.iter().map(|(number, page)| (PageNumber(*number), page.clone())).collect::<Vec<_>>()
    };
    database.apply_pages(numbered(&four)).unwrap();

    database.apply_pages(numbered(&[(1, page(2, 5))])).unwrap();
    database.apply_pages(numbered(&[(1, page(4, 6)), (4, page(0, 7))])).unwrap();

    let root = database.committed().root;
    assert_eq!(root.page_count(), 4);
    assert_eq!(root.get(PageNumber(2)), Some(&page(0, 2)));
    assert_eq!(root.get(PageNumber(3)), None, "zeros");
    assert_eq!(root.get(PageNumber(4)), Some(&page(0, 7)));

    // Without page 1 the size stays; of two images of one page the later wins.
    database.apply_pages(numbered(&[(2, page(0, 8)), (2, page(0, 9))])).unwrap();
    let root = database.committed().root;
    assert_eq!((root.page_count(), root.get(PageNumber(2))), (4, Some(&page(0, 9))));
}

#[test]
fn a_database_that_is_only_opened_is_no_database_yet_and_goes_with_its_last_connection() {
    let store = PageStore::new();
    let names = || store.pin_committed().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let first = store.attach(b"test", &page(1, 0)).unwrap();
    let second = store.attach(b"test", &page(1, 0)).unwrap();
    assert_eq!((names().len(), store.databases().len()), (0, 1));
    drop(first);
    assert!(store.get(b"test").is_some());
    drop(second);
    assert!(store.get(b"test").is_none());

    // A first write that comes to nothing leaves nothing.
    let attached = store.attach(b"test", &page(1, 0)).unwrap();
    write(attached.database(), &[(1, page(2, 1)), (2, page(0, 1))]).propose(|_| true);
    drop(attached);
    assert!(store.get(b"test").is_some());
    store.end_epoch(None);
    assert!(store.get(b"test").is_none());

    // What an entry or a snapshot brings stays.
    let attached = store.attach(b"test", &page(1, 0)).unwrap();
    attached.database().apply_pages(vec![(PageNumber(1), page(2, 1)), (PageNumber(2), page(0, 1))]).unwrap();
    drop(attached);
    assert_eq!(names(), [b"test".to_vec()]);
}

#[test]
fn a_commit_that_is_not_proposed_ends_its_epoch_unless_it_changed_nothing() {
    let (store, database) = opened();
    drop(write(&database, &[]));
    write(&database, &[(1, page(1, 1))]).propose(|_| true);
    assert_eq!(store.epoch(), 1);

    write(&database, &[(1, page(1, 2))]).propose(|_| false);
    assert_eq!(store.epoch(), 2);
    drop(write(&database, &[(1, page(1, 3))]));
    assert_eq!(store.epoch(), 3);
    let old = write(&database, &[(1, page(1, 4))]);
    store.end_epoch(None);
    drop(old);
    assert_eq!(store.epoch(), 4, "only its own");
}

#[test]
fn neither_an_old_epoch_nor_a_database_that_has_gone_takes_a_commit_though_the_version_is_the_head() {
    let store = PageStore::new();
    let attached = store.attach(b"test", &page(1, 0)).unwrap();
    let database = Arc::clone(attached.database());
    let old = database.head();
    store.end_epoch(None);
    assert_eq!(database.head().root.version(), old.root.version());
    assert_eq!(database.reserve(&old, Some(1)), Reserved::NotOnHead);
    assert!(database.commit(&old, Overlay::new(old.root.clone())).is_err());

    database.apply_pages(vec![(PageNumber(1), page(0, 9))]).unwrap();
    let pin = database.head();
    drop(attached);
    assert!(store.get(b"test").is_none());
    assert_eq!(database.reserve(&pin, Some(1)), Reserved::NotOnHead);
    assert!(database.commit(&pin, Overlay::new(pin.root.clone())).is_err());
}

#[test]
fn what_is_in_flight_is_charged_page_by_page_until_it_is_applied() {
    let (store, database) = opened();
    let commit = write(&database, &[(1, page(3, 1)), (2, page(0, 2)), (3, page(0, 3))]);
    assert!(database.assign(commit.version, token(store.epoch(), 1)));
    assert_eq!(store.room().usage(), (1, 3 * PAGE_SIZE, 0));

    assert!(database.apply_own(one(store.epoch(), 1)));

    assert_eq!(store.room().usage(), (0, 0, 0));
}

#[test]
fn an_entry_with_a_page_0_is_refused_whole() {
    let (_store, database) = opened();
    let before = database.committed().root.version();

    let refused = database.apply_pages(vec![(PageNumber(1), page(1, 5)), (PageNumber(0), page(0, 1))]);

    assert_eq!(refused, Err(crate::pages::BadPage::NumberZero));
    assert_eq!(database.committed().root.version(), before);
}
