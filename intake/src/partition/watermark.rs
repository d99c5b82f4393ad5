//! Advances the watermark of a partition and judges which events are late or too far ahead.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use shared::stream::Stream;
use shared::time::{Micros, micros_of};

/// The time options of a stream, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatermarkRules {
    delay_us: i64,
    lateness_us: i64,
    ahead_us: i64,
}

/// The watermark over a batch of events, and the verdicts on them.
#[derive(Debug)]
pub(crate) struct WatermarkVerdict {
    /// The watermark just before each event; null before the first.
    pub before_each: ArrayRef,
    /// The watermark after the last one.
    pub after: Micros,
    /// Events that came after allowed lateness.
    pub late: u64,
    /// Events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
}

impl WatermarkRules {
    pub fn of(stream: &Stream) -> Self {
        WatermarkRules {
            delay_us: micros_of(stream.watermark_delay),
            lateness_us: micros_of(stream.allowed_lateness),
            ahead_us: micros_of(stream.max_ahead),
        }
    }

    /// Judges events with these `times`, in order, starting from the watermark `before` them. The watermark never goes
    /// backwards.
    pub fn pass(&self, times: &[i64], arrived_at: Micros, before: Micros) -> WatermarkVerdict {
        let latest_plausible = arrived_at.0.saturating_add(self.ahead_us);
        let mut watermark = before.0;
        let (mut late, mut ahead, mut unset) = (0, 0, 0);
        let mut marks = Vec::with_capacity(times.len());
        for time in times {
            marks.push(watermark);
            // The watermark is unset for the first events only: it never goes back.
            unset += usize::from(watermark == Micros::MIN.0);
            // I3: only the event time and the watermark recorded with the event decide.
            late += u64::from(watermark != Micros::MIN.0 && time.saturating_add(self.lateness_us) <= watermark);
            if *time > latest_plausible {
                ahead += 1;
            } else {
                watermark = watermark.max(time.saturating_sub(self.delay_us));
            }
        }
        let nulls = (unset > 0).then(|| NullBuffer::from_iter((0..times.len()).map(|i| i >= unset)));
        let before_each = TimestampMicrosecondArray::new(ScalarBuffer::from(marks), nulls).with_timezone("UTC");
        WatermarkVerdict { before_each: Arc::new(before_each), after: Micros(watermark), late, ahead }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    use super::*;

    const RULES: WatermarkRules = WatermarkRules { delay_us: 5, lateness_us: 10, ahead_us: 100 };

    fn pass(times: &[i64], before: Micros) -> (Vec<Option<i64>>, i64, u64, u64) {
        let verdict = RULES.pass(times, Micros(1_000), before);
        let marks = verdict.before_each.as_primitive::<TimestampMicrosecondType>().iter().collect();
        (marks, verdict.after.0, verdict.late, verdict.ahead)
    }

    #[test]
    fn each_event_is_judged_by_the_watermark_before_it() {
        let (marks, after, late, ahead) = pass(&[50, 40, 60, 45, 46], Micros::MIN);
        assert_eq!(marks, [None, Some(45), Some(45), Some(55), Some(55)]);
        // 45 + 10 <= 55 is late, 46 + 10 is not.
        assert_eq!((after, late, ahead), (55, 1, 0));
    }

    #[test]
    fn an_event_far_ahead_is_counted_and_moves_nothing() {
        assert_eq!(pass(&[1_101, 1_100], Micros::MIN), (vec![None, None], 1_095, 0, 1));
        assert_eq!(pass(&[i64::MAX], Micros(7)), (vec![Some(7)], 7, 0, 1));
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        assert_eq!(pass(&[i64::MIN, 3], Micros(20)), (vec![Some(20), Some(20)], 20, 2, 0));
    }
}
