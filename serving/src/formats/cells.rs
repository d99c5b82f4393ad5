//! Writes single values as text, from an Arrow column into the bytes of a response, without an allocation.
//!
//! | type | JSON | CSV |
//! |---|---|---|
//! | BOOLEAN | `true` | `true` |
//! | INT, BIGINT | number | digits |
//! | DOUBLE | number; `null` for NaN and infinities, which JSON lacks | number, `NaN`, `inf`, `-inf` |
//! | DECIMAL | string, all digits of its scale | the same, bare |
//! | STRING | string | quoted where needed; the empty string is `""` |
//! | DATE | `"2001-01-31"` | the same, bare |
//! | TIMESTAMP | RFC 3339 in UTC, 0, 3 or 6 fraction digits | the same, bare |
//! | JSON | unchanged | a quoted text |
//! | NULL | `null` | an empty field |

use std::io::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Timelike};
use serde_json::ser::{CompactFormatter, Formatter};
use shared::time::{Day, Micros};
use shared::types::DataType;

const INTO_MEMORY: &str = "writing into memory does not fail";

/// A column, downcast once for all its rows.
pub struct Cells<'a> {
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int(&'a Int32Array),
    BigInt(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    String(&'a StringViewArray),
    /// JSON texts.
    Json(&'a StringViewArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
}

impl<'a> Cells<'a> {
    /// Wraps a column that carries values of `data_type`, JSON in the Arrow type of texts.
    pub fn typed(column: &'a ArrayRef, data_type: DataType) -> Cells<'a> {
        match data_type {
            DataType::Json => Cells { values: Values::Json(column.as_string_view()), nulls: column.nulls() },
            _ => Cells::new(column),
        }
    }

    /// Wraps a column of one of the types of streams.
    pub fn new(column: &'a ArrayRef) -> Cells<'a> {
        let values = match column.data_type() {
            ArrowType::Boolean => Values::Boolean(column.as_boolean()),
            ArrowType::Int32 => Values::Int(column.as_primitive::<Int32Type>()),
            ArrowType::Int64 => Values::BigInt(column.as_primitive::<Int64Type>()),
            ArrowType::Float64 => Values::Double(column.as_primitive::<Float64Type>()),
            ArrowType::Decimal128(_, scale) => Values::Decimal(column.as_primitive::<Decimal128Type>(), *scale),
            ArrowType::Utf8View => Values::String(column.as_string_view()),
            ArrowType::Date32 => Values::Date(column.as_primitive::<Date32Type>()),
            ArrowType::Timestamp(..) => Values::Timestamp(column.as_primitive::<TimestampMicrosecondType>()),
            other => unreachable!("the dialect has no type that is carried as {other}"),
        };
        Cells { values, nulls: column.nulls() }
    }

    /// Returns the timestamp in a row, in microseconds; `None` for NULL and for columns of other types.
    #[inline]
    pub fn timestamp(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Timestamp(times) if !self.is_null(row) => Some(times.value(row)),
            _ => None,
        }
    }

    /// Returns true if the value in the row is NULL.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Writes a value as JSON.
    #[inline]
    pub fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.extend_from_slice(b"null");
        }
        match &self.values {
            Values::String(texts) => serde_json::to_writer(out, texts.value(row)).expect(INTO_MEMORY),
            Values::Double(floats) if !floats.value(row).is_finite() => out.extend_from_slice(b"null"),
            Values::Decimal(..) | Values::Date(_) | Values::Timestamp(_) => {
                out.push(b'"');
                self.write_bare(row, out);
                out.push(b'"');
            }
            _ => self.write_bare(row, out),
        }
    }

    /// Writes a value as a field of CSV.
    pub fn write_csv(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        match &self.values {
            Values::String(texts) | Values::Json(texts) => write_csv_text(texts.value(row), out),
            _ => self.write_bare(row, out),
        }
    }

    #[inline]
    fn write_bare(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Boolean(flags) => out.extend_from_slice(if flags.value(row) { b"true" } else { b"false" }),
            Values::Int(numbers) => CompactFormatter.write_i32(out, numbers.value(row)).expect(INTO_MEMORY),
            Values::BigInt(numbers) => CompactFormatter.write_i64(out, numbers.value(row)).expect(INTO_MEMORY),
            Values::Double(floats) => match floats.value(row) {
                finite if finite.is_finite() => CompactFormatter.write_f64(out, finite).expect(INTO_MEMORY),
                other => write!(out, "{other}").expect(INTO_MEMORY),
            },
            Values::Decimal(numbers, scale) => write_decimal(numbers.value(row), *scale, out),
            Values::String(texts) | Values::Json(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            Values::Date(days) => write_date(days.value(row), out),
            Values::Timestamp(times) => write_timestamp(times.value(row), out),
        }
    }
}

/// Writes `text` as a CSV field (RFC 4180); the empty text is quoted, since an empty field means NULL.
pub fn write_csv_text(text: &str, out: &mut Vec<u8>) {
    let plain = !text.is_empty() && !text.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'));
    if plain {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn write_decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let magnitude = unscaled.unsigned_abs();
    let unit = u32::try_from(scale).ok().and_then(|scale| 10u128.checked_pow(scale)).unwrap_or(1);
    CompactFormatter.write_u128(&mut *out, magnitude / unit).expect(INTO_MEMORY);
    if unit > 1 {
        out.push(b'.');
    }
    let (fraction, mut digit) = (magnitude % unit, unit / 10);
    while digit > 0 {
        out.push(b'0' + (fraction / digit % 10) as u8);
        digit /= 10;
    }
    if scale < 0 && magnitude > 0 {
        out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
    }
}

/// Writes a day as `YYYY-MM-DD`.
fn write_date(days: i32, out: &mut Vec<u8>) {
    match DateTime::from_timestamp_micros(Day(days).start().0) {
        Some(time) if (0..=9999).contains(&time.year()) => write_day(time.year(), time.month(), time.day(), out),
        _ => write!(out, "{}", Day(days)).expect(INTO_MEMORY),
    }
}

/// Writes a moment as RFC 3339 in UTC; the same text as [`Micros`] shows.
pub fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    let time = match DateTime::from_timestamp_micros(micros) {
        Some(time) if (0..=9999).contains(&time.year()) => time,
        _ => return write!(out, "{}", Micros(micros)).expect(INTO_MEMORY),
    };
    write_day(time.year(), time.month(), time.day(), out);
    out.push(b'T');
    two_digits(time.hour(), out);
    out.push(b':');
    two_digits(time.minute(), out);
    out.push(b':');
    two_digits(time.second(), out);
    let fraction = micros.rem_euclid(1_000_000) as u32;
    if fraction != 0 {
        out.push(b'.');
        two_digits(fraction / 10_000, out);
        out.push(b'0' + (fraction / 1_000 % 10) as u8);
        if !fraction.is_multiple_of(1_000) {
            out.push(b'0' + (fraction / 100 % 10) as u8);
            two_digits(fraction % 100, out);
        }
    }
    out.push(b'Z');
}

fn write_day(year: i32, month: u32, day: u32, out: &mut Vec<u8>) {
    two_digits(year as u32 / 100, out);
    two_digits(year as u32 % 100, out);
    out.push(b'-');
    two_digits(month, out);
    out.push(b'-');
    two_digits(day, out);
}

#[inline]
fn two_digits(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn json(column: impl Array + 'static) -> Vec<String> {
        json_of(DataType::String, column)
    }

    fn json_of(data_type: DataType, column: impl Array + 'static) -> Vec<String> {
        let column: ArrayRef = Arc::new(column);
        let cells = Cells::typed(&column, data_type);
        let write = |row| {
            let mut out = Vec::new();
            cells.write_json(row, &mut out);
            String::from_utf8(out).expect("JSON is UTF-8")
        };
        (0..column.len()).map(write).collect()
    }

    #[test]
    fn every_type_has_a_json_form() {
        assert_eq!(json(BooleanArray::from(vec![Some(true), Some(false), None])), ["true", "false", "null"]);
        assert_eq!(json(Int32Array::from(vec![i32::MIN])), ["-2147483648"]);
        assert_eq!(json(Int64Array::from(vec![i64::MIN, i64::MAX])), ["-9223372036854775808", "9223372036854775807"]);
        assert_eq!(json(Float64Array::from(vec![1.5, -0.0, f64::NAN, f64::INFINITY])), ["1.5", "-0.0", "null", "null"]);
        assert_eq!(json(StringViewArray::from(vec!["a\"b\n", ""])), [r#""a\"b\n""#, r#""""#]);
        let top = StringViewArray::from(vec![Some(r#"[{"value":"a","count":2}]"#), None]);
        assert_eq!(json_of(DataType::Json, top), [r#"[{"value":"a","count":2}]"#, "null"]);
        assert_eq!(json(Date32Array::from(vec![11353, -1])), [r#""2001-01-31""#, r#""1969-12-31""#]);
        let decimals = Decimal128Array::from(vec![Some(12345), Some(-5), Some(0), None]);
        let decimals = decimals.with_precision_and_scale(10, 2).expect("fits");
        assert_eq!(json(decimals), [r#""123.45""#, r#""-0.05""#, r#""0.00""#, "null"]);
        let whole = Decimal128Array::from(vec![-7]).with_precision_and_scale(10, 0).expect("fits");
        assert_eq!(json(whole), [r#""-7""#]);
        let widest = Decimal128Array::from(vec![10i128.pow(38) - 1]).with_precision_and_scale(38, 38).expect("fits");
        assert_eq!(json(widest), [format!("\"0.{}\"", "9".repeat(38))]);
    }

    #[test]
    fn csv_quotes_only_where_needed_and_distinguishes_null_from_empty() {
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), Some("a,\"b\""), Some(""), None]));
        let mut out = Vec::new();
        for row in 0..4 {
            Cells::new(&column).write_csv(row, &mut out);
            out.push(b';');
        }
        assert_eq!(String::from_utf8(out).as_deref(), Ok(r#"a;"a,""b""";"";;"#));
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![r#"["a",2]"#]));
        let mut out = Vec::new();
        Cells::typed(&column, DataType::Json).write_csv(0, &mut out);
        assert_eq!(String::from_utf8(out).as_deref(), Ok(r#""[""a"",2]""#));
    }

    proptest! {
        #[test]
        fn times_are_written_as_everywhere_else(micros in any::<i64>(), near in -5_000_000i64..5_000_000, unit in 0u32..7) {
            for time in [micros, near * 10i64.pow(unit)] {
                let mut out = Vec::new();
                write_timestamp(time, &mut out);
                prop_assert_eq!(String::from_utf8(out).expect("ASCII"), Micros(time).to_string());
            }
        }

        #[test]
        fn days_are_written_as_everywhere_else(days in -1_000_000i32..4_000_000) {
            let mut out = Vec::new();
            write_date(days, &mut out);
            prop_assert_eq!(String::from_utf8(out).expect("ASCII"), Day(days).to_string());
        }
    }
}
