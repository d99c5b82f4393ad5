//! Represents instants as microseconds since 1970 in UTC, in a type that cannot be mistaken for a count.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A moment: microseconds since 1970-01-01T00:00:00Z. Event times, arrival times and watermarks are all of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Micros(pub i64);

impl Micros {
    /// The watermark of a partition that has seen nothing: before every event.
    pub const MIN: Micros = Micros(i64::MIN);

    /// This moment moved forward by `by`, staying within range.
    pub fn plus(self, by: Duration) -> Micros {
        Micros(self.0.saturating_add(micros_of(by)))
    }

    /// This moment moved backward by `by`, staying within range. [`Micros::MIN`] stays where it is.
    pub fn minus(self, by: Duration) -> Micros {
        Micros(self.0.saturating_sub(micros_of(by)))
    }

    /// The UTC day this moment falls on, in days since 1970.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(MICROS_PER_DAY) as i32)
    }

    /// Reads RFC 3339; a text without a zone is UTC, a bare date is midnight.
    pub fn parse(text: &str) -> Option<Micros> {
        if let Ok(t) = DateTime::parse_from_rfc3339(text) {
            return Some(Micros(t.timestamp_micros()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
            if let Ok(t) = chrono::NaiveDateTime::parse_from_str(text, format) {
                return Some(Micros(t.and_utc().timestamp_micros()));
            }
        }
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Micros(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()))
    }

    /// Reads what `Display` writes outside of the years 0 to 9999, which RFC 3339 does not have.
    fn parse_far(text: &str) -> Option<Micros> {
        if let Some(micros) = text.strip_suffix("us") {
            return micros.parse().ok().map(Micros);
        }
        let time = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.fZ").ok()?;
        Some(Micros(time.and_utc().timestamp_micros()))
    }
}

/// Microseconds of a duration, saturating.
pub fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Micros {
    /// RFC 3339 in UTC, with as many fraction digits as needed (0, 3 or 6).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(t) => f.write_str(&t.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = Micros::parse(&text).or_else(|| Micros::parse_far(&text));
        time.ok_or_else(|| de::Error::custom(format!("not an RFC 3339 time: {text}")))
    }
}

/// A UTC day: days since 1970-01-01. Names a partition of the archive and of a view's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub i32);

impl Day {
    /// Midnight at which the day begins.
    pub fn start(self) -> Micros {
        Micros(i64::from(self.0) * MICROS_PER_DAY)
    }

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Day> {
        Micros::parse(text).map(Micros::day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.start().0) {
            Some(t) => write!(f, "{}", t.format("%Y-%m-%d")),
            None => write!(f, "day {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_also_before_1970() {
        for text in ["2001-01-01T06:00:00Z", "1969-12-31T23:59:59.500Z", "1900-02-28T00:00:00.000001Z"] {
            assert_eq!(Micros::parse(text).map(|t| t.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Micros::parse("2001-01-01"), Micros::parse("2001-01-01T00:00:00Z"));
        assert_eq!(Micros::parse("yesterday"), None);
    }

    #[test]
    fn a_moment_before_1970_belongs_to_the_day_it_is_in() {
        assert_eq!(Micros(-1).day().to_string(), "1969-12-31");
        assert_eq!(Micros(0).day().to_string(), "1970-01-01");
    }
}
