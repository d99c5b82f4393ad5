//! Numbers the days, weeks, months, quarters and years of a time zone and gives the instants at which they start.
//!
//! A cell begins at the first instant at which the zone's wall clock shows its beginning or later: where the clock
//! jumps over it, at the jump; where the clock shows it twice, at the first of both. So cells follow each other without
//! gap or overlap, also where clocks go back over midnight, and a day has 23, 24 or 25 hours (or none, where a date was
//! skipped).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{GapInfo, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::MICROS_PER_DAY;

/// Instants beyond some 200,000 years from 1970 belong to the cell of this one: calendars end somewhere.
const FARTHEST: i64 = 6_300_000_000_000_000_000;

/// A time zone of the tz database.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

/// The unit that a calendar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CalendarUnit {
    /// Days since 1970-01-01.
    Day,
    /// Months since January 1970.
    Month,
}

/// Cells of `count` units each: cell `k` begins with unit `k * count + shift`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    pub unit: CalendarUnit,
    /// At least 1.
    pub count: i32,
    /// `0 <= shift < count`; weeks from Monday have 4, since 1970-01-05 was one.
    pub shift: i32,
    /// Time from midnight of its first day to the start of a cell, in microseconds on the wall clock; not negative.
    pub offset: i64,
    pub zone: Zone,
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone(Tz::UTC);

    /// Returns the wall clock's time at an instant (microseconds since 1970), as microseconds of a clock without a zone.
    pub fn wall_clock(self, instant: i64) -> i64 {
        let utc = naive(instant.clamp(-FARTHEST, FARTHEST));
        let offset = self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc();
        instant.saturating_add(i64::from(offset) * 1_000_000)
    }

    /// The first instant at which the wall clock shows `wall` (microseconds of a clock without a zone) or later.
    pub fn first_instant(self, wall: i64) -> i64 {
        if wall.unsigned_abs() > FARTHEST as u64 {
            return wall;
        }
        let local = naive(wall);
        match self.0.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) => wall - i64::from(offset.fix().local_minus_utc()) * 1_000_000,
            MappedLocalTime::Ambiguous(a, b) => {
                let farthest_east = a.fix().local_minus_utc().max(b.fix().local_minus_utc());
                wall - i64::from(farthest_east) * 1_000_000
            }
            // The clock jumped over it.
            MappedLocalTime::None => {
                let jump = GapInfo::new(&local, &self.0).and_then(|gap| gap.end);
                jump.map_or(wall, |end| end.timestamp_micros())
            }
        }
    }

    /// Every zone of the tz database.
    pub fn all() -> impl Iterator<Item = Zone> {
        chrono_tz::TZ_VARIANTS.into_iter().map(Zone)
    }

    /// Its name in the tz database.
    pub fn name(self) -> &'static str {
        self.0.name()
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone \"{0}\"; zones are named like Europe/Vienna, America/New_York or UTC")]
pub struct UnknownZone(pub String);

impl FromStr for Zone {
    type Err = UnknownZone;
    fn from_str(name: &str) -> Result<Zone, UnknownZone> {
        if name.eq_ignore_ascii_case("utc") || name == "Z" {
            return Ok(Zone::UTC);
        }
        let zone = chrono_tz::TZ_VARIANTS.into_iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
        zone.map(Zone).ok_or_else(|| UnknownZone(name.to_owned()))
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Zone, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Calendar {
    /// The number of the cell that an instant (microseconds) belongs to.
    pub fn index_of(&self, instant: i64) -> i64 {
        let instant = instant.clamp(-FARTHEST, FARTHEST);
        let wall = self.zone.wall_clock(instant).saturating_sub(self.offset);
        let unit = match self.unit {
            CalendarUnit::Day => wall.div_euclid(MICROS_PER_DAY),
            CalendarUnit::Month => {
                let date = naive(wall).date();
                (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0())
            }
        };
        let mut index = (unit - i64::from(self.shift)).div_euclid(i64::from(self.count));
        // The wall clock may have gone back over the beginning of a cell.
        while self.start_of_index(index + 1) <= instant {
            index += 1;
        }
        while self.start_of_index(index) > instant {
            index -= 1;
        }
        index
    }

    /// The instant at which cell `index` begins, in microseconds.
    pub fn start_of_index(&self, index: i64) -> i64 {
        let unit = index.saturating_mul(i64::from(self.count)).saturating_add(i64::from(self.shift));
        let midnight = match self.unit {
            CalendarUnit::Day => unit.saturating_mul(MICROS_PER_DAY),
            CalendarUnit::Month => first_of_month(unit),
        };
        self.zone.first_instant(midnight.saturating_add(self.offset))
    }
}

/// Midnight of the first day of a month, counted from January 1970; at the ends of time where there is no such month.
fn first_of_month(month: i64) -> i64 {
    let year = i32::try_from(1970 + month.div_euclid(12)).ok();
    let date = year.and_then(|year| NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1));
    match date.and_then(|date| date.and_hms_opt(0, 0, 0)) {
        Some(midnight) => midnight.and_utc().timestamp_micros(),
        None if month < 0 => i64::MIN,
        None => i64::MAX,
    }
}

/// A clock without a zone; `micros` within [`FARTHEST`] and some days.
fn naive(micros: i64) -> NaiveDateTime {
    let moment = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    moment.unwrap_or_else(|| DateTime::UNIX_EPOCH.naive_utc() + TimeDelta::microseconds(micros.signum() * FARTHEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MICROS_PER_SECOND, Micros};

    fn day(zone: &str) -> Calendar {
        let zone = zone.parse().expect("a zone");
        Calendar { unit: CalendarUnit::Day, count: 1, shift: 0, offset: 0, zone }
    }

    fn at(text: &str) -> i64 {
        Micros::parse(text).expect("a time").0
    }

    fn cell(calendar: &Calendar, instant: &str) -> (String, String) {
        let index = calendar.index_of(at(instant));
        (Micros(calendar.start_of_index(index)).to_string(), Micros(calendar.start_of_index(index + 1)).to_string())
    }

    fn texts(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn days_have_23_or_25_hours_where_clocks_change() {
        let berlin = day("Europe/Berlin");
        assert_eq!(cell(&berlin, "2024-03-31T12:00:00Z"), texts("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"));
        assert_eq!(cell(&berlin, "2024-10-27T00:30:00Z"), texts("2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z"));
        assert_eq!(cell(&berlin, "1969-12-31T23:00:00Z"), texts("1969-12-31T23:00:00Z", "1970-01-01T23:00:00Z"));
    }

    #[test]
    fn a_day_without_a_midnight_begins_at_the_jump_and_one_that_was_skipped_is_empty() {
        assert_eq!(
            cell(&day("America/Sao_Paulo"), "2018-11-04T12:00:00Z"),
            texts("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z")
        );
        let apia = day("Pacific/Apia");
        let skipped = at("2011-12-30T00:00:00Z").div_euclid(MICROS_PER_DAY);
        assert_eq!(apia.start_of_index(skipped), apia.start_of_index(skipped + 1));
        assert_eq!(apia.index_of(apia.start_of_index(skipped)), skipped + 1);
    }

    #[test]
    fn a_clock_that_goes_back_over_midnight_begins_the_day_once() {
        // St. John's turned back from 00:01 to 23:01.
        let calendar = day("America/St_Johns");
        let begins = at("2008-11-02T02:30:00Z");
        let index = calendar.index_of(begins);
        assert_eq!(calendar.start_of_index(index), begins);
        for minutes in [1, 30, 61, 90, 24 * 60] {
            assert_eq!(calendar.index_of(begins + minutes * 60 * MICROS_PER_SECOND), index, "{minutes}");
        }
    }

    #[test]
    fn weeks_months_quarters_and_years_start_by_the_calendar() {
        let zone = "Asia/Kolkata".parse().expect("a zone");
        let week = Calendar { unit: CalendarUnit::Day, count: 7, shift: 4, offset: 0, zone };
        assert_eq!(cell(&week, "2024-02-29T00:00:00Z"), texts("2024-02-25T18:30:00Z", "2024-03-03T18:30:00Z"));
        let months = |count, shift| Calendar { unit: CalendarUnit::Month, count, shift, offset: 0, zone: Zone::UTC };
        assert_eq!(cell(&months(1, 0), "2024-02-29T12:00:00Z"), texts("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"));
        assert_eq!(cell(&months(3, 0), "1969-12-31T12:00:00Z"), texts("1969-10-01T00:00:00Z", "1970-01-01T00:00:00Z"));
        assert_eq!(cell(&months(12, 3), "2024-02-29T12:00:00Z"), texts("2023-04-01T00:00:00Z", "2024-04-01T00:00:00Z"));
        let business = Calendar { offset: 6 * 3600 * MICROS_PER_SECOND, ..day("Europe/Berlin") };
        assert_eq!(cell(&business, "2024-03-31T03:00:00Z"), texts("2024-03-30T05:00:00Z", "2024-03-31T04:00:00Z"));
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
            for calendar in [day(zone), Calendar { unit: CalendarUnit::Month, ..day(zone) }] {
                for instant in [i64::MIN, i64::MIN + 1, -FARTHEST, FARTHEST, i64::MAX] {
                    let index = calendar.index_of(instant);
                    assert!(calendar.start_of_index(index) <= calendar.start_of_index(index + 1));
                }
                assert!(calendar.start_of_index(i64::MAX) >= calendar.start_of_index(i64::MIN));
            }
        }
    }

    #[test]
    fn names_of_zones_round_trip() {
        for name in ["europe/vienna", "UTC", "utc"] {
            let zone: Zone = name.parse().expect("a zone");
            assert_eq!(
                serde_json::from_str::<Zone>(&serde_json::to_string(&zone).expect("JSON")).expect("a zone"),
                zone
            );
        }
        assert!("Mars/Olympus".parse::<Zone>().is_err());
    }
}
