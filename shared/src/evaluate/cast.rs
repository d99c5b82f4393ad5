//! Converts values to another type: a value that does not fit, or cannot be parsed, is NULL.

use polars::prelude::arity::unary_elementwise;
use polars::prelude::{
    BooleanChunked, Expr, Float64Chunked, Int32Chunked, Int64Chunked, Int128Chunked, IntoSeries, NewChunkedArray,
    PolarsResult, Series, StringChunked,
};

use super::arithmetic::{decimal, divide_half_away, fitting, power_of_ten, unscaled};
use super::kernel::{apply, polars_type};
use super::timestamp::{date_of, moments, timestamp};
use crate::decimal::write_decimal;
use crate::time::{Day, MICROS_PER_DAY, Micros};
use crate::types::DataType;

/// `CAST(a AS to)`, where `a` is of type `from`.
pub(super) fn cast(a: Expr, from: DataType, to: DataType) -> Expr {
    match (from, to) {
        (from, to) if from == to => a,
        // Widening is the same in Polars, and quicker.
        (DataType::Int, DataType::BigInt | DataType::Double) | (DataType::BigInt, DataType::Double) => {
            a.cast(polars_type(to))
        }
        _ => apply(vec![a], to, move |series| convert(&series[0], from, to)),
    }
}

fn convert(series: &Series, from: DataType, to: DataType) -> PolarsResult<Series> {
    match to {
        DataType::Boolean => to_boolean(series),
        DataType::Int => {
            let wide = to_integer(series, from)?;
            let narrow: Int32Chunked = unary_elementwise(&wide, |x: Option<i64>| x.and_then(|x| i32::try_from(x).ok()));
            Ok(narrow.into_series())
        }
        DataType::BigInt => Ok(to_integer(series, from)?.into_series()),
        DataType::Double => to_double(series, from),
        DataType::Decimal { precision, scale } => {
            let values = to_unscaled(series, from, precision, u32::from(scale.unsigned_abs()))?;
            Ok(decimal(values, to))
        }
        DataType::String | DataType::Json => to_text(series, from),
        DataType::Date => to_date(series, from),
        DataType::Timestamp => to_timestamp(series, from),
    }
}

fn to_boolean(series: &Series) -> PolarsResult<Series> {
    let read = |text: Option<&str>| match text?.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Some(true),
        "false" | "f" | "0" => Some(false),
        _ => None,
    };
    let result: BooleanChunked = unary_elementwise(series.str()?, read);
    Ok(result.into_series())
}

fn to_integer(series: &Series, from: DataType) -> PolarsResult<Int64Chunked> {
    Ok(match from {
        DataType::Boolean => unary_elementwise(series.bool()?, |x: Option<bool>| x.map(i64::from)),
        DataType::Int => unary_elementwise(series.i32()?, |x: Option<i32>| x.map(i64::from)),
        DataType::BigInt => series.i64()?.clone(),
        DataType::Double => unary_elementwise(series.f64()?, |x: Option<f64>| x.and_then(truncate)),
        DataType::Decimal { scale, .. } => {
            let unit = power_of_ten(u32::from(scale.unsigned_abs()));
            unary_elementwise(unscaled(series)?, |x: Option<i128>| x.and_then(|x| i64::try_from(x / unit).ok()))
        }
        _ => unary_elementwise(series.str()?, |text: Option<&str>| text.and_then(|text| text.trim().parse().ok())),
    })
}

/// Toward zero.
fn truncate(value: f64) -> Option<i64> {
    // Both bounds are exact DOUBLEs; the upper one is the first that does not fit. NaN is in no range.
    const BOUNDS: std::ops::Range<f64> = i64::MIN as f64..9_223_372_036_854_775_808.0;
    let value = value.trunc();
    BOUNDS.contains(&value).then_some(value as i64)
}

fn to_double(series: &Series, from: DataType) -> PolarsResult<Series> {
    let result: Float64Chunked = match from {
        DataType::Decimal { scale, .. } => {
            let scale = scale.unsigned_abs();
            unary_elementwise(unscaled(series)?, |x: Option<i128>| x.map(|x| double_of(x, scale)))
        }
        _ => unary_elementwise(series.str()?, |text: Option<&str>| text.and_then(|text| text.trim().parse().ok())),
    };
    Ok(result.into_series())
}

/// The DOUBLE nearest to a decimal.
fn double_of(unscaled: i128, scale: u8) -> f64 {
    // Numerator and power of ten are exact up to here, so the quotient is rounded once.
    const EXACT: u128 = 1 << 53;
    if unscaled.unsigned_abs() <= EXACT && scale <= 22 {
        return unscaled as f64 / 10_f64.powi(i32::from(scale));
    }
    format!("{unscaled}e-{scale}").parse().expect("digits and an exponent are a DOUBLE")
}

fn to_unscaled(series: &Series, from: DataType, precision: u8, scale: u32) -> PolarsResult<Int128Chunked> {
    let unit = power_of_ten(scale);
    let fit = move |x: i128| fitting(x, precision);
    Ok(match from {
        DataType::Int => {
            unary_elementwise(series.i32()?, |x: Option<i32>| i128::from(x?).checked_mul(unit).and_then(fit))
        }
        DataType::BigInt => {
            unary_elementwise(series.i64()?, |x: Option<i64>| i128::from(x?).checked_mul(unit).and_then(fit))
        }
        DataType::Double => unary_elementwise(series.f64()?, |x: Option<f64>| {
            let scaled = (x? * unit as f64).round();
            // A cast of what does not fit i128 saturates, and then does not fit the digits; NaN would become 0.
            if scaled.is_nan() { None } else { fit(scaled as i128) }
        }),
        DataType::Decimal { scale: from, .. } => {
            let from = u32::from(from.unsigned_abs());
            unary_elementwise(unscaled(series)?, |x: Option<i128>| match from <= scale {
                true => x?.checked_mul(power_of_ten(scale - from)).and_then(fit),
                false => fit(divide_half_away(x?, power_of_ten(from - scale))),
            })
        }
        _ => unary_elementwise(series.str()?, |text: Option<&str>| read_decimal(text?.trim(), scale).and_then(fit)),
    })
}

/// The unscaled value of digits with an optional sign and point; further digits are rounded half away from zero.
fn read_decimal(text: &str, scale: u32) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let scale = scale as usize;
    let kept = &fraction[..fraction.len().min(scale)];
    let missing = u32::try_from(scale - kept.len()).ok()?;
    let digits = format!("0{whole}{kept}").parse::<i128>().ok()?;
    let value = digits.checked_mul(power_of_ten(missing))?;
    let up = fraction.as_bytes().get(scale).is_some_and(|digit| *digit >= b'5');
    let value = value.checked_add(i128::from(up))?;
    Some(if negative { -value } else { value })
}

fn to_text(series: &Series, from: DataType) -> PolarsResult<Series> {
    let name = series.name().clone();
    let texts = match from {
        DataType::Boolean => collect(name, series.bool()?.iter(), |x| x.to_string()),
        DataType::Int => collect(name, series.i32()?.iter(), |x| x.to_string()),
        DataType::BigInt => collect(name, series.i64()?.iter(), |x| x.to_string()),
        DataType::Double => collect(name, series.f64()?.iter(), |x| format!("{x:?}")),
        DataType::Decimal { scale, .. } => collect(name, unscaled(series)?.iter(), |x| {
            let mut text = String::new();
            write_decimal(x, scale, &mut text);
            text
        }),
        DataType::Date => collect(name, series.date()?.physical().iter(), |x| Day(x).to_string()),
        _ => collect(name, moments(series)?.iter(), |x| Micros(x).to_string()),
    };
    Ok(texts.into_series())
}

fn collect<T>(
    name: polars::prelude::PlSmallStr,
    values: impl Iterator<Item = Option<T>>,
    write: impl Fn(T) -> String,
) -> StringChunked {
    StringChunked::from_iter_options(name, values.map(|value| value.map(&write)))
}

fn to_date(series: &Series, from: DataType) -> PolarsResult<Series> {
    let days: Int32Chunked = match from {
        DataType::Timestamp => unary_elementwise(moments(series)?, |x: Option<i64>| date_of(x?)),
        _ => unary_elementwise(series.str()?, |text: Option<&str>| {
            let text = text?.trim();
            // `Day::parse` also takes moments; a DATE has nothing behind its day.
            Day::parse(text).filter(|day| day.to_string() == text).map(|day| day.0)
        }),
    };
    Ok(days.into_date().into_series())
}

fn to_timestamp(series: &Series, from: DataType) -> PolarsResult<Series> {
    let values: Int64Chunked = match from {
        DataType::Date => {
            unary_elementwise(series.date()?.physical(), |x: Option<i32>| i64::from(x?).checked_mul(MICROS_PER_DAY))
        }
        _ => unary_elementwise(series.str()?, |text: Option<&str>| Micros::parse(text?.trim()).map(|moment| moment.0)),
    };
    Ok(timestamp(values))
}
