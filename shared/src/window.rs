//! Which window does an event time belong to? Half-open intervals, aligned to the epoch, also before 1970.

use serde::{Deserialize, Serialize};

use crate::time::{Day, MICROS_PER_DAY, Micros};

/// How a view cuts event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// One window over all time.
    All,
    /// Windows `[start, start + size)` with `start = k * size + offset`, in microseconds; `0 <= offset < size`.
    Tumble { size: i64, offset: i64 },
}

/// The start that stands for the one window of [`Window::All`].
pub const ALL_TIME: Micros = Micros(0);

impl Window {
    /// Start of the window that `time` (microseconds) belongs to.
    #[inline]
    pub fn start_of(self, time: i64) -> i64 {
        match self {
            Window::All => ALL_TIME.0,
            Window::Tumble { size, offset } => time.saturating_sub(time.saturating_sub(offset).rem_euclid(size)),
        }
    }

    /// End of the window that begins at `start`; `None` for the window over all time.
    pub fn end_of(self, start: i64) -> Option<i64> {
        match self {
            Window::All => None,
            Window::Tumble { size, .. } => Some(start.saturating_add(size)),
        }
    }

    /// Length in microseconds; `None` for the window over all time.
    pub fn size(self) -> Option<i64> {
        match self {
            Window::All => None,
            Window::Tumble { size, .. } => Some(size),
        }
    }

    /// Is `time`'s window too late for the speed layer, given the watermark just before the event? Microseconds.
    #[inline]
    pub fn is_late(self, time: i64, watermark: i64, allowed_lateness: i64) -> bool {
        match self.end_of(self.start_of(time)) {
            Some(end) => end.saturating_add(allowed_lateness) <= watermark,
            None => false,
        }
    }

    /// The event dates whose events share windows with those of `day`: recomputing windows of `day` needs all of them.
    /// `None`: all dates.
    pub fn dates_touching(self, day: Day) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Window::All => None,
            Window::Tumble { .. } => {
                let first = self.start_of(day.start().0);
                let last = self.end_of(self.start_of(day.start().0 + MICROS_PER_DAY - 1))? - 1;
                Some(Micros(first).day().0..=Micros(last).day().0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_SECOND;

    const HOUR: i64 = 3600 * MICROS_PER_SECOND;

    #[test]
    fn windows_are_half_open_also_before_1970() {
        let w = Window::Tumble { size: HOUR, offset: 0 };
        assert_eq!(w.start_of(0), 0);
        assert_eq!(w.start_of(HOUR - 1), 0);
        assert_eq!(w.start_of(HOUR), HOUR);
        assert_eq!(w.start_of(-1), -HOUR);
        assert_eq!(w.start_of(-HOUR), -HOUR);
        let shifted = Window::Tumble { size: HOUR, offset: HOUR / 4 };
        assert_eq!(shifted.start_of(0), HOUR / 4 - HOUR);
        assert_eq!(shifted.start_of(HOUR / 4), HOUR / 4);
    }

    #[test]
    fn a_window_is_late_from_the_moment_its_end_and_the_lateness_are_behind_the_watermark() {
        let w = Window::Tumble { size: HOUR, offset: 0 };
        assert!(!w.is_late(10, HOUR + 4, 5));
        assert!(w.is_late(10, HOUR + 5, 5));
        assert!(!Window::All.is_late(10, i64::MAX, 0));
    }

    #[test]
    fn wide_and_shifted_windows_reach_over_the_edge_of_a_date() {
        let daily = Window::Tumble { size: 24 * HOUR, offset: 0 };
        assert_eq!(daily.dates_touching(Day(3)), Some(3..=3));
        let shifted = Window::Tumble { size: 24 * HOUR, offset: 6 * HOUR };
        assert_eq!(shifted.dates_touching(Day(3)), Some(2..=4));
        let odd = Window::Tumble { size: 7 * HOUR, offset: 0 };
        assert_eq!(odd.dates_touching(Day(0)), Some(0..=1));
        assert_eq!(Window::All.dates_touching(Day(3)), None);
    }
}
