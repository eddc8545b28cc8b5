//! The random source as a value that `node/` seeds and hands down.

use std::sync::Mutex;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// A seeded generator that several tasks share. Not for secrets.
#[derive(Debug)]
pub struct RandomSource {
    generator: Mutex<SmallRng>,
}

impl RandomSource {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn from_seed(seed: u64) -> RandomSource {
        RandomSource { generator: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }

    /// A uniform number.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        self.generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next_u64()
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill_bytes(bytes);
    }
}
