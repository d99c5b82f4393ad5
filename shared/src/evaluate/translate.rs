//! Translates expressions to Polars. No operand is written twice, so nesting never multiplies work.

use std::sync::Arc;

use polars::prelude::{AnyValue, Expr, LiteralValue, Scalar as PolarsScalar, coalesce, when};

use super::arithmetic::{arithmetic, negate, of_double, of_doubles, of_number, round};
use super::cast::cast;
use super::choose::{extreme, is_in, null_if};
use super::kernel::polars_type;
use super::like::{like, regex_of};
use super::meter::Meter;
use super::text::of_text;
use super::timestamp::{of_moment, shift};
use crate::scalar::{CompareOp, Function, Literal, Node, Scalar};
use crate::types::DataType;

/// The column of exactly this name. Polars' own `col` reads `*` and `^..$` as patterns.
pub fn column(name: &str) -> Expr {
    Expr::Column(name.into())
}

/// The expression in Polars; `columns` are the Polars names of the columns by index. Nothing bounds the texts that it builds:
/// it must not be one that [`super::growth::may_outgrow`].
///
/// # Panics
/// If the expression reads a column that is not in `columns`.
pub fn to_polars(scalar: &Scalar, columns: &[String]) -> Expr {
    translated(scalar, columns, &Arc::new(Meter::unlimited()))
}

/// The expression in Polars, whose texts `meter` bounds.
pub(super) fn translated(scalar: &Scalar, columns: &[String], meter: &Arc<Meter>) -> Expr {
    let to = |scalar: &Scalar| translated(scalar, columns, meter);
    match &scalar.node {
        Node::Column(index) => column(&columns[*index]),
        Node::Literal(value) => literal(value, scalar.data_type),
        Node::Arithmetic(op, a, b) => arithmetic(*op, to(a), to(b), scalar.data_type),
        Node::Compare(op, a, b) => compare(*op, to(a), to(b)),
        Node::And(a, b) => to(a).and(to(b)),
        Node::Or(a, b) => to(a).or(to(b)),
        Node::Not(a) => to(a).not(),
        Node::Negate(a) => negate(to(a), scalar.data_type),
        Node::IsNull(a) => to(a).is_null(),
        Node::Case(branches, otherwise) => {
            let otherwise = match otherwise {
                Some(otherwise) => to(otherwise),
                None => literal(&Literal::Null, scalar.data_type),
            };
            let choose = |rest: Expr, (condition, result): &(Scalar, Scalar)| {
                when(to(condition)).then(to(result)).otherwise(rest)
            };
            branches.iter().rev().fold(otherwise, choose)
        }
        Node::Cast(a) => cast(to(a), a.data_type, scalar.data_type),
        Node::In(a, list) => is_in(to(a), list, a.data_type),
        Node::Like { text, pattern, escape, ignore_case } => {
            like(meter, to(text), &regex_of(pattern, *escape, *ignore_case))
        }
        Node::Coalesce(items) => coalesce(&items.iter().map(to).collect::<Vec<_>>()),
        Node::Shift(a, by) => shift(to(a), *by),
        Node::Call(function, arguments) => call(*function, arguments, (columns, meter), scalar.data_type),
    }
}

fn compare(op: CompareOp, a: Expr, b: Expr) -> Expr {
    match op {
        CompareOp::Equal => a.eq(b),
        CompareOp::NotEqual => a.neq(b),
        CompareOp::Less => a.lt(b),
        CompareOp::LessOrEqual => a.lt_eq(b),
        CompareOp::Greater => a.gt(b),
        CompareOp::GreaterOrEqual => a.gt_eq(b),
    }
}

fn literal(value: &Literal, data_type: DataType) -> Expr {
    let wanted = polars_type(data_type);
    let value = match value {
        Literal::Null => AnyValue::Null,
        Literal::Boolean(value) => AnyValue::Boolean(*value),
        Literal::BigInt(value) => AnyValue::Int64(*value),
        Literal::Double(value) => AnyValue::Float64(*value),
        Literal::Decimal(unscaled) => match data_type {
            DataType::Decimal { precision, scale } => {
                AnyValue::Decimal(*unscaled, usize::from(precision), usize::from(scale.unsigned_abs()))
            }
            _ => AnyValue::Null,
        },
        Literal::String(text) => AnyValue::StringOwned(text.as_str().into()),
        Literal::Date(day) => AnyValue::Date(*day),
        Literal::Timestamp(micros) => match &wanted {
            polars::prelude::DataType::Datetime(unit, zone) => {
                AnyValue::DatetimeOwned(*micros, *unit, zone.clone().map(std::sync::Arc::new))
            }
            _ => AnyValue::Null,
        },
    };
    Expr::Literal(LiteralValue::Scalar(PolarsScalar::new(wanted, value)))
}

fn call(
    function: Function,
    arguments: &[Scalar],
    (columns, meter): (&[String], &Arc<Meter>),
    output: DataType,
) -> Expr {
    let mut items: Vec<Expr> = arguments.iter().map(|argument| translated(argument, columns, meter)).collect();
    let input = arguments.first().map_or(output, |argument| argument.data_type);
    match function {
        Function::Upper
        | Function::Lower
        | Function::Length
        | Function::Trim
        | Function::TrimStart
        | Function::TrimEnd
        | Function::Substring
        | Function::Left
        | Function::Right
        | Function::Concat
        | Function::Replace
        | Function::StartsWith
        | Function::EndsWith
        | Function::Contains
        | Function::Reverse => of_text(meter, function, items, output),
        Function::Abs | Function::Sign | Function::Floor | Function::Ceil => {
            of_number(function, items.swap_remove(0), input, output)
        }
        Function::Round => {
            let digits = match arguments.get(1).map(|digits| &digits.node) {
                Some(Node::Literal(Literal::BigInt(digits))) => *digits,
                _ => 0,
            };
            round(items.swap_remove(0), digits, output)
        }
        Function::Sqrt => of_double(items.swap_remove(0), f64::sqrt),
        Function::Exp => of_double(items.swap_remove(0), f64::exp),
        Function::Ln => of_double(items.swap_remove(0), f64::ln),
        Function::Power => {
            let exponent = items.swap_remove(1);
            of_doubles(items.swap_remove(0), exponent, f64::powf)
        }
        Function::Greatest | Function::Least => extreme(function, items, output),
        Function::NullIf => {
            let other = items.swap_remove(1);
            null_if(items.swap_remove(0), other, output)
        }
        Function::Year
        | Function::Quarter
        | Function::Month
        | Function::Week
        | Function::Day
        | Function::DayOfWeek
        | Function::DayOfYear
        | Function::Hour
        | Function::Minute
        | Function::Second
        | Function::Epoch
        | Function::TruncateToSecond
        | Function::TruncateToMinute
        | Function::TruncateToHour
        | Function::TruncateToDay
        | Function::TruncateToWeek
        | Function::TruncateToMonth
        | Function::TruncateToQuarter
        | Function::TruncateToYear => of_moment(function, items.swap_remove(0), output),
    }
}
