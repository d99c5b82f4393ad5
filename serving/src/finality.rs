//! How settled is a row? From the watermark, the end of its window and the layers it came from.

use std::time::Duration;

use shared::time::{Micros, micros_of};

/// How settled a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finality {
    /// Events of its window are still expected.
    Open,
    /// The watermark has passed the end of its window; late events may still change it, and batch may true it up.
    Closed,
    /// The watermark has passed allowed lateness too, and all of it comes from batch.
    Final,
    /// The stream's retention has dropped events that the window is made of: it stays as it was.
    Frozen,
}

impl Finality {
    /// As answers show it.
    pub fn name(self) -> &'static str {
        match self {
            Finality::Open => "open",
            Finality::Closed => "closed",
            Finality::Final => "final",
            Finality::Frozen => "frozen",
        }
    }
}

/// What is needed to judge the rows of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    pub watermark: Option<Micros>,
    pub allowed_lateness: Duration,
    /// Windows of the view that start before it are frozen (microseconds).
    pub frozen_until: i64,
    /// Are the rows windows of the view? Otherwise several of these make a row: it is frozen if all of them are.
    pub of_view: bool,
}

impl Judge {
    /// Judges a row whose window begins and ends there (microseconds; `None`: nowhere), `live` if speed has a part in it.
    pub fn judge(self, (start, end): (Option<i64>, Option<i64>), live: bool) -> Finality {
        let decisive = if self.of_view { start } else { end.map(|end| end.saturating_sub(1)) };
        if decisive.is_some_and(|time| time < self.frozen_until) {
            return Finality::Frozen;
        }
        let (Some(watermark), Some(end)) = (self.watermark, end) else { return Finality::Open };
        if watermark.0 < end {
            Finality::Open
        } else if live || watermark.0 < end.saturating_add(micros_of(self.allowed_lateness)) {
            Finality::Closed
        } else {
            Finality::Final
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_final_once_lateness_is_over_and_batch_has_all_of_it() {
        let (allowed_lateness, frozen_until) = (Duration::from_micros(5), i64::MIN);
        let at = |watermark| Judge { watermark, allowed_lateness, frozen_until, of_view: true };
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
    fn a_window_is_frozen_if_it_starts_before_what_is_left_and_a_coarser_row_if_all_its_windows_do() {
        let (watermark, allowed_lateness) = (Some(Micros(1_000)), Duration::ZERO);
        let at = |of_view| Judge { watermark, allowed_lateness, frozen_until: 100, of_view };
        assert_eq!(at(true).judge((Some(99), Some(150)), false), Finality::Frozen);
        assert_eq!(at(true).judge((Some(100), Some(150)), false), Finality::Final);
        assert_eq!(at(false).judge((Some(0), Some(100)), false), Finality::Frozen);
        assert_eq!(at(false).judge((Some(0), Some(101)), false), Finality::Final, "some of it can still be computed");
        assert_eq!(at(false).judge((None, None), true), Finality::Open);
    }
}
