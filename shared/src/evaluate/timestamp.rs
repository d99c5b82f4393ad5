//! Extracts parts of a TIMESTAMP and truncates it to the start of a period, in UTC.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use polars::prelude::arity::unary_elementwise;
use polars::prelude::{Expr, Float64Chunked, Int64Chunked, IntoSeries, PolarsResult, Series, TimeUnit, TimeZone};

use super::kernel::apply;
use crate::scalar::Function;
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND};
use crate::types::DataType;

const MINUTE: i64 = 60 * MICROS_PER_SECOND;
const HOUR: i64 = 60 * MINUTE;
/// The epoch is a Thursday; the Monday after it is this far away.
const FIRST_MONDAY: i64 = 4 * MICROS_PER_DAY;

/// Microseconds of a TIMESTAMP series.
pub(super) fn moments(series: &Series) -> PolarsResult<&Int64Chunked> {
    Ok(series.datetime()?.physical())
}

/// A TIMESTAMP series out of microseconds.
pub(super) fn timestamp(values: Int64Chunked) -> Series {
    values.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_series()
}

/// The day of a moment.
pub(super) fn date_of(micros: i64) -> Option<i32> {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()
}

/// A TIMESTAMP moved by `by` microseconds.
pub(super) fn shift(a: Expr, by: i64) -> Expr {
    apply(vec![a], DataType::Timestamp, move |series| {
        let moved: Int64Chunked = unary_elementwise(moments(&series[0])?, |x: Option<i64>| x?.checked_add(by));
        Ok(timestamp(moved))
    })
}

/// A part or a period of a TIMESTAMP.
pub(super) fn of_moment(function: Function, a: Expr, output: DataType) -> Expr {
    apply(vec![a], output, move |series| {
        let moments = moments(&series[0])?;
        if function == Function::Epoch {
            let seconds = |x: Option<i64>| x.map(|x| x as f64 / MICROS_PER_SECOND as f64);
            let result: Float64Chunked = unary_elementwise(moments, seconds);
            return Ok(result.into_series());
        }
        let result: Int64Chunked = unary_elementwise(moments, |x: Option<i64>| part(function, x?));
        Ok(if output == DataType::Timestamp { timestamp(result) } else { result.into_series() })
    })
}

/// NULL where the calendar ends, about 262,000 years from now.
fn part(function: Function, micros: i64) -> Option<i64> {
    let since = |unit: i64, first: i64| micros.checked_sub(micros.checked_sub(first)?.rem_euclid(unit));
    match function {
        Function::Hour => Some(micros.rem_euclid(MICROS_PER_DAY) / HOUR),
        Function::Minute => Some(micros.rem_euclid(HOUR) / MINUTE),
        Function::Second => Some(micros.rem_euclid(MINUTE) / MICROS_PER_SECOND),
        Function::TruncateToSecond => since(MICROS_PER_SECOND, 0),
        Function::TruncateToMinute => since(MINUTE, 0),
        Function::TruncateToHour => since(HOUR, 0),
        Function::TruncateToDay => since(MICROS_PER_DAY, 0),
        Function::TruncateToWeek => since(7 * MICROS_PER_DAY, FIRST_MONDAY),
        _ => calendar(function, DateTime::<Utc>::from_timestamp_micros(micros)?.date_naive()),
    }
}

fn calendar(function: Function, date: NaiveDate) -> Option<i64> {
    let quarter = date.month0() / 3;
    let first_of = |month: u32| {
        let midnight = NaiveDate::from_ymd_opt(date.year(), month, 1)?.and_hms_opt(0, 0, 0)?;
        Some(midnight.and_utc().timestamp_micros())
    };
    let number = match function {
        Function::TruncateToMonth => return first_of(date.month()),
        Function::TruncateToQuarter => return first_of(3 * quarter + 1),
        Function::TruncateToYear => return first_of(1),
        Function::Year => i64::from(date.year()),
        Function::Quarter => i64::from(quarter + 1),
        Function::Month => i64::from(date.month()),
        Function::Week => i64::from(date.iso_week().week()),
        Function::Day => i64::from(date.day()),
        Function::DayOfWeek => i64::from(date.weekday().num_days_from_sunday()),
        _ => i64::from(date.ordinal()),
    };
    Some(number)
}
