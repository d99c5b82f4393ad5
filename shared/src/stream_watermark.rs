//! Computes the watermark of a stream: the smallest of its partitions that are not idle. It never goes back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::time::Micros;

/// Watermark and activity of one partition at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// `None` while no event moved it.
    pub watermark: Option<Micros>,
    /// Time at which its last event was accepted; `None` if unknown or if there was none.
    pub last_arrival: Option<Micros>,
    /// Whether the reader has received every event of the partition. Only then may it count as idle: waiting events are not
    /// silence.
    pub caught_up: bool,
}

impl PartitionProgress {
    /// Returns whether no event has arrived for `idle_timeout` and none is waiting.
    pub fn is_idle(&self, idle_timeout: Duration, now: Micros) -> bool {
        self.caught_up && self.last_arrival.is_none_or(|at| at < now.minus(idle_timeout))
    }
}

/// A stream's watermark as one kind of reader sees it.
#[derive(Debug)]
pub struct StreamWatermark {
    /// The largest one shown; [`Micros::MIN`] before the first.
    shown: AtomicI64,
}

impl Default for StreamWatermark {
    fn default() -> Self {
        StreamWatermark { shown: AtomicI64::new(Micros::MIN.0) }
    }
}

impl StreamWatermark {
    /// Returns the watermark at `now`: that of the partitions, or the one returned before if that is larger. A partition that
    /// was idle and resumes behind it does not move it back.
    pub fn advance(
        &self,
        partitions: impl IntoIterator<Item = PartitionProgress>,
        idle_timeout: Duration,
        now: Micros,
    ) -> Option<Micros> {
        let found = smallest(partitions, idle_timeout, now).unwrap_or(Micros::MIN);
        let before = self.shown.fetch_max(found.0, Ordering::Relaxed);
        let shown = Micros(before.max(found.0));
        (shown != Micros::MIN).then_some(shown)
    }
}

/// The smallest watermark of the partitions that are not idle; if all are, of all that have one. `None` also while an
/// active partition has none: its first events are on their way, or all were too far ahead.
fn smallest(
    partitions: impl IntoIterator<Item = PartitionProgress>,
    idle_timeout: Duration,
    now: Micros,
) -> Option<Micros> {
    let (mut active, mut known) = (None::<Option<Micros>>, None::<Micros>);
    for partition in partitions {
        let watermark = partition.watermark;
        known = watermark.into_iter().chain(known).min();
        if !partition.is_idle(idle_timeout, now) {
            // `None` is smaller than any watermark.
            active = Some(active.map_or(watermark, |smallest| smallest.min(watermark)));
        }
    }
    active.unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_micros(10);

    fn at(watermark: i64, last_arrival: i64) -> PartitionProgress {
        let some = |value: i64| Some(Micros(value));
        PartitionProgress { watermark: some(watermark), last_arrival: some(last_arrival), caught_up: true }
    }

    #[test]
    fn an_idle_partition_is_ignored_and_its_return_moves_nothing_back() {
        let shown = StreamWatermark::default();
        let see = |partitions: &[PartitionProgress], now| {
            shown.advance(partitions.iter().copied(), IDLE, Micros(now)).map(|watermark| watermark.0)
        };
        assert_eq!(see(&[at(50, 100), at(70, 110)], 110), Some(50));
        assert_eq!(see(&[at(50, 100), at(70, 110)], 111), Some(70), "the first is idle");
        assert_eq!(see(&[at(55, 112), at(71, 112)], 112), Some(70), "the first is back, behind");
        assert_eq!(see(&[at(72, 113), at(75, 113)], 113), Some(72));
        assert_eq!(see(&[at(72, 113), at(75, 113)], 200), Some(72), "all are idle");
    }

    #[test]
    fn a_partition_whose_events_still_wait_is_not_idle() {
        let shown = StreamWatermark::default();
        let waiting = PartitionProgress { caught_up: false, ..at(50, 0) };
        assert_eq!(shown.advance([waiting, at(70, 100)], IDLE, Micros(100)), Some(Micros(50)));
        assert_eq!(shown.advance([at(50, 0), at(70, 100)], IDLE, Micros(100)), Some(Micros(70)));
    }

    #[test]
    fn an_active_partition_without_a_watermark_holds_and_one_without_events_does_not() {
        let shown = StreamWatermark::default();
        let never = PartitionProgress { watermark: None, last_arrival: None, caught_up: true };
        let first_on_its_way = PartitionProgress { caught_up: false, ..never };
        let only_ahead = PartitionProgress { last_arrival: Some(Micros(99)), ..never };
        assert_eq!(shown.advance([never, never], IDLE, Micros(100)), None);
        assert_eq!(shown.advance([first_on_its_way, at(70, 100)], IDLE, Micros(100)), None);
        assert_eq!(shown.advance([only_ahead, at(70, 100)], IDLE, Micros(100)), None);
        assert_eq!(shown.advance([never, at(70, 100)], IDLE, Micros(100)), Some(Micros(70)));
        assert_eq!(shown.advance([first_on_its_way, at(80, 100)], IDLE, Micros(100)), Some(Micros(70)));
    }

    /// What happens to one of three partitions, and how much time passes before.
    fn step() -> impl Strategy<Value = (usize, i64, Option<i64>, bool)> {
        (0..3usize, 0..8i64, prop::option::of(-40..40i64), any::<bool>())
    }

    proptest! {
        #[test]
        fn the_watermark_is_the_minimum_over_active_partitions_and_never_goes_back(steps in prop::collection::vec(step(), 1..80)) {
            let shown = StreamWatermark::default();
            let mut partitions = [PartitionProgress { watermark: None, last_arrival: None, caught_up: true }; 3];
            let (mut now, mut last) = (0, None);
            for (which, passes, event, caught_up) in steps {
                now += passes;
                let partition = &mut partitions[which];
                partition.caught_up = caught_up;
                if let Some(time) = event {
                    // As a partition does it: its own watermark never goes back.
                    partition.watermark = partition.watermark.max(Some(Micros(time + now)));
                    partition.last_arrival = Some(Micros(now));
                }
                let seen = shown.advance(partitions, IDLE, Micros(now));
                // The naive rule, over sorted lists.
                let silent = |p: &PartitionProgress| p.last_arrival.is_none_or(|at| now - at.0 > 10);
                let mut holding: Vec<_> = partitions.iter().filter(|p| !(silent(p) && p.caught_up)).collect();
                if holding.is_empty() {
                    holding = partitions.iter().filter(|p| p.watermark.is_some()).collect();
                }
                holding.sort_by_key(|p| p.watermark);
                let minimum = holding.first().and_then(|p| p.watermark);
                prop_assert_eq!(seen, minimum.max(last), "{:?} at {}", partitions, now);
                prop_assert!(seen >= last);
                last = seen;
            }
        }
    }
}
