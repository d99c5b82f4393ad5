//! Represents an instant as microseconds since 1970 in UTC, as a type that cannot be confused with a count.

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

    /// Reads RFC 3339, or ISO 8601 in its basic form (`20261128T101500Z`); a text without a zone is UTC, a bare date is
    /// midnight.
    pub fn parse(text: &str) -> Option<Micros> {
        if let Ok(t) = DateTime::parse_from_rfc3339(text) {
            return Some(Micros(t.timestamp_micros()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
            if let Ok(t) = chrono::NaiveDateTime::parse_from_str(text, format) {
                return Some(Micros(t.and_utc().timestamp_micros()));
            }
        }
        if let Some(extended) = extended(text) {
            let parsed = DateTime::parse_from_rfc3339(&extended).ok()?;
            return Some(Micros(parsed.timestamp_micros()));
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

/// RFC 3339 for a text whose offset (`+0200`, `+02`) or all of which (`20261128T101500Z`) is in the basic form of ISO 8601.
fn extended(text: &str) -> Option<String> {
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let zone = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => "Z".to_owned(),
        Some((sign, offset)) if digits(offset, 4) => format!("{sign}{}:{}", &offset[..2], &offset[2..]),
        Some((sign, offset)) if digits(offset, 2) => format!("{sign}{offset}:00"),
        _ => return None,
    };
    if !digits(date, 8) {
        return Some(format!("{date}T{clock}{zone}"));
    }
    let (seconds, fraction) = clock.split_at_checked(6)?;
    if !digits(seconds, 6) {
        return None;
    }
    let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
    let (hour, minute, second) = (&seconds[..2], &seconds[2..4], &seconds[4..]);
    Some(format!("{year}-{month}-{day}T{hour}:{minute}:{second}{fraction}{zone}"))
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
    fn times_round_trip_also_before_1970() {
        for text in ["2001-01-01T06:00:00Z", "1969-12-31T23:59:59.500Z", "1900-02-28T00:00:00.000001Z"] {
            assert_eq!(Micros::parse(text).map(|t| t.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Micros::parse("2001-01-01"), Micros::parse("2001-01-01T00:00:00Z"));
        assert_eq!(Micros::parse("yesterday"), None);
        for text in [
            "2026-11-28T12:15:00+0200",
            "20261128T101500Z",
            "20261128T101500",
            "20261128T121500+02",
            "2026-11-28 12:15:00+02",
        ] {
            assert_eq!(Micros::parse(text).map(|t| t.to_string()).as_deref(), Some("2026-11-28T10:15:00Z"), "{text}");
        }
        assert_eq!(Micros::parse("20261128T101500.25Z"), Micros::parse("2026-11-28T10:15:00.25Z"));
        for text in
            ["20261128", "20261128T1015", "2026-11-28T10:15:00+020", "20261128101500", "20261328T101500Z", "T", "+é"]
        {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_instant_before_1970_belongs_to_its_day() {
        assert_eq!(Micros(-1).day().to_string(), "1969-12-31");
        assert_eq!(Micros(0).day().to_string(), "1970-01-01");
    }
}
