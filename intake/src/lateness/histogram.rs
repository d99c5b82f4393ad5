//! Counts durations so that any quantile is known to 1 %, in buckets that grow with their value.
//!
//! The log-linear buckets of HdrHistogram (Gil Tene): exact below 128, then 64 buckets for each doubling, so a bucket is at
//! most 1/64 of its value wide and its middle at most 1/128 (0.8 %) from any value in it. Compared with a KLL sketch: adding is an
//! index and an increment instead of a random compaction, merging is adding, the error concerns the value and not the
//! rank, and two readings of the same log give the same figures.

use std::sync::atomic::{AtomicU64, Ordering};

/// Each value below it has its own bucket.
const EXACT_BELOW: u64 = 128;
/// Buckets for each doubling, as a power of two.
const BUCKETS_LOG2: u32 = 6;
/// Buckets for all 64-bit values.
const BUCKETS: usize = bucket(u64::MAX) + 1;

/// Counts that one thread increments while others read.
pub(super) struct Histogram(Box<[AtomicU64]>);

impl Default for Histogram {
    fn default() -> Self {
        Histogram((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    /// Counts a value. One thread at a time: a concurrent increment could be lost.
    #[inline]
    pub fn add(&self, value: u64) {
        let count = &self.0[bucket(value)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds the counts to `counts`.
    pub fn add_to(&self, counts: &mut HistogramCounts) {
        for (total, count) in counts.0.iter_mut().zip(&self.0) {
            *total += count.load(Ordering::Relaxed);
        }
    }
}

/// The sum of any number of histograms.
pub(super) struct HistogramCounts(Vec<u64>);

impl Default for HistogramCounts {
    fn default() -> Self {
        HistogramCounts(vec![0; BUCKETS])
    }
}

impl HistogramCounts {
    /// Adds `events` at value 0.
    pub fn add_zeros(&mut self, events: u64) {
        self.0[0] += events;
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The smallest and the largest value of the bucket that holds the `q`-quantile; (0, 0) without values.
    pub fn quantile(&self, q: f64) -> (u64, u64) {
        let rank = (q * self.total() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or((0, 0), bounds)
    }
}

#[inline]
const fn bucket(value: u64) -> usize {
    if value < EXACT_BELOW {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - BUCKETS_LOG2;
    ((shift as usize) << BUCKETS_LOG2) + (value >> shift) as usize
}

/// Smallest and largest value of a bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    if bucket < EXACT_BELOW as usize {
        return (bucket as u64, bucket as u64);
    }
    let shift = (bucket >> BUCKETS_LOG2) - 1;
    let low = ((bucket - (shift << BUCKETS_LOG2)) as u64) << shift;
    (low, low + ((1 << shift) - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_without_gaps_and_overlaps() {
        let mut next = 0u64;
        for at in 0..BUCKETS {
            let (low, high) = bounds(at);
            assert_eq!(low, next, "bucket {at}");
            assert_eq!((bucket(low), bucket(high)), (at, at));
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the largest value");
    }

    proptest! {
        #[test]
        fn every_quantile_is_within_one_percent(
            mut values in prop::collection::vec(prop_oneof![0..200u64, 0..100_000_000_000u64, any::<u64>()], 1..300),
            q in 0.0..=1.0f64,
        ) {
            let histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            let mut counts = HistogramCounts::default();
            histogram.add_to(&mut counts);
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let (low, high) = counts.quantile(q);
            prop_assert!(low <= exact && exact <= high, "{exact} in {low}..={high}");
            let middle = low as f64 + (high - low) as f64 / 2.0;
            prop_assert!((middle - exact as f64).abs() <= 0.01 * exact as f64, "{middle} for {exact}");
        }
    }
}
