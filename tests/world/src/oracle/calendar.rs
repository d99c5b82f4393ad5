//! Finds the starts of days, weeks and months in a time zone by reading the wall clock instant after instant.

use std::cell::RefCell;
use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;

use super::events::{DAY, HOUR, MINUTE};

/// Microseconds by which the wall clock of `zone` is ahead of UTC at an instant (in microseconds).
pub fn ahead_of_utc(zone: Tz, at: i64) -> i64 {
    let utc = DateTime::from_timestamp_micros(at).expect("in range").naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * 1_000_000
}

/// The reading of the wall clock at an instant, as if it were UTC.
pub fn wall(zone: Tz, at: i64) -> i64 {
    at + ahead_of_utc(zone, at)
}

/// The first instant at which the wall clock of `zone` reads `reading` or later. Wall clocks differ from UTC by less
/// than 26 hours; between two clock changes it follows from the reading, or is the first instant after the change.
pub fn first_instant(zone: Tz, reading: i64) -> i64 {
    let (from, to) = (reading - 26 * HOUR, reading + 26 * HOUR);
    let mut piece = from;
    while piece < to {
        let ahead = ahead_of_utc(zone, piece);
        let end = end_of_piece(zone, piece, ahead, to);
        let first = piece.max(reading - ahead);
        if first < end {
            return first;
        }
        piece = end;
    }
    panic!("the wall clock of {zone} never reads {reading}");
}

/// The first instant after `from` with another offset, at most `to`.
fn end_of_piece(zone: Tz, from: i64, ahead: i64, to: i64) -> i64 {
    let mut before = from;
    while before < to {
        let after = (before + 15 * MINUTE).min(to);
        if ahead_of_utc(zone, after) != ahead {
            let (mut same, mut other) = (before, after);
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                if ahead_of_utc(zone, middle) == ahead { same = middle } else { other = middle }
            }
            return other;
        }
        before = after;
    }
    to
}

/// A length of the calendar. A quarter is three months, a year twelve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    Days(i64),
    /// From Monday.
    Weeks(i64),
    Months(i64),
}

impl Unit {
    /// Midnight at which the period `index` starts, in wall-clock microseconds.
    pub fn midnight(self, index: i64) -> i64 {
        match self {
            Unit::Days(n) => index * n * DAY,
            // 1970-01-05 was a Monday.
            Unit::Weeks(n) => (index * n * 7 + 4) * DAY,
            Unit::Months(n) => {
                let months = index * n;
                let (year, month) = (1970 + months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
                let date = NaiveDate::from_ymd_opt(year as i32, month, 1).expect("in range");
                date.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp_micros()
            }
        }
    }

    /// About how long, in microseconds.
    fn length(self) -> i64 {
        match self {
            Unit::Days(n) => n * DAY,
            Unit::Weeks(n) => 7 * n * DAY,
            Unit::Months(n) => n * 30 * DAY,
        }
    }
}

/// Periods of the calendar in a zone, each beginning `offset` (wall-clock microseconds) after its midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calendar {
    pub zone: Tz,
    pub unit: Unit,
    pub offset: i64,
}

thread_local! {
    static STARTS: RefCell<HashMap<(Calendar, i64), i64>> = RefCell::default();
}

impl Calendar {
    /// The instant at which the period `index` starts.
    pub fn start(self, index: i64) -> i64 {
        if let Some(start) = STARTS.with_borrow(|known| known.get(&(self, index)).copied()) {
            return start;
        }
        let start = first_instant(self.zone, self.unit.midnight(index) + self.offset);
        STARTS.with_borrow_mut(|known| known.insert((self, index), start));
        start
    }

    /// The period of an instant: the last one that has started.
    pub fn index(self, at: i64) -> i64 {
        let mut index = (at - self.offset).div_euclid(self.unit.length());
        while self.start(index) > at {
            index -= 1;
        }
        while self.start(index + 1) <= at {
            index += 1;
        }
        index
    }
}
