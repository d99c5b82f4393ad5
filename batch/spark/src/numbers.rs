//! Writes arithmetic and functions of numbers: what does not fit is NULL, DOUBLEs follow IEEE 754, decimals keep their scale.

use shared::scalar::{ArithmeticOp, Function};
use shared::types::DataType;

use crate::quote;

/// From here on every DOUBLE is whole.
const WHOLE: &str = "4503599627370496D";
const INFINITY: &str = "CAST('Infinity' AS DOUBLE)";
const NAN: &str = "CAST('NaN' AS DOUBLE)";

/// Writes `a op b` of BIGINTs; `divisor` is `b` if it is a constant.
pub fn of_integers(op: ArithmeticOp, a: &str, b: &str, divisor: Option<i64>) -> String {
    match op {
        ArithmeticOp::Add => format!("try_add({a}, {b})"),
        ArithmeticOp::Subtract => format!("try_subtract({a}, {b})"),
        ArithmeticOp::Multiply => format!("try_multiply({a}, {b})"),
        ArithmeticOp::Divide => match divisor {
            Some(0) => "CAST(NULL AS BIGINT)".to_owned(),
            Some(-1) => format!("try_subtract(0L, {a})"),
            Some(_) => format!("({a} div {b})"),
            // The smallest number by -1 does not fit.
            None => {
                format!("(CASE WHEN {b} = -1L THEN try_subtract(0L, {a}) WHEN {b} = 0L THEN NULL ELSE {a} div {b} END)")
            }
        },
        ArithmeticOp::Modulo => match divisor.filter(|divisor| *divisor != 0) {
            Some(_) => format!("({a} % {b})"),
            None => format!("({a} % nullif({b}, 0L))"),
        },
    }
}

/// Writes `a op b` of DOUBLEs. Spark refuses to divide by zero.
pub fn of_doubles(op: ArithmeticOp, a: &str, b: &str) -> String {
    match op {
        ArithmeticOp::Divide => {
            // The power keeps the sign of zero.
            format!("(CASE WHEN {b} = 0D THEN {a} * power({b}, -1D) ELSE {a} / {b} END)")
        }
        ArithmeticOp::Modulo => format!("(CASE WHEN {b} = 0D THEN {a} + {NAN} ELSE {a} % {b} END)"),
        op => format!("({a} {} {b})", op.symbol()),
    }
}

/// Writes `a op b` of DECIMALs, which the dialect has for `+ - *`.
pub fn of_decimals(op: ArithmeticOp, a: &str, b: &str, data_type: DataType) -> String {
    let exact = match op {
        ArithmeticOp::Add => format!("try_add({a}, {b})"),
        ArithmeticOp::Subtract => format!("try_subtract({a}, {b})"),
        ArithmeticOp::Multiply => format!("try_multiply({a}, {b})"),
        ArithmeticOp::Divide | ArithmeticOp::Modulo => "NULL".to_owned(),
    };
    fitting(&exact, data_type)
}

fn fitting(value: &str, data_type: DataType) -> String {
    format!("try_cast({value} AS {})", quote::data_type(data_type))
}

/// Writes `-a`.
pub fn negate(a: &str, data_type: DataType) -> String {
    match data_type {
        DataType::Double => format!("(- {a})"),
        DataType::Decimal { .. } => fitting(&format!("(- {a})"), data_type),
        _ => format!("try_subtract(0L, {a})"),
    }
}

/// Writes ABS, SIGN, FLOOR or CEIL of a number of type `input`.
pub fn of_number(function: Function, a: &str, input: DataType, output: DataType) -> String {
    match (input, function) {
        (DataType::Double, Function::Abs) => format!("abs({a})"),
        (DataType::Double, Function::Floor) => whole(a, "floor"),
        (DataType::Double, Function::Ceil) => whole(a, "ceil"),
        (DataType::Double, _) => format!("sign({a})"),
        (DataType::Decimal { .. }, Function::Abs) => fitting(&format!("abs({a})"), output),
        (DataType::Decimal { .. }, Function::Floor) => fitting(&format!("floor({a})"), output),
        (DataType::Decimal { .. }, Function::Ceil) => fitting(&format!("ceil({a})"), output),
        (_, Function::Abs) => format!("(CASE WHEN {a} >= 0L THEN {a} ELSE try_subtract(0L, {a}) END)"),
        _ => format!("CAST(sign({a}) AS BIGINT)"),
    }
}

/// Writes FLOOR or CEIL of a DOUBLE, which are BIGINT there. A zero keeps the sign of `a`.
fn whole(a: &str, function: &str) -> String {
    format!(
        "(CASE WHEN abs({a}) < {WHOLE} THEN CASE WHEN {function}({a}) = 0L THEN {a} * 0D ELSE CAST({function}({a}) AS DOUBLE) END \
         ELSE {a} END)"
    )
}

/// Writes ROUND, half away from zero, keeping `digits` behind the point.
pub fn round(a: &str, digits: i64, data_type: DataType) -> String {
    if let DataType::Decimal { .. } = data_type {
        return fitting(&format!("round({a}, {digits})"), data_type);
    }
    // Not ROUND of the decimal text: 1.005 is less than its text says.
    let factor = quote::double(10_f64.powi(i32::try_from(digits).unwrap_or(0)));
    let scaled = format!("({a} * {factor})");
    format!(
        "(CASE WHEN abs({scaled}) < {WHOLE} THEN \
         (CASE WHEN round({scaled}) = 0D THEN {scaled} * 0D ELSE round({scaled}) END) / {factor} \
         WHEN abs({scaled}) < {INFINITY} THEN {scaled} / {factor} ELSE {a} END)"
    )
}

/// Writes LN: Spark gives NULL where IEEE 754 has minus infinity and NaN.
pub fn ln(a: &str) -> String {
    format!("(CASE WHEN {a} > 0D THEN ln({a}) WHEN {a} = 0D THEN - {INFINITY} WHEN {a} < 0D THEN {NAN} END)")
}

/// Writes POWER: Java has NaN where IEEE 754 has 1.
pub fn power(a: &str, b: &str) -> String {
    format!(
        "(CASE WHEN {a} = 1D AND {b} IS NOT NULL THEN 1D WHEN {a} = -1D AND abs({b}) = {INFINITY} THEN 1D \
         ELSE power({a}, {b}) END)"
    )
}

/// Writes a DOUBLE with one NaN and one zero.
pub fn canonical(a: &str) -> String {
    format!("(CASE WHEN isnan({a}) THEN {NAN} ELSE {a} + 0D END)")
}
