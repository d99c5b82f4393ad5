//! Represents a span of time between two instants, as a type whose end is never confused with its start.

use crate::time::{Day, Micros};

/// The instants `from <= t < to`. With `to` at the largest instant it has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub from: Micros,
    pub to: Micros,
}

impl TimeRange {
    /// All instants.
    pub const ALL: TimeRange = TimeRange { from: Micros(i64::MIN), to: Micros(i64::MAX) };

    /// Returns the instants `from <= t < to`, in microseconds.
    pub fn of_micros(from: i64, to: i64) -> TimeRange {
        TimeRange { from: Micros(from), to: Micros(to) }
    }

    /// Returns whether the range holds no instant.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Returns whether `at` is in the range.
    pub fn contains(self, at: Micros) -> bool {
        self.from <= at && at < self.to
    }

    /// Returns whether an instant of `day` is in the range.
    pub fn meets_day(self, day: Day) -> bool {
        day.start() < self.to && Day(day.0.saturating_add(1)).start() > self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_part_of_a_range() {
        let day = Day(3);
        let range = TimeRange { from: day.start(), to: Day(4).start() };
        assert!(range.contains(day.start()) && !range.contains(Day(4).start()));
        assert!(range.meets_day(day) && !range.meets_day(Day(2)) && !range.meets_day(Day(4)));
        assert!(TimeRange::of_micros(5, 5).is_empty() && !range.is_empty());
        assert!(TimeRange::ALL.meets_day(day) && TimeRange::ALL.contains(Micros(i64::MIN)));
    }
}
