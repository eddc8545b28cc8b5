//! A set of numbers that knows its lowest and its highest below a bound: words of bits, and above each 64 words one that
//! says which of them are not empty. Pure.

const WORD: usize = 64;
/// 64^6 is more than 2^32.
const LEVELS: usize = 6;

/// A set of numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    levels: [Vec<u64>; LEVELS],
    count: u32,
}

impl Bits {
    /// How many.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn word(&self, level: usize, index: usize) -> u64 {
        self.levels[level].get(index).copied().unwrap_or(0)
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let number = number as usize;
        self.word(0, number / WORD) >> (number % WORD) & 1 == 1
    }

    /// Adds a number.
    pub(super) fn insert(&mut self, number: u32) {
        if self.contains(number) {
            return;
        }
        self.count += 1;
        let mut index = number as usize;
        for words in &mut self.levels {
            let (at, bit) = (index / WORD, index % WORD);
            if words.len() <= at {
                words.resize(at + 1, 0);
            }
            let was_empty = words[at] == 0;
            words[at] |= 1 << bit;
            if !was_empty {
                return;
            }
            index = at;
        }
    }

    /// Removes a number.
    pub(super) fn remove(&mut self, number: u32) {
        if !self.contains(number) {
            return;
        }
        self.count -= 1;
        let mut index = number as usize;
        for words in &mut self.levels {
            let (at, bit) = (index / WORD, index % WORD);
            words[at] &= !(1 << bit);
            if words[at] != 0 {
                return;
            }
            index = at;
        }
    }

    /// The lowest.
    pub(super) fn first(&self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let down = |index, level| index * WORD + self.word(level, index).trailing_zeros() as usize;
        u32::try_from((0..LEVELS).rev().fold(0, down)).ok()
    }

    /// The highest below `end`.
    pub(super) fn last_below(&self, end: u32) -> Option<u32> {
        let highest = |level, index: usize, below: u64| {
            let word = self.word(level, index) & below;
            (word != 0).then(|| index * WORD + (WORD - 1) - word.leading_zeros() as usize)
        };
        let mut end = end as usize;
        for level in 0..LEVELS {
            let (at, bit) = (end / WORD, end % WORD);
            if let Some(found) = highest(level, at, (1 << bit) - 1) {
                let found = (0..level).rev().try_fold(found, |index, level| highest(level, index, u64::MAX));
                return found.and_then(|found| u32::try_from(found).ok());
            }
            end = at;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u32..5000, 0u32..5000), 1..400)) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (adds, number, below) in steps {
                // Far apart, too: whole words and levels are empty.
                let number = if number % 3 == 0 { number * 50_021 } else { number };
                if adds {
                    bits.insert(number);
                    set.insert(number);
                } else if let Some(first) = set.pop_first() {
                    bits.remove(first);
                    bits.remove(first);
                }
                prop_assert_eq!(bits.first(), set.first().copied());
                prop_assert_eq!(bits.last_below(below), set.range(..below).next_back().copied());
                prop_assert_eq!(bits.last_below(u32::MAX), set.last().copied());
                prop_assert_eq!(bits.count() as usize, set.len());
                prop_assert_eq!(bits.contains(number), set.contains(&number));
            }
        }
    }
}
