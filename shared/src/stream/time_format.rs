//! Defines how events write a TIMESTAMP: as a count since 1970, as RFC 3339, or by a pattern of `strftime`.

use std::fmt;

use chrono::format::{Fixed, Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// How events write the times of one column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeFormat {
    /// A number since 1970-01-01T00:00:00Z.
    Unix(UnixUnit),
    /// RFC 3339 or ISO 8601 text, and nothing else.
    Rfc3339,
    /// A pattern of chrono's `strftime`; UTC where it has no offset, midnight where it has no time of day.
    Pattern(String),
}

/// The unit of a number since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixUnit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// The formats that have a name.
pub const NAMES: [&str; 5] = ["unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339"];

/// Why a text is not a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormat {
    #[error("unknown format '{0}'")]
    Unknown(String),
    #[error("the pattern '{0}' has a conversion that is not known")]
    Conversion(String),
    #[error("the pattern '{0}' has %Z, but names of zones are not unique")]
    ZoneName(String),
    #[error("the pattern '{0}' does not say the date")]
    NoDate(String),
}

impl UnixUnit {
    /// Digits behind the point of a microsecond in this unit: 6 for seconds, -3 for nanoseconds.
    pub fn digits_to_micros(self) -> i8 {
        match self {
            UnixUnit::Seconds => 6,
            UnixUnit::Millis => 3,
            UnixUnit::Micros => 0,
            UnixUnit::Nanos => -3,
        }
    }

    /// Microseconds of `count` units, cut towards the past; `None` if they do not fit.
    pub fn micros(self, count: i64) -> Option<i64> {
        match self {
            UnixUnit::Seconds => count.checked_mul(1_000_000),
            UnixUnit::Millis => count.checked_mul(1_000),
            UnixUnit::Micros => Some(count),
            UnixUnit::Nanos => Some(count.div_euclid(1_000)),
        }
    }
}

impl TimeFormat {
    /// Reads what stands behind FORMAT: one of [`NAMES`], or a pattern with `%`.
    pub fn parse(text: &str) -> Result<TimeFormat, InvalidFormat> {
        match text.to_ascii_lowercase().as_str() {
            "unix_s" => Ok(TimeFormat::Unix(UnixUnit::Seconds)),
            "unix_ms" => Ok(TimeFormat::Unix(UnixUnit::Millis)),
            "unix_us" => Ok(TimeFormat::Unix(UnixUnit::Micros)),
            "unix_ns" => Ok(TimeFormat::Unix(UnixUnit::Nanos)),
            "rfc3339" => Ok(TimeFormat::Rfc3339),
            _ if text.contains('%') => check_pattern(text),
            _ => Err(InvalidFormat::Unknown(text.to_owned())),
        }
    }

    /// The moment that `text` is; of a [`TimeFormat::Unix`] column, the whole number of units. `None` if it is of another form.
    pub fn read(&self, text: &str) -> Option<Micros> {
        match self {
            TimeFormat::Unix(unit) => unit.micros(text.parse().ok()?).map(Micros),
            TimeFormat::Rfc3339 => Micros::parse(text),
            TimeFormat::Pattern(pattern) => by_pattern(pattern, text),
        }
    }
}

impl TimeFormat {
    /// `at` as an event would write it.
    pub fn write(&self, at: Micros) -> String {
        let per = |micros: i64| at.0.div_euclid(micros).to_string();
        match self {
            TimeFormat::Unix(UnixUnit::Seconds) => per(1_000_000),
            TimeFormat::Unix(UnixUnit::Millis) => per(1_000),
            TimeFormat::Unix(UnixUnit::Micros) => per(1),
            TimeFormat::Unix(UnixUnit::Nanos) => (i128::from(at.0) * 1_000).to_string(),
            TimeFormat::Rfc3339 => at.to_string(),
            TimeFormat::Pattern(pattern) => match DateTime::<Utc>::from_timestamp_micros(at.0) {
                Some(at) => at.format(pattern).to_string(),
                None => at.to_string(),
            },
        }
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeFormat::Unix(UnixUnit::Seconds) => "unix_s",
            TimeFormat::Unix(UnixUnit::Millis) => "unix_ms",
            TimeFormat::Unix(UnixUnit::Micros) => "unix_us",
            TimeFormat::Unix(UnixUnit::Nanos) => "unix_ns",
            TimeFormat::Rfc3339 => "rfc3339",
            TimeFormat::Pattern(pattern) => pattern,
        })
    }
}

/// A pattern has to read back what it writes: then it says the date.
fn check_pattern(pattern: &str) -> Result<TimeFormat, InvalidFormat> {
    let own = || pattern.to_owned();
    let items: Vec<Item<'_>> = StrftimeItems::new(pattern).collect();
    if items.contains(&Item::Error) {
        return Err(InvalidFormat::Conversion(own()));
    }
    if items.contains(&Item::Fixed(Fixed::TimezoneName)) {
        return Err(InvalidFormat::ZoneName(own()));
    }
    // 2026-11-28T21:56:40Z: no field of it can be taken for another.
    let sample: DateTime<Utc> = DateTime::from_timestamp(1_795_903_000, 0).unwrap_or_default();
    let written = sample.format_with_items(items.iter()).to_string();
    match by_pattern(pattern, &written) {
        Some(read) if read.day() == Micros(sample.timestamp_micros()).day() => Ok(TimeFormat::Pattern(own())),
        _ => Err(InvalidFormat::NoDate(own())),
    }
}

fn by_pattern(pattern: &str, text: &str) -> Option<Micros> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(pattern)).ok()?;
    if parsed.offset().is_some() {
        return Some(Micros(parsed.to_datetime().ok()?.timestamp_micros()));
    }
    let has_hour = parsed.hour_div_12().is_some() || parsed.hour_mod_12().is_some() || parsed.timestamp().is_some();
    let naive = match has_hour {
        true => parsed.to_naive_datetime_with_offset(0).ok()?,
        false => parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN),
    };
    Some(Micros(naive.and_utc().timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_reads_its_own_form() {
        for (format, text, moment) in [
            ("unix_s", "1764324900", "2025-11-28T10:15:00Z"),
            ("UNIX_MS", "1764324900001", "2025-11-28T10:15:00.001Z"),
            ("unix_us", "-1", "1969-12-31T23:59:59.999999Z"),
            ("unix_ns", "-1", "1969-12-31T23:59:59.999999Z"),
            ("rfc3339", "2025-11-28T10:15:00+02:00", "2025-11-28T08:15:00Z"),
            ("%d/%m/%Y %H:%M", "28/11/2025 10:15", "2025-11-28T10:15:00Z"),
            ("%d/%b/%Y:%H:%M:%S %z", "28/Nov/2025:10:15:00 -0500", "2025-11-28T15:15:00Z"),
            ("%Y%m%d", "20251128", "2025-11-28T00:00:00Z"),
            ("%m/%d/%Y %I:%M:%S%.f %p", "11/28/2025 10:15:00.25 PM", "2025-11-28T22:15:00.250Z"),
            ("%s", "1764324900", "2025-11-28T10:15:00Z"),
        ] {
            let read = TimeFormat::parse(format).expect(format).read(text);
            assert_eq!(read.map(|at| at.to_string()).as_deref(), Some(moment), "{format} {text}");
        }
    }

    #[test]
    fn formats_without_a_date_are_refused() {
        assert_eq!(TimeFormat::parse("unix"), Err(InvalidFormat::Unknown("unix".to_owned())));
        for pattern in ["%H:%M", "%Y-%m", "%d.%m. %H:%M", "%"] {
            assert!(TimeFormat::parse(pattern).is_err(), "{pattern}");
        }
        assert!(matches!(TimeFormat::parse("%Y-%m-%d %Z"), Err(InvalidFormat::ZoneName(_))));
        assert!(matches!(TimeFormat::parse("%Y-%m-%d %!"), Err(InvalidFormat::Conversion(_))));
    }
}
