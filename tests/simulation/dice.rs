//! Makes every choice of a scenario, from its seed.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A source of choices. Each part of a scenario has one of its own, so that one more choice of the disk does not change
/// what clients do.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// The source of choices of `part` in the scenario `seed`.
    pub fn new(seed: u64, part: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(part)))
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// True in `times` of 1,000 cases.
    pub fn per_mille(&mut self, times: u32) -> bool {
        self.0.random_range(0..1_000) < times
    }

    /// A number of `range`, which is not empty.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// A number below one of `ends`.
    pub fn up_to_one(&mut self, ends: &[u64]) -> u64 {
        let end = self.one(ends);
        self.of(0..end)
    }

    /// One of `all`, which is not empty.
    pub fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.random_range(0..all.len())]
    }
}
