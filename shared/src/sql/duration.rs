//! How long is `10 minutes`? Spans of a fixed number of microseconds; months and years have none.

use super::suggest::did_you_mean;
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND};

/// Units of a fixed length, in microseconds.
const UNITS: &[(&str, i64)] = &[
    ("millisecond", MICROS_PER_SECOND / 1000),
    ("second", MICROS_PER_SECOND),
    ("minute", 60 * MICROS_PER_SECOND),
    ("hour", 3600 * MICROS_PER_SECOND),
    ("day", MICROS_PER_DAY),
    ("week", 7 * MICROS_PER_DAY),
];

/// Units whose length depends on the calendar.
const CALENDAR: &[&str] = &["month", "quarter", "year", "decade", "century"];

/// What is wrong with a span of time, and what may help.
#[derive(Debug, PartialEq)]
pub(super) struct BadDuration {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn bad(message: impl Into<String>) -> BadDuration {
    BadDuration { message: message.into(), help: None }
}

/// Microseconds of a unit, in singular or plural and any case.
pub(super) fn unit_micros(unit: &str) -> Result<i64, BadDuration> {
    let lower = unit.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    if let Some((_, micros)) = UNITS.iter().find(|(name, _)| *name == singular) {
        return Ok(*micros);
    }
    if CALENDAR.contains(&singular) {
        let message = format!("{} is not supported yet: its length depends on the calendar", unit.to_uppercase());
        return Err(BadDuration { message, help: Some("the longest unit is WEEK".to_owned()) });
    }
    let help = did_you_mean(singular, UNITS.iter().map(|(name, _)| *name))
        .or_else(|| Some("units are milliseconds, seconds, minutes, hours, days and weeks".to_owned()));
    Err(BadDuration { message: format!("unknown unit of time `{unit}`"), help })
}

/// Microseconds of `count` units, where `count` is a whole number in words.
pub(super) fn micros_of_units(count: &str, unit: &str) -> Result<i64, BadDuration> {
    let unit = unit_micros(unit)?;
    let count: i64 = count.trim().parse().map_err(|_| bad(format!("`{count}` is not a whole number")))?;
    count.checked_mul(unit).ok_or_else(|| bad("a span of time this long does not fit"))
}

/// Microseconds of a text such as `10 minutes` or `1 day 12 hours`.
pub(super) fn parse_micros(text: &str) -> Result<i64, BadDuration> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks_exact(2);
    if words.is_empty() || !pairs.remainder().is_empty() {
        return Err(BadDuration {
            message: format!("`{text}` is not a span of time"),
            help: Some("write a number and a unit, such as '10 minutes'".to_owned()),
        });
    }
    let mut total = 0_i64;
    for pair in pairs {
        let micros = micros_of_units(pair[0], pair[1])?;
        total = total.checked_add(micros).ok_or_else(|| bad("a span of time this long does not fit"))?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_microseconds() {
        for (text, micros) in [
            ("0 seconds", 0),
            ("500 milliseconds", 500_000),
            ("10 minutes", 600 * MICROS_PER_SECOND),
            ("1 HOUR", 3600 * MICROS_PER_SECOND),
            ("1 day 12 hours", 36 * 3600 * MICROS_PER_SECOND),
            ("-1 week", -7 * MICROS_PER_DAY),
        ] {
            assert_eq!(parse_micros(text), Ok(micros), "{text}");
        }
        for text in ["", "10", "ten minutes", "1 minuet", "1 month", "9999999999999 weeks", "1.5 hours"] {
            assert!(parse_micros(text).is_err(), "{text}");
        }
        let error = parse_micros("1 minuet").expect_err("misspelt");
        assert_eq!(error.help.as_deref(), Some("did you mean `minute`?"));
    }
}
