//! Which places of a growing row are taken, which are free and still cost something (memory that was touched, blocks of a
//! file), and which are free and cost nothing. Places are taken from the bottom, what is free is given up from the top, so
//! that the row can become shorter again. Pure.

use std::ops::Range;

use super::bits::Bits;

/// How much that is free may go on costing something.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// So many places whatever is taken.
    pub least: u32,
    /// And one for so many that are taken.
    pub share: u32,
}

/// The places of a row.
#[derive(Debug)]
pub struct Slots {
    /// Places that were taken at least once since the row was this long.
    count: u32,
    /// Free, and still costing something.
    idle: Bits,
    /// Free below `count`, costing nothing.
    void: Bits,
    /// Free, and about to cost nothing.
    leaving: u32,
    /// Somebody gives up what is free, and has come down to this place.
    sweep: Option<u32>,
    kept: Kept,
}

/// A place that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub slot: u32,
    /// It cost nothing before.
    pub grows: bool,
}

impl Slots {
    /// An empty row.
    #[must_use]
    pub fn new(kept: Kept) -> Slots {
        Slots { count: 0, idle: Bits::default(), void: Bits::default(), leaving: 0, sweep: None, kept }
    }

    /// Length of the row.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Places that are taken.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.count - self.idle.count() - self.void.count() - self.leaving
    }

    /// Places that are free and still cost something.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.idle.count() + self.leaving
    }

    /// Takes the lowest place that costs something already, else the lowest. `None`: all 2^32 - 1 are taken.
    pub fn take(&mut self) -> Option<Taken> {
        if let Some(slot) = self.idle.first() {
            self.idle.remove(slot);
            return Some(Taken { slot, grows: false });
        }
        if let Some(slot) = self.void.first() {
            self.void.remove(slot);
            return Some(Taken { slot, grows: true });
        }
        let slot = self.count;
        self.count = slot.checked_add(1)?;
        Some(Taken { slot, grows: true })
    }

    /// Gives a taken place back.
    pub fn give_back(&mut self, slot: u32) {
        self.idle.insert(slot);
    }

    /// Gives a place back that was taken and has cost nothing after all.
    pub fn give_back_void(&mut self, slot: u32) {
        self.void.insert(slot);
        self.shorten();
    }

    /// Whether the caller is to give up what is free: more of it costs something than is kept, and nobody else does, until `leave`
    /// has no more.
    #[must_use]
    pub fn begin_sweep(&mut self) -> bool {
        let begins = self.sweep.is_none() && self.has_surplus();
        if begins {
            self.sweep = Some(u32::MAX);
        }
        begins
    }

    fn has_surplus(&self) -> bool {
        self.idle.count() > self.most_kept()
    }

    fn most_kept(&self) -> u32 {
        self.kept.least.saturating_add(self.used() / self.kept.share.max(1))
    }

    /// The next run of free places, from the top down, that can stop to cost something, unless half of what may be kept, or less,
    /// is left. It begins and ends at multiples of `unit` and lies within one block of `block` places. Nobody gets these places
    /// until `left` is told. `None`: this sweep has ended.
    pub fn leave(&mut self, unit: u32, block: u32) -> Option<Range<u32>> {
        let mut below = self.sweep.take().unwrap_or(u32::MAX);
        while self.idle.count() > self.most_kept() / 2 {
            let last = self.idle.last_below(below)?;
            let lowest = last - last % block;
            let mut first = last;
            while first > lowest && self.idle.contains(first - 1) {
                first -= 1;
            }
            let run = first.next_multiple_of(unit)..(last + 1) / unit * unit;
            if run.is_empty() {
                below = first;
                continue;
            }
            run.clone().for_each(|slot| self.idle.remove(slot));
            self.leaving += run.end - run.start;
            self.sweep = Some(run.start);
            return Some(run);
        }
        None
    }

    /// The places of a run cost nothing any more. The row ends with the last place that costs something.
    pub fn left(&mut self, run: Range<u32>) {
        self.leaving -= run.end - run.start;
        run.for_each(|slot| self.void.insert(slot));
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.count > 0 && self.void.contains(self.count - 1) {
            self.count -= 1;
            self.void.remove(self.count);
        }
    }

    /// Whether none of these places costs anything.
    #[must_use]
    pub fn is_void(&self, mut places: Range<u32>) -> bool {
        places.all(|slot| slot >= self.count || self.void.contains(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOTHING: Kept = Kept { least: 0, share: u32::MAX };

    fn slots(kept: Kept, taken: u32) -> Slots {
        let mut slots = Slots::new(kept);
        for slot in 0..taken {
            assert_eq!(slots.take(), Some(Taken { slot, grows: true }));
        }
        slots
    }

    #[test]
    fn the_lowest_free_place_is_taken_and_one_that_costs_something_before_one_that_does_not() {
        let mut slots = slots(NOTHING, 10);
        slots.give_back(7);
        slots.give_back(3);
        let run = slots.leave(1, 512).unwrap();
        assert_eq!(run, 7..8);
        slots.left(run);

        assert_eq!(slots.take(), Some(Taken { slot: 3, grows: false }));
        assert_eq!(slots.take(), Some(Taken { slot: 7, grows: true }));
        assert_eq!(slots.take(), Some(Taken { slot: 10, grows: true }));
        assert_eq!((slots.used(), slots.count()), (11, 11));
    }

    #[test]
    fn the_row_becomes_as_short_as_what_is_taken() {
        let mut slots = slots(NOTHING, 1000);
        (5..1000).for_each(|slot| slots.give_back(slot));
        let mut runs = Vec::new();
        while let Some(run) = slots.leave(1, 512) {
            assert!(slots.used() == 5 && !slots.is_void(run.clone()));
            slots.left(run.clone());
            runs.push(run);
        }

        assert_eq!(runs, [512..1000, 5..512]);
        assert_eq!((slots.count(), slots.used(), slots.idle()), (5, 5, 0));
        assert!(slots.is_void(5..1000) && !slots.is_void(4..6));
    }

    #[test]
    fn some_is_kept_and_more_of_a_larger_row() {
        let mut slots = slots(Kept { least: 100, share: 10 }, 2000);
        for slot in 1000..1200 {
            assert!(!slots.has_surplus());
            slots.give_back(slot);
        }
        for slot in 1200..1300 {
            slots.give_back(slot);
        }
        assert!(slots.has_surplus());

        while let Some(run) = slots.leave(1, 64) {
            slots.left(run);
        }

        assert!(!slots.has_surplus());
        assert!((64..=135).contains(&slots.idle()), "{}", slots.idle());
    }

    #[test]
    fn what_is_smaller_than_a_unit_goes_on_costing_something() {
        let mut slots = slots(NOTHING, 64);
        (3..37).for_each(|slot| slots.give_back(slot));
        slots.give_back(63);
        let run = slots.leave(16, 64).unwrap();
        assert_eq!(run, 16..32);
        assert_eq!(slots.leave(16, 64), None);
        slots.left(run);
        assert_eq!((slots.idle(), slots.count()), (19, 64));
        assert_eq!(slots.take(), Some(Taken { slot: 3, grows: false }));
    }

    #[test]
    fn a_place_that_could_not_be_had_is_taken_next() {
        let mut slots = slots(NOTHING, 3);
        slots.give_back_void(2);
        assert_eq!((slots.count(), slots.take()), (2, Some(Taken { slot: 2, grows: true })));
    }

    proptest! {
        #[test]
        fn a_place_is_never_given_twice(steps in proptest::collection::vec((0u8..4, any::<u16>()), 1..300)) {
            let mut slots = Slots::new(Kept { least: 3, share: 8 });
            let mut taken = BTreeSet::new();
            let mut leaving: Vec<Range<u32>> = Vec::new();
            for (kind, number) in steps {
                match kind {
                    0 | 1 => {
                        for _ in 0..=number % 9 {
                            let slot = slots.take().unwrap().slot;
                            prop_assert!(taken.insert(slot));
                            prop_assert!(!leaving.iter().any(|run| run.contains(&slot)));
                        }
                    }
                    2 => {
                        let any = taken.iter().copied().nth(usize::from(number) % taken.len().max(1));
                        if let Some(slot) = any {
                            taken.remove(&slot);
                            slots.give_back(slot);
                        }
                    }
                    _ => match leaving.pop().filter(|_| number % 2 == 0) {
                        Some(run) => slots.left(run),
                        None => leaving.extend(slots.leave(1 + u32::from(number % 2), 8)),
                    },
                }
                prop_assert_eq!(slots.used() as usize, taken.len());
                prop_assert!(taken.last().is_none_or(|last| *last < slots.count()));
            }
        }
    }
}
