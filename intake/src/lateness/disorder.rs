//! Measures how far each event is behind the latest event time of its partition. The partition's writer counts, and
//! readers read without a lock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use shared::time::Micros;

use super::histogram::{Histogram, HistogramCounts};

/// Distances behind the latest event time, in microseconds, from which an event counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    /// Behind the watermark: further than this.
    pub delay_us: u64,
    /// Late: this far or further.
    pub late_us: u64,
}

/// The measurements of one partition.
pub(super) struct PartitionDisorder {
    behind_us: Histogram,
    in_order: AtomicU64,
    behind_watermark: AtomicU64,
    late: AtomicU64,
    max_us: AtomicU64,
    /// The latest event time so far; `i64::MIN` before the first event.
    latest: AtomicI64,
}

impl Default for PartitionDisorder {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        PartitionDisorder {
            behind_us: Histogram::default(),
            in_order: zero(),
            behind_watermark: zero(),
            late: zero(),
            max_us: zero(),
            latest: AtomicI64::new(i64::MIN),
        }
    }
}

impl PartitionDisorder {
    /// Measures the events with these `times`, in order; those after `latest_plausible` do not count. One thread at a time.
    pub fn measure(&self, times: &[i64], latest_plausible: Micros, thresholds: Thresholds) {
        let mut latest = self.latest.load(Ordering::Relaxed);
        let (mut in_order, mut behind_watermark, mut late, mut max_us) = (0, 0, 0, 0);
        for time in times {
            if *time > latest_plausible.0 {
                continue;
            }
            if *time >= latest {
                in_order += 1;
                // Without delay and lateness, an event as old as the latest is late already.
                late += u64::from(*time == latest && thresholds.late_us == 0);
                latest = *time;
                continue;
            }
            // The difference of two ordered 64-bit numbers fits without a sign.
            let behind_us = (latest as u64).wrapping_sub(*time as u64);
            self.behind_us.add(behind_us);
            behind_watermark += u64::from(behind_us > thresholds.delay_us);
            late += u64::from(behind_us >= thresholds.late_us);
            max_us = behind_us.max(max_us);
        }
        let add = |total: &AtomicU64, more: u64| total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        add(&self.in_order, in_order);
        add(&self.behind_watermark, behind_watermark);
        add(&self.late, late);
        self.max_us.fetch_max(max_us, Ordering::Relaxed);
        self.latest.store(latest, Ordering::Relaxed);
    }
}

/// The measurements of all partitions of a stream.
#[derive(Default)]
pub(super) struct DisorderSummary {
    pub behind_us: HistogramCounts,
    pub behind_watermark: u64,
    pub late: u64,
    pub max_us: u64,
}

impl DisorderSummary {
    /// Adds a partition.
    pub fn add(&mut self, partition: &PartitionDisorder) {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        partition.behind_us.add_to(&mut self.behind_us);
        self.behind_us.add_zeros(get(&partition.in_order));
        self.behind_watermark += get(&partition.behind_watermark);
        self.late += get(&partition.late);
        self.max_us = self.max_us.max(get(&partition.max_us));
    }

    /// The `q`-quantile in microseconds: the middle of its bucket, at most the maximum.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let (low, high) = self.behind_us.quantile(q);
        (low as f64 + (high - low) as f64 / 2.0).min(self.max_us as f64)
    }

    /// An upper bound of the `q`-quantile, in microseconds.
    pub fn quantile_at_most_us(&self, q: f64) -> u64 {
        self.behind_us.quantile(q).1.min(self.max_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Independent of how the events are divided into batches, and equal to the plain definition.
        #[test]
        fn every_event_is_measured_against_the_latest_before_it(
            times in prop::collection::vec(prop_oneof![-300..300i64, any::<i64>()], 1..100),
            batch in 1..20usize,
            delay_us in 0..200u64,
            lateness_us in 0..200u64,
        ) {
            let thresholds = Thresholds { delay_us, late_us: delay_us + lateness_us };
            let disorder = PartitionDisorder::default();
            times.chunks(batch).for_each(|times| disorder.measure(times, Micros(250), thresholds));
            let mut measured = DisorderSummary::default();
            measured.add(&disorder);

            let plausible: Vec<i128> = times.iter().filter(|t| **t <= 250).map(|t| i128::from(*t)).collect();
            // Negative for one that is later than all before it; the first has none before it.
            let behind: Vec<i128> = (1..plausible.len())
                .filter_map(|i| Some(plausible[..i].iter().max()? - plausible[i]))
                .collect();
            let count = |holds: &dyn Fn(&i128) -> bool| behind.iter().filter(|b| holds(b)).count() as u64;
            prop_assert_eq!(measured.behind_us.total(), plausible.len() as u64);
            prop_assert_eq!(i128::from(measured.max_us), behind.iter().max().copied().unwrap_or(0).max(0));
            prop_assert_eq!(measured.behind_watermark, count(&|b| *b > i128::from(delay_us)));
            prop_assert_eq!(measured.late, count(&|b| *b >= i128::from(delay_us + lateness_us)));
        }
    }
}
