//! The pages of a page file that stay in memory, up to a bound: what was used since the hand last passed stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::config::PAGE_SIZE;

/// Parts with a lock each.
const SHARDS: usize = 16;

pub(super) type PageBytes = Arc<[u8; PAGE_SIZE]>;

struct Place {
    slot: u32,
    bytes: PageBytes,
    used: bool,
}

#[derive(Default)]
struct Shard {
    places: Vec<Option<Place>>,
    of_slot: HashMap<u32, usize>,
    /// Places that hold nothing.
    empty: Vec<usize>,
    hand: usize,
}

impl Shard {
    fn get(&mut self, slot: u32) -> Option<PageBytes> {
        let place = *self.of_slot.get(&slot)?;
        let place = self.places.get_mut(place)?.as_mut()?;
        place.used = true;
        Some(Arc::clone(&place.bytes))
    }

    fn insert(&mut self, slot: u32, bytes: PageBytes, capacity: usize) {
        if self.of_slot.contains_key(&slot) {
            return;
        }
        let place = match self.empty.pop() {
            Some(place) => place,
            None if self.places.len() < capacity => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => self.evict(),
        };
        self.of_slot.insert(slot, place);
        // A page that nobody asks for again goes at the first turn of the hand.
        self.places[place] = Some(Place { slot, bytes, used: false });
    }

    /// Frees a place; all of them are taken, and there is at least one.
    fn evict(&mut self) -> usize {
        loop {
            let hand = self.hand;
            self.hand = (hand + 1) % self.places.len();
            match &mut self.places[hand] {
                Some(place) if place.used => place.used = false,
                Some(place) => {
                    self.of_slot.remove(&place.slot);
                    return hand;
                }
                None => return hand,
            }
        }
    }

    fn remove(&mut self, slot: u32) {
        if let Some(place) = self.of_slot.remove(&slot) {
            self.places[place] = None;
            self.empty.push(place);
        }
    }
}

/// Pages in memory by their slots.
pub(super) struct PageCache {
    shards: [Mutex<Shard>; SHARDS],
    pages_per_shard: usize,
}

impl PageCache {
    /// At most about `bytes` of pages, at least one page in each part.
    pub(super) fn new(bytes: usize) -> PageCache {
        PageCache {
            shards: std::array::from_fn(|_| Mutex::default()),
            pages_per_shard: (bytes / PAGE_SIZE / SHARDS).max(1),
        }
    }

    fn shard(&self, slot: u32) -> MutexGuard<'_, Shard> {
        self.shards[slot as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, slot: u32) -> Option<PageBytes> {
        self.shard(slot).get(slot)
    }

    pub(super) fn insert(&self, slot: u32, bytes: PageBytes) {
        self.shard(slot).insert(slot, bytes, self.pages_per_shard);
    }

    pub(super) fn remove(&self, slot: u32) {
        self.shard(slot).remove(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> PageBytes {
        Arc::new([byte; PAGE_SIZE])
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_at_the_bound() {
        let cache = PageCache::new(4 * SHARDS * PAGE_SIZE);
        let slots: Vec<u32> = (0..100).map(|number| number * SHARDS as u32).collect();

        for (number, slot) in slots.iter().enumerate() {
            cache.insert(*slot, page(number as u8));
            assert_eq!(cache.get(slots[0]).unwrap()[0], 0);
        }

        let there = slots.iter().filter(|slot| cache.get(**slot).is_some()).count();
        assert_eq!(there, 4);
    }

    #[test]
    fn a_slot_that_was_given_back_has_no_page_and_its_place_is_used_again() {
        let cache = PageCache::new(2 * SHARDS * PAGE_SIZE);
        cache.insert(0, page(1));
        cache.insert(16, page(2));

        cache.remove(0);
        assert!(cache.get(0).is_none());
        cache.insert(0, page(3));

        assert_eq!(cache.get(0).unwrap()[0], 3);
        assert_eq!(cache.get(16).unwrap()[0], 2);
    }
}
