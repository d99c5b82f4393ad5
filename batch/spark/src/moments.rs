//! Writes parts of a TIMESTAMP and the starts of periods, in UTC, which is the session's time zone.

use shared::scalar::Function;
use shared::time::{MICROS_PER_DAY, MICROS_PER_SECOND};

const MINUTE: i64 = 60 * MICROS_PER_SECOND;
const HOUR: i64 = 60 * MINUTE;
/// The epoch is a Thursday; the Monday after it is this far away.
const FIRST_MONDAY: i64 = 4 * MICROS_PER_DAY;

/// Writes a part or a period of the TIMESTAMP `a`.
pub fn of_moment(function: Function, a: &str) -> String {
    let micros = format!("unix_micros({a})");
    let since = |unit: i64| format!("timestamp_micros({micros} - pmod({micros}, {unit}L))");
    let number = |name: &str| format!("CAST({name}({a}) AS BIGINT)");
    let period = |unit: &str| format!("date_trunc('{unit}', {a})");
    match function {
        Function::Hour => number("hour"),
        Function::Minute => number("minute"),
        Function::Second => number("second"),
        Function::Epoch => format!("(CAST({micros} AS DOUBLE) / 1e6D)"),
        Function::TruncateToSecond => since(MICROS_PER_SECOND),
        Function::TruncateToMinute => since(MINUTE),
        Function::TruncateToHour => since(HOUR),
        Function::TruncateToDay => since(MICROS_PER_DAY),
        Function::TruncateToWeek => {
            let week = 7 * MICROS_PER_DAY;
            format!("timestamp_micros({micros} - pmod({micros} - {FIRST_MONDAY}L, {week}L))")
        }
        Function::TruncateToMonth => period("MONTH"),
        Function::TruncateToQuarter => period("QUARTER"),
        Function::TruncateToYear => period("YEAR"),
        Function::Year => number("year"),
        Function::Quarter => number("quarter"),
        Function::Month => number("month"),
        Function::Week => number("weekofyear"),
        Function::Day => number("day"),
        Function::DayOfWeek => format!("CAST(dayofweek({a}) - 1 AS BIGINT)"),
        _ => number("dayofyear"),
    }
}
