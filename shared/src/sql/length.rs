//! Converts lengths to cells of a calendar: hours have one length everywhere; days, weeks, months and years are those of a zone.

use super::duration::TimeSpan;
use crate::calendar::{Calendar, CalendarUnit, Zone};
use crate::time::MICROS_PER_DAY;
use crate::window::Grid;

/// Cells of months begin less than this many days into their first month: every month has as many.
pub(super) const MONTHS_OFFSET_DAYS: i64 = 28;

/// Monday 1970-01-05 is this many days from the epoch, a Thursday.
const FIRST_MONDAY: i64 = 4;

/// A length of time that cells can have, in a unit of its kind; more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Microseconds, whatever the clocks do. In UTC also days and weeks.
    Fixed(i64),
    /// Days of a zone.
    Days(i64),
    Months(i64),
}

impl Length {
    /// The number of units.
    pub(super) fn count(self) -> i64 {
        match self {
            Length::Fixed(count) | Length::Days(count) | Length::Months(count) => count,
        }
    }

    /// As many of the same unit.
    pub(super) fn with(self, count: i64) -> Length {
        match self {
            Length::Fixed(_) => Length::Fixed(count),
            Length::Days(_) => Length::Days(count),
            Length::Months(_) => Length::Months(count),
        }
    }

    /// Returns whether both have the same unit.
    pub(super) fn is_like(self, other: Length) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Returns whether the offset is shorter than `below`, in either direction.
pub(super) fn offset_fits(offset: TimeSpan, below: Length) -> bool {
    match below {
        Length::Fixed(micros) => offset.clock_micros().unsigned_abs() < micros.unsigned_abs(),
        Length::Days(days) => i128::from(offset.clock_micros()).abs() < i128::from(days) * i128::from(MICROS_PER_DAY),
        Length::Months(months) => offset.months.unsigned_abs() < months.unsigned_abs(),
    }
}

/// Cells of the length `cell` that begin where those of `period`, a multiple of it, begin when moved by `offset`: later
/// on the wall clock, or earlier.
pub(super) fn grid_of(cell: Length, period: Length, in_weeks: bool, offset: TimeSpan, zone: Zone) -> Grid {
    let monday = if in_weeks { FIRST_MONDAY * MICROS_PER_DAY } else { 0 };
    let moved = |period: i128| {
        let moved = (i128::from(monday) + i128::from(offset.clock_micros())).rem_euclid(period);
        i64::try_from(moved).unwrap_or(i64::MAX)
    };
    let calendar = |unit, count, shift: i64, offset| {
        Grid::Calendar(Calendar { unit, count: calendar_count(count), shift: calendar_count(shift), offset, zone })
    };
    match cell {
        Length::Fixed(size) => Grid::Fixed { size, offset: moved(i128::from(period.count())) },
        Length::Days(count) => {
            let moved = moved(i128::from(period.count()) * i128::from(MICROS_PER_DAY));
            calendar(CalendarUnit::Day, count, moved / MICROS_PER_DAY, moved % MICROS_PER_DAY)
        }
        Length::Months(count) => {
            calendar(CalendarUnit::Month, count, offset.months.rem_euclid(period.count()), offset.clock_micros())
        }
    }
}

/// Spans fit 64 bits of microseconds, which is far fewer days.
pub(super) fn calendar_count(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
