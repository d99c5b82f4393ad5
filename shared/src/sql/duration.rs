//! Reads spans of time such as `10 minutes`. Days and months, whose length depends on the calendar, stay apart from units of
//! fixed length.

use super::suggest::did_you_mean;
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND};

/// A unit of a span, by its kind.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Micros(i64),
    Days(i64),
    Months(i64),
}

const UNITS: &[(&str, Unit)] = &[
    ("microsecond", Unit::Micros(1)),
    ("millisecond", Unit::Micros(MICROS_PER_SECOND / 1000)),
    ("second", Unit::Micros(MICROS_PER_SECOND)),
    ("minute", Unit::Micros(60 * MICROS_PER_SECOND)),
    ("hour", Unit::Micros(3600 * MICROS_PER_SECOND)),
    ("day", Unit::Days(1)),
    ("week", Unit::Days(7)),
    ("month", Unit::Months(1)),
    ("quarter", Unit::Months(3)),
    ("year", Unit::Months(12)),
];

/// Days of the longest month: spans are bounded as if every month had them.
const MONTH_DAYS_MAX: i64 = 31;

/// A span of time. The whole fits 64 bits of microseconds, at 24 hours a day and 31 days a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TimeSpan {
    pub(super) months: i64,
    pub(super) days: i64,
    /// The part in units below a day.
    pub(super) micros: i64,
    /// Whether the whole span is in weeks, which begin on Mondays.
    pub(super) in_weeks: bool,
    /// The last unit without a fixed length, in capitals.
    calendar_unit: Option<&'static str>,
}

/// Why a text is not a span of time, with help.
#[derive(Debug, PartialEq)]
pub(super) struct BadDuration {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn bad(message: impl Into<String>) -> BadDuration {
    BadDuration { message: message.into(), help: None }
}

impl TimeSpan {
    /// Microseconds, with days of 24 hours. Errors: months and years have no fixed length.
    pub(super) fn fixed(&self) -> Result<i64, BadDuration> {
        match self.calendar_unit {
            None => Ok(self.clock_micros()),
            Some(unit) => {
                let help = Some("the longest unit that has one is WEEK".to_owned());
                Err(BadDuration { message: format!("a {unit} has no fixed length"), help })
            }
        }
    }

    /// Microseconds of all but the months, with days of 24 hours.
    pub(super) fn clock_micros(&self) -> i64 {
        self.days * MICROS_PER_DAY + self.micros
    }

    fn add(self, other: TimeSpan) -> Option<TimeSpan> {
        let sum = TimeSpan {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
            in_weeks: self.in_weeks && other.in_weeks,
            calendar_unit: other.calendar_unit.or(self.calendar_unit),
        };
        let days = i128::from(sum.months) * i128::from(MONTH_DAYS_MAX) + i128::from(sum.days);
        let whole = days * i128::from(MICROS_PER_DAY) + i128::from(sum.micros);
        i64::try_from(whole).ok()?;
        sum.days.checked_mul(MICROS_PER_DAY)?.checked_add(sum.micros)?;
        sum.months.checked_mul(MONTH_DAYS_MAX * MICROS_PER_DAY)?;
        Some(sum)
    }
}

fn find_unit(unit: &str) -> Result<(&'static str, Unit), BadDuration> {
    let lower = unit.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    if let Some(found) = UNITS.iter().find(|(name, _)| *name == singular) {
        return Ok(*found);
    }
    let help = did_you_mean(singular, UNITS.iter().map(|(name, _)| *name)).or_else(|| {
        Some("units are milliseconds, seconds, minutes, hours, days, weeks, months, quarters and years".to_owned())
    });
    Err(BadDuration { message: format!("unknown unit of time `{unit}`"), help })
}

/// The span of `count` units, where `count` is a whole number in words.
pub(super) fn span_of_units(count: &str, unit: &str) -> Result<TimeSpan, BadDuration> {
    let (name, unit) = find_unit(unit)?;
    let count: i64 = count.trim().parse().map_err(|_| bad(format!("`{count}` is not a whole number")))?;
    let times = |one: i64| count.checked_mul(one).ok_or_else(too_long);
    let span = match unit {
        Unit::Micros(one) => TimeSpan { micros: times(one)?, ..TimeSpan::default() },
        Unit::Days(one) => TimeSpan { days: times(one)?, in_weeks: name == "week", ..TimeSpan::default() },
        Unit::Months(one) => {
            let unit = match name {
                "month" => "MONTH",
                "quarter" => "QUARTER",
                _ => "YEAR",
            };
            TimeSpan { months: times(one)?, calendar_unit: Some(unit), ..TimeSpan::default() }
        }
    };
    // Adding to nothing checks the whole.
    TimeSpan { in_weeks: true, ..TimeSpan::default() }.add(span).ok_or_else(too_long)
}

fn too_long() -> BadDuration {
    bad("a span of time this long does not fit")
}

/// The span of a text such as `10 minutes` or `1 day 12 hours`.
pub(super) fn parse_span(text: &str) -> Result<TimeSpan, BadDuration> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks_exact(2);
    if words.is_empty() || !pairs.remainder().is_empty() {
        return Err(BadDuration {
            message: format!("`{text}` is not a span of time"),
            help: Some("write a number and a unit, such as '10 minutes'".to_owned()),
        });
    }
    let mut total = TimeSpan { in_weeks: true, ..TimeSpan::default() };
    for pair in pairs {
        total = total.add(span_of_units(pair[0], pair[1])?).ok_or_else(too_long)?;
    }
    Ok(total)
}

/// Microseconds of a text such as `10 minutes`; months and years have none.
pub(super) fn parse_micros(text: &str) -> Result<i64, BadDuration> {
    parse_span(text)?.fixed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_microseconds() {
        for (text, micros) in [
            ("0 seconds", 0),
            ("7 microseconds", 7),
            ("500 milliseconds", 500_000),
            ("10 minutes", 600 * MICROS_PER_SECOND),
            ("1 HOUR", 3600 * MICROS_PER_SECOND),
            ("1 day 12 hours", 36 * 3600 * MICROS_PER_SECOND),
            ("-1 week", -7 * MICROS_PER_DAY),
        ] {
            assert_eq!(parse_micros(text), Ok(micros), "{text}");
        }
        for text in ["", "10", "ten minutes", "1 minuet", "1 month", "9999999999999 weeks", "1.5 hours", "1 decade"] {
            assert!(parse_micros(text).is_err(), "{text}");
        }
        let error = parse_micros("1 minuet").expect_err("misspelt");
        assert_eq!(error.help.as_deref(), Some("did you mean `minute`?"));
    }

    #[test]
    fn months_days_and_the_clock_are_kept_apart() {
        let parts = |text: &str| {
            let span = parse_span(text).expect("a span");
            (span.months, span.days, span.micros, span.in_weeks)
        };
        assert_eq!(parts("1 year 2 quarters 3 months"), (21, 0, 0, false));
        assert_eq!(parts("2 weeks"), (0, 14, 0, true));
        assert_eq!(parts("1 week 1 day"), (0, 8, 0, false));
        assert_eq!(parts("1 month 1 day 1 second"), (1, 1, MICROS_PER_SECOND, false));
        let error = parse_micros("1 quarter").expect_err("no fixed length");
        assert_eq!(error.message, "a QUARTER has no fixed length");
    }

    #[test]
    fn durations_out_of_range_are_refused() {
        let most = i64::MAX / MICROS_PER_DAY;
        assert!(parse_span(&format!("{most} days")).is_ok());
        for text in [
            format!("{} days", most + 1),
            format!("{most} days {} microseconds", i64::MAX),
            format!("{} months", i64::MAX),
            format!("{} months", most / MONTH_DAYS_MAX + 1),
            format!("-{most} days -1 year"),
            format!("{most} days 1 year"),
            format!("{} years -{most} days", most / 300),
            format!("{} microseconds {} microseconds", i64::MIN, i64::MIN),
        ] {
            assert_eq!(parse_span(&text).expect_err(&text), too_long());
        }
    }
}
