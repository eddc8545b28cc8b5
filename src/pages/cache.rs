//! The pages of a page file that stay in memory, up to a bound: what was used since the hand last passed stays. Their memory
//! is taken once and in one piece for each part, so that pages that come and go do not scatter the heap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::config::PAGE_SIZE;

/// Parts with a lock each.
const SHARDS: usize = 16;

/// What a place holds.
struct Place {
    slot: Option<u32>,
    used: bool,
}

struct Shard {
    /// Grows up to its capacity, which is there from the start.
    pages: Vec<[u8; PAGE_SIZE]>,
    places: Vec<Place>,
    of_slot: HashMap<u32, usize>,
    /// Places that hold nothing.
    empty: Vec<usize>,
    hand: usize,
}

impl Shard {
    fn new(pages: usize) -> Shard {
        Shard {
            pages: Vec::with_capacity(pages),
            places: Vec::with_capacity(pages),
            of_slot: HashMap::with_capacity(pages),
            empty: Vec::new(),
            hand: 0,
        }
    }

    fn insert(&mut self, slot: u32, page: &[u8; PAGE_SIZE]) {
        if self.of_slot.contains_key(&slot) {
            return;
        }
        // A page that nobody asks for again goes at the first turn of the hand.
        let held = Place { slot: Some(slot), used: false };
        if self.empty.is_empty() && self.pages.len() < self.pages.capacity() {
            self.pages.push(*page);
            self.places.push(held);
            self.of_slot.insert(slot, self.pages.len() - 1);
            return;
        }
        let place = self.empty.pop().unwrap_or_else(|| self.evict());
        self.pages[place] = *page;
        self.places[place] = held;
        self.of_slot.insert(slot, place);
    }

    /// Frees a place; all of them are taken, and there is at least one.
    fn evict(&mut self) -> usize {
        loop {
            let hand = self.hand;
            self.hand = (hand + 1) % self.places.len();
            let place = &mut self.places[hand];
            if !std::mem::take(&mut place.used) {
                if let Some(slot) = place.slot {
                    self.of_slot.remove(&slot);
                }
                return hand;
            }
        }
    }
}

/// Pages in memory by their slots.
pub(super) struct PageCache {
    shards: [Mutex<Shard>; SHARDS],
}

impl PageCache {
    /// At most about `bytes` of pages, at least one page in each part.
    pub(super) fn new(bytes: usize) -> PageCache {
        let pages = (bytes / PAGE_SIZE / SHARDS).max(1);
        PageCache { shards: std::array::from_fn(|_| Mutex::new(Shard::new(pages))) }
    }

    fn shard(&self, slot: u32) -> MutexGuard<'_, Shard> {
        self.shards[slot as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the page of a slot to `read`, if it is here. Others of its part wait meanwhile.
    pub(super) fn with<T>(&self, slot: u32, read: impl FnOnce(&[u8; PAGE_SIZE]) -> T) -> Option<T> {
        let mut shard = self.shard(slot);
        let place = *shard.of_slot.get(&slot)?;
        shard.places.get_mut(place)?.used = true;
        shard.pages.get(place).map(read)
    }

    pub(super) fn insert(&self, slot: u32, page: &[u8; PAGE_SIZE]) {
        self.shard(slot).insert(slot, page);
    }

    pub(super) fn remove(&self, slot: u32) {
        let mut shard = self.shard(slot);
        if let Some(place) = shard.of_slot.remove(&slot) {
            shard.places[place] = Place { slot: None, used: false };
            shard.empty.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &PageCache, slot: u32) -> Option<u8> {
        cache.with(slot, |page| page[0])
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_at_the_bound() {
        let cache = PageCache::new(4 * SHARDS * PAGE_SIZE);
        let slots: Vec<u32> = (0..100).map(|number| number * SHARDS as u32).collect();

        for (number, slot) in slots.iter().enumerate() {
            cache.insert(*slot, &[number as u8; PAGE_SIZE]);
            assert_eq!(get(&cache, slots[0]), Some(0));
        }

        let there = slots.iter().filter(|slot| get(&cache, **slot).is_some()).count();
        assert_eq!(there, 4);
    }

    #[test]
    fn a_slot_that_was_given_back_has_no_page_and_its_place_is_used_again() {
        let cache = PageCache::new(2 * SHARDS * PAGE_SIZE);
        cache.insert(0, &[1; PAGE_SIZE]);
        cache.insert(16, &[2; PAGE_SIZE]);

        cache.remove(0);
        assert_eq!(get(&cache, 0), None);
        cache.insert(0, &[3; PAGE_SIZE]);

        assert_eq!(get(&cache, 0), Some(3));
        assert_eq!(get(&cache, 16), Some(2));
    }
}
