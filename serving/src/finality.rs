//! Decides how final a row is, from the watermark, the end of its window and the layers it came from.

use std::time::Duration;

use shared::failed_events::FailedEvents;
use shared::horizon::Horizon;
use shared::time::{Micros, micros_of};

/// How final a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finality {
    /// Events of its window are still expected.
    Open,
    /// The watermark has passed the end of its window; events within allowed lateness and batch runs may still change it.
    Closed,
    /// The watermark has passed allowed lateness too, the row comes from batch alone, and no event of its window has failed.
    Final,
    /// Retention has dropped events of the window: it can no longer be recomputed and stays as it is.
    Frozen,
}

impl Finality {
    /// Returns the name that responses show.
    pub fn name(self) -> &'static str {
        match self {
            Finality::Open => "open",
            Finality::Closed => "closed",
            Finality::Final => "final",
            Finality::Frozen => "frozen",
        }
    }
}

/// The inputs that decide the finality of the rows of one result.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    pub watermark: Option<Micros>,
    pub allowed_lateness: Duration,
    /// Says which windows of the view are frozen.
    pub horizon: Horizon,
    /// True if rows are windows of the view. A row of a coarser grain is frozen only if all its windows are.
    pub of_view: bool,
    /// Events that are in no row: windows in which one happened are never final.
    pub failed: Vec<&'a FailedEvents>,
}

impl Judge<'_> {
    /// Decides for a row whose window has this start and end (microseconds; `None`: open); `live` if speed contributes to it.
    pub fn judge(&self, (start, end): (Option<i64>, Option<i64>), live: bool) -> Finality {
        let decisive = if self.of_view { start } else { end.map(|end| end.saturating_sub(1)) };
        if decisive.is_some_and(|time| self.horizon.is_frozen(Micros(time))) {
            return Finality::Frozen;
        }
        let (Some(watermark), Some(end)) = (self.watermark, end) else { return Finality::Open };
        if watermark.0 < end {
            Finality::Open
        } else if live
            || watermark.0 < end.saturating_add(micros_of(self.allowed_lateness))
            || self.failed.iter().any(|failed| failed.touch(start.unwrap_or(i64::MIN), end))
        {
            Finality::Closed
        } else {
            Finality::Final
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::time::Day;

    use super::*;

    #[test]
    fn a_row_is_final_once_lateness_has_passed_and_it_is_from_batch_alone() {
        let (allowed_lateness, horizon) = (Duration::from_micros(5), Horizon::NONE);
        let at = |watermark| Judge { watermark, allowed_lateness, horizon, of_view: true, failed: Vec::new() };
        let cases = [
            (None, Some(10), false, Finality::Open),
            (Some(9), Some(10), false, Finality::Open),
            (Some(10), Some(10), false, Finality::Closed),
            (Some(14), Some(10), false, Finality::Closed),
            (Some(15), Some(10), false, Finality::Final),
            (Some(15), Some(10), true, Finality::Closed),
            (Some(i64::MAX), None, false, Finality::Open),
        ];
        for (watermark, end, live, expected) in cases {
            assert_eq!(at(watermark.map(Micros)).judge((Some(0), end), live), expected, "{watermark:?} {end:?} {live}");
        }
    }

    #[test]
    fn a_window_is_frozen_if_its_events_are_dropped_and_a_coarser_row_if_all_its_windows_are() {
        let first = Day(1).start().0;
        let (watermark, allowed_lateness) = (Some(Micros(2 * first)), Duration::ZERO);
        let at = |of_view| Judge {
            watermark,
            allowed_lateness,
            horizon: Horizon::new(None, Some(Day(1))),
            of_view,
            failed: Vec::new(),
        };
        assert_eq!(at(true).judge((Some(first - 1), Some(first + 50)), false), Finality::Frozen);
        assert_eq!(at(true).judge((Some(first), Some(first + 50)), false), Finality::Final);
        assert_eq!(at(false).judge((Some(0), Some(first)), false), Finality::Frozen);
        assert_eq!(
            at(false).judge((Some(0), Some(first + 1)), false),
            Finality::Final,
            "some of it can still be computed"
        );
        assert_eq!(at(false).judge((None, None), true), Finality::Open);
    }
}
