use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::types::tasks::LaterPool;

fn resident(slab: &Slab, page: u32) -> bool {
    let mut state = [0_u8];
    let address = slab.address(page).cast_mut().cast();
    // SAFETY: asks about a page of a mapping; one byte is written for it.
    assert_eq!(unsafe { libc::mincore(address, PAGE_SIZE, state.as_mut_ptr()) }, 0);
    state[0] & 1 == 1
}

#[test]
fn pages_hold_what_they_were_made_of_and_lie_side_by_side() {
    let arena = Arena::new();
    let pages: Vec<ArenaPage> = (0..1100).map(|mark| arena.page(&[mark as u8; PAGE_SIZE]).unwrap()).collect();

    for (mark, page) in pages.iter().enumerate() {
        assert_eq!(page.bytes(), &[mark as u8; PAGE_SIZE]);
        assert_eq!(page.address(), page.bytes().as_ptr());
    }
    assert_eq!(pages[1].address().addr(), pages[0].address().addr() + PAGE_SIZE);
    assert_eq!(arena.usage(), (1100, 0));
    assert_eq!(arena.lock().slabs.len(), 3);
}

#[test]
fn what_is_free_is_used_again_before_anything_else() {
    let arena = Arena::new();
    let mut pages: Vec<ArenaPage> = (0..10).map(|_| arena.page(&[1; PAGE_SIZE]).unwrap()).collect();
    let address = pages[4].address();
    drop(pages.remove(4));

    let again = arena.page(&[2; PAGE_SIZE]).unwrap();

    assert_eq!((again.address(), again.bytes()), (address, &[2; PAGE_SIZE]));
}

#[test]
fn memory_goes_back_page_by_page_though_a_neighbour_stays() {
    let arena = Arena::new();
    let count = 8 * ARENA_KEPT_PAGES;
    let mut pages: Vec<Option<ArenaPage>> =
        (0..count).map(|mark| Some(arena.page(&[mark as u8; PAGE_SIZE]).unwrap())).collect();
    let returned = arena.returned().watch();

    // Every third stays, wherever it lies.
    for (number, page) in pages.iter_mut().enumerate() {
        if number % 3 != 0 {
            *page = None;
        }
    }

    let (used, idle) = arena.usage();
    assert_eq!(used, count.div_ceil(3));
    assert!(idle <= ARENA_KEPT_PAGES + used / ARENA_KEPT_SHARE, "{idle}");
    assert!(*returned.borrow() > u64::from(count / 2) * PAGE_SIZE as u64);
    let state = arena.lock();
    let taking = (0..count).filter(|slot| {
        let slab = state.slabs[slab_of(*slot)].as_ref().unwrap();
        resident(&slab.slab, slot % SLAB_PAGES)
    });
    let taking = taking.count() as u32;
    drop(state);
    // Pages of a larger system are whole or not at all.
    assert!(taking <= (used + idle) * pages_of_system(), "{taking} of {count} pages take memory");
    for (mark, page) in pages.iter().enumerate() {
        assert!(page.as_ref().is_none_or(|page| page.bytes() == &[mark as u8; PAGE_SIZE]), "{mark}");
    }
}

#[test]
fn slabs_without_pages_are_unmapped() {
    let arena = Arena::new();
    let low = arena.page(&[1; PAGE_SIZE]).unwrap();
    let pages: Vec<ArenaPage> =
        (0..4 * ARENA_KEPT_PAGES + 4 * SLAB_PAGES).map(|_| arena.page(&[2; PAGE_SIZE]).unwrap()).collect();
    let mapped = || arena.lock().slabs.iter().flatten().count() as u32;
    assert!(mapped() > pages.len() as u32 / SLAB_PAGES);

    drop(pages);

    assert!(mapped() <= 2 + ARENA_KEPT_PAGES / SLAB_PAGES, "{}", mapped());
    assert_eq!(low.bytes(), &[1; PAGE_SIZE]);
}

#[test]
fn memory_is_given_back_on_the_pool_and_by_one_at_a_time() {
    let arena = Arena::new();
    let pool = LaterPool::default();
    arena.set_pool(Arc::new(pool.clone()));
    let pages: Vec<ArenaPage> =
        (0..3 * ARENA_KEPT_PAGES).map(|_| arena.page(&[2; PAGE_SIZE]).unwrap()).collect();

    drop(pages);

    assert_eq!(arena.usage(), (0, 3 * ARENA_KEPT_PAGES));
    assert!(!pool.is_idle());
    pool.catch_up();
    assert!(arena.usage().1 <= ARENA_KEPT_PAGES / 2);
}

#[test]
fn pages_outlive_their_arena() {
    let arena = Arena::new();
    let page = arena.page(&[7; PAGE_SIZE]).unwrap();

    drop(arena);

    assert_eq!(page.bytes(), &[7; PAGE_SIZE]);
}

#[test]
fn threads_that_make_and_drop_pages_never_see_each_others_bytes() {
    let arena = Arena::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=3_u8)
            .map(|mark| {
                let (arena, stop) = (&arena, &stop);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let pages: Vec<ArenaPage> = (0..2 * ARENA_KEPT_PAGES)
                            .map(|_| arena.page(&[mark; PAGE_SIZE]).unwrap())
                            .collect();
                        assert!(pages.iter().all(|page| page.bytes() == &[mark; PAGE_SIZE]));
                        rounds += 1;
                        if rounds == 5 {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert_eq!(arena.usage().0, 0);
}
