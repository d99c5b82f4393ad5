//! Implements arithmetic and rounding of numbers: a result that does not fit is NULL, never wrapped.

use polars::prelude::arity::{broadcast_binary_elementwise, unary_elementwise};
use polars::prelude::{
    Expr, Float64Chunked, Float64Type, Int64Chunked, Int64Type, Int128Chunked, Int128Type, IntoSeries, PolarsResult,
    Series,
};

use super::kernel::apply;
use crate::scalar::{ArithmeticOp, Function};
use crate::types::DataType;

/// Ten to the power of `digits`; at most 38.
pub(super) fn power_of_ten(digits: u32) -> i128 {
    10_i128.pow(digits.min(38))
}

/// The value, if it has at most `precision` digits.
pub(super) fn fitting(value: i128, precision: u8) -> Option<i128> {
    (value.unsigned_abs() < power_of_ten(u32::from(precision)).unsigned_abs()).then_some(value)
}

/// Unscaled values of a DECIMAL series.
pub(super) fn unscaled(series: &Series) -> PolarsResult<&Int128Chunked> {
    Ok(series.decimal()?.physical())
}

/// A DECIMAL series out of unscaled values.
pub(super) fn decimal(values: Int128Chunked, data_type: DataType) -> Series {
    let DataType::Decimal { precision, scale } = data_type else {
        unreachable!("only decimals have unscaled values");
    };
    values.into_decimal_unchecked(usize::from(precision), usize::from(scale.unsigned_abs())).into_series()
}

/// `a op b`; both have the type that the dialect brought them to.
pub(super) fn arithmetic(op: ArithmeticOp, a: Expr, b: Expr, data_type: DataType) -> Expr {
    match (data_type, op) {
        // The remainder of Polars takes the divisor's sign, and it divides by a constant by multiplying with its
        // reciprocal, which rounds twice.
        (DataType::Double, ArithmeticOp::Modulo) => of_doubles(a, b, |x, y| x % y),
        (DataType::Double, ArithmeticOp::Divide) => of_doubles(a, b, |x, y| x / y),
        (DataType::Double, ArithmeticOp::Add) => a + b,
        (DataType::Double, ArithmeticOp::Subtract) => a - b,
        (DataType::Double, ArithmeticOp::Multiply) => a * b,
        (DataType::Decimal { precision, .. }, _) => apply(vec![a, b], data_type, move |series| {
            let compute = move |x: Option<i128>, y: Option<i128>| {
                let (x, y) = (x?, y?);
                let result = match op {
                    ArithmeticOp::Add => x.checked_add(y),
                    ArithmeticOp::Subtract => x.checked_sub(y),
                    ArithmeticOp::Multiply => x.checked_mul(y),
                    // The dialect divides decimals as DOUBLE and refuses their remainder.
                    ArithmeticOp::Divide | ArithmeticOp::Modulo => None,
                };
                result.and_then(|result| fitting(result, precision))
            };
            let (x, y) = (unscaled(&series[0])?, unscaled(&series[1])?);
            let result = broadcast_binary_elementwise::<Int128Type, Int128Type, Int128Type, _>(x, y, compute);
            Ok(decimal(result, data_type))
        }),
        _ => apply(vec![a, b], DataType::BigInt, move |series| {
            let compute = move |x: Option<i64>, y: Option<i64>| {
                let (x, y) = (x?, y?);
                match op {
                    ArithmeticOp::Add => x.checked_add(y),
                    ArithmeticOp::Subtract => x.checked_sub(y),
                    ArithmeticOp::Multiply => x.checked_mul(y),
                    ArithmeticOp::Divide => x.checked_div(y),
                    ArithmeticOp::Modulo if y == 0 => None,
                    // The remainder of the smallest number by -1 is 0, though the quotient does not fit.
                    ArithmeticOp::Modulo => Some(x.wrapping_rem(y)),
                }
            };
            let (x, y) = (series[0].i64()?, series[1].i64()?);
            Ok(broadcast_binary_elementwise::<Int64Type, Int64Type, Int64Type, _>(x, y, compute).into_series())
        }),
    }
}

/// `-a`
pub(super) fn negate(a: Expr, data_type: DataType) -> Expr {
    match data_type {
        DataType::Double => of_double(a, |x| -x),
        DataType::Decimal { .. } => of_decimal(a, data_type, i128::checked_neg),
        _ => of_integer(a, i64::checked_neg),
    }
}

/// ABS, SIGN, FLOOR and CEIL of a number of type `input`.
pub(super) fn of_number(function: Function, a: Expr, input: DataType, output: DataType) -> Expr {
    match input {
        DataType::Double => match function {
            Function::Abs => of_double(a, f64::abs),
            Function::Floor => of_double(a, f64::floor),
            Function::Ceil => of_double(a, f64::ceil),
            _ => of_double(a, |x| {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    x
                }
            }),
        },
        DataType::Decimal { scale, .. } => {
            let unit = power_of_ten(scale.unsigned_abs().into());
            match function {
                Function::Abs => of_decimal(a, output, i128::checked_abs),
                Function::Floor => of_decimal(a, output, move |x| x.checked_sub(x.rem_euclid(unit))),
                Function::Ceil => of_decimal(a, output, move |x| x.checked_add((-x).rem_euclid(unit))),
                _ => apply(vec![a], DataType::BigInt, |series| {
                    let sign = |x: Option<i128>| x.map(|x| x.signum() as i64);
                    let result: Int64Chunked = unary_elementwise(unscaled(&series[0])?, sign);
                    Ok(result.into_series())
                }),
            }
        }
        _ => match function {
            Function::Abs => of_integer(a, i64::checked_abs),
            _ => of_integer(a, |x| Some(x.signum())),
        },
    }
}

/// Rounds half away from zero, keeping `digits` behind the point.
pub(super) fn round(a: Expr, digits: i64, data_type: DataType) -> Expr {
    let digits = u32::try_from(digits).unwrap_or(0);
    match data_type {
        DataType::Decimal { scale, .. } => {
            let unit = power_of_ten(u32::from(scale.unsigned_abs()).saturating_sub(digits));
            of_decimal(a, data_type, move |x| divide_half_away(x, unit).checked_mul(unit))
        }
        _ => {
            let factor = 10_f64.powi(digits.cast_signed());
            of_double(a, move |x| {
                let rounded = (x * factor).round() / factor;
                if rounded.is_finite() { rounded } else { x }
            })
        }
    }
}

/// The quotient, rounded half away from zero; `unit` is positive.
pub(super) fn divide_half_away(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    // `unit - |rest|` instead of `2 * |rest|`, which may not fit.
    if rest.abs() >= unit - rest.abs() { quotient + value.signum() } else { quotient }
}

/// A function of one DOUBLE.
pub(super) fn of_double(a: Expr, function: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Expr {
    apply(vec![a], DataType::Double, move |series| {
        let result: Float64Chunked = unary_elementwise(series[0].f64()?, |x: Option<f64>| x.map(&function));
        Ok(result.into_series())
    })
}

/// A function of two DOUBLEs.
pub(super) fn of_doubles(a: Expr, b: Expr, function: impl Fn(f64, f64) -> f64 + Send + Sync + 'static) -> Expr {
    apply(vec![a, b], DataType::Double, move |series| {
        let compute = |x: Option<f64>, y: Option<f64>| Some(function(x?, y?));
        let (x, y) = (series[0].f64()?, series[1].f64()?);
        Ok(broadcast_binary_elementwise::<Float64Type, Float64Type, Float64Type, _>(x, y, compute).into_series())
    })
}

fn of_integer(a: Expr, function: impl Fn(i64) -> Option<i64> + Send + Sync + 'static) -> Expr {
    apply(vec![a], DataType::BigInt, move |series| {
        let result: Int64Chunked = unary_elementwise(series[0].i64()?, |x: Option<i64>| x.and_then(&function));
        Ok(result.into_series())
    })
}

fn of_decimal(a: Expr, data_type: DataType, function: impl Fn(i128) -> Option<i128> + Send + Sync + 'static) -> Expr {
    let precision = if let DataType::Decimal { precision, .. } = data_type { precision } else { 38 };
    apply(vec![a], data_type, move |series| {
        let compute = |x: Option<i128>| x.and_then(&function).and_then(|x| fitting(x, precision));
        let result: Int128Chunked = unary_elementwise(unscaled(&series[0])?, compute);
        Ok(decimal(result, data_type))
    })
}
