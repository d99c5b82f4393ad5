//! Converts texts and numbers of events to moments: microseconds, or days, since 1970.
//!
//! [`Micros::parse`] defines the meaning of a text; the short way here only gives the same result sooner for the usual form.

use shared::stream::{TimeFormat, UnixUnit};
use shared::time::{MICROS_PER_DAY, MICROS_PER_SECOND, Micros};

use super::number::{self, ScaleError};

impl From<ScaleError> for InvalidMoment {
    fn from(error: ScaleError) -> InvalidMoment {
        match error {
            ScaleError::NotNumber => InvalidMoment::Malformed,
            ScaleError::TooLarge => InvalidMoment::OutOfRange,
        }
    }
}

/// 0001-01-01T00:00:00Z in microseconds.
const FIRST_MICROS: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// The last microsecond of the year 9999.
const LAST_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// Why a text or a number is not a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidMoment {
    Malformed,
    /// Outside the years 0001 to 9999.
    OutOfRange,
}

/// Reads a TIMESTAMP: RFC 3339, UTC where it names no zone; digits finer than microseconds are cut.
pub(super) fn timestamp(text: &str) -> Result<i64, InvalidMoment> {
    match usual_form(text.as_bytes()) {
        Some(micros) => in_range(micros),
        None => in_range(Micros::parse(text).ok_or(InvalidMoment::Malformed)?.0),
    }
}

/// Checks that a moment lies in the years 0001 to 9999.
pub(super) fn in_range(micros: i64) -> Result<i64, InvalidMoment> {
    if (FIRST_MICROS..=LAST_MICROS).contains(&micros) { Ok(micros) } else { Err(InvalidMoment::OutOfRange) }
}

/// Reads a TIMESTAMP whose column has a format.
pub(super) fn formatted(text: &str, format: &TimeFormat) -> Result<i64, InvalidMoment> {
    match format {
        TimeFormat::Rfc3339 => timestamp(text),
        TimeFormat::Unix(unit) => count(text, *unit),
        TimeFormat::Pattern(_) => in_range(format.read(text).ok_or(InvalidMoment::Malformed)?.0),
    }
}

/// Reads a number of `unit`s since 1970. Digits finer than a microsecond are cut towards the past, as they are in texts.
pub(super) fn count(text: &str, unit: UnixUnit) -> Result<i64, InvalidMoment> {
    let scaled = number::scaled(text, unit.digits_to_micros())?;
    let micros = scaled.value - i128::from(scaled.inexact && scaled.negative);
    in_range(i64::try_from(micros).map_err(|_| InvalidMoment::OutOfRange)?)
}

/// Reads a DATE: exactly `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Result<i32, InvalidMoment> {
    let days = text.as_bytes().try_into().ok().and_then(day_number).ok_or(InvalidMoment::Malformed)?;
    in_range(days * MICROS_PER_DAY)?;
    Ok(days as i32)
}

/// `YYYY-MM-DDThh:mm:ss[.f{1,9}][Z|±hh:mm|±hhmm]`, or nothing if the text is of another form.
fn usual_form(text: &[u8]) -> Option<i64> {
    let (head, mut rest) = text.split_first_chunk::<19>()?;
    let days = day_number(head.first_chunk()?)?;
    if head[10] != b'T' || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let (hours, minutes, seconds) =
        (two_digits(head[11], head[12])?, two_digits(head[14], head[15])?, two_digits(head[17], head[18])?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }

    let mut micros = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().position(|b| !b.is_ascii_digit()).unwrap_or(fraction.len());
        if !(1..=9).contains(&digits) {
            return None;
        }
        let written = fraction[..digits].iter().map(|digit| i64::from(digit - b'0'));
        for digit in written.chain(std::iter::repeat(0)).take(6) {
            micros = micros * 10 + digit;
        }
        rest = &fraction[digits..];
    }

    let offset_minutes = match *rest {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            let (hours, minutes) = (two_digits(h1, h2)?, two_digits(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = hours * 60 + minutes;
            if sign == b'-' { -ahead } else { ahead }
        }
        _ => return None,
    };
    let second_of_day = hours * 3_600 + (minutes - offset_minutes) * 60 + seconds;
    Some(days * MICROS_PER_DAY + second_of_day * MICROS_PER_SECOND + micros)
}

/// Days since 1970 of a valid `YYYY-MM-DD`.
fn day_number(text: &[u8; 10]) -> Option<i64> {
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two_digits(text[0], text[1])? * 100 + two_digits(text[2], text[3])?;
    let (month, day) = (two_digits(text[5], text[6])?, two_digits(text[8], text[9])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    // Years that begin in March put the leap day last (Hinnant, "chrono-compatible low-level date algorithms").
    let march_year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    Some(march_year * 365 + leap_days + day_of_year - 719_468)
}

/// The value of two ASCII digits.
fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens < 10 && ones < 10 { Some(i64::from(tens * 10 + ones)) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// chrono is the oracle: the short way may decline, but never differs.
        #[test]
        fn the_fast_path_agrees_with_chrono(
            year in 0u32..=9999, month in 0u32..=13, day in 0u32..=32, hour in 0u32..=24, minute in 0u32..=60,
            second in 0u32..=60, fraction in "(\\.[0-9]{0,10})?", zone in "(Z|z|[+-][0-2][0-9]:[0-6][0-9]|\\+0100|)",
            between in "[T t]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            if let Some(micros) = usual_form(text.as_bytes()) {
                prop_assert_eq!(Some(Micros(micros)), Micros::parse(&text), "{}", text);
            }
        }

        #[test]
        fn rfc_3339_times_take_the_fast_path(micros in FIRST_MICROS..=LAST_MICROS) {
            prop_assert_eq!(usual_form(Micros(micros).to_string().as_bytes()), Some(micros));
        }

        #[test]
        fn every_day_of_the_calendar_reads_back(days in -719_162i32..=2_932_896) {
            prop_assert_eq!(date(&shared::time::Day(days).to_string()), Ok(days));
        }

        #[test]
        fn times_with_one_changed_byte_agree_with_chrono(at in 0usize..27, byte in any::<u8>()) {
            let mut text = b"2024-02-29T23:59:58.123456Z".to_vec();
            text[at] = byte;
            if let (Some(micros), Ok(text)) = (usual_form(&text), std::str::from_utf8(&text)) {
                prop_assert_eq!(Some(Micros(micros)), Micros::parse(text), "{}", text);
            }
        }
    }

    #[test]
    fn the_calendar_has_its_limits() {
        for (text, want) in [
            ("0001-01-01T00:00:00Z", Ok(FIRST_MICROS)),
            ("9999-12-31T23:59:59.999999Z", Ok(LAST_MICROS)),
            ("0001-01-01T00:00:00+00:01", Err(InvalidMoment::OutOfRange)),
            ("9999-12-31T23:59:59-00:01", Err(InvalidMoment::OutOfRange)),
            ("0000-12-31T23:59:59Z", Err(InvalidMoment::OutOfRange)),
            ("2026-02-29T00:00:00Z", Err(InvalidMoment::Malformed)),
            ("2026-01-01T24:00:00Z", Err(InvalidMoment::Malformed)),
            ("yesterday", Err(InvalidMoment::Malformed)),
            ("", Err(InvalidMoment::Malformed)),
            ("1970-01-01 00:00:01", Ok(1_000_000)),
            ("1970-01-01T00:00:00.0000019Z", Ok(1)),
        ] {
            assert_eq!(timestamp(text), want, "{text}");
        }
        assert_eq!(date("0000-12-31"), Err(InvalidMoment::OutOfRange));
        for text in ["2026-1-1", "2026-01-01T00:00:00Z", "20260101", "2026-13-01", "2023-02-29", "+026-01-01"] {
            assert_eq!(date(text), Err(InvalidMoment::Malformed), "{text}");
        }
    }
}
