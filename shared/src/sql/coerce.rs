//! Brings operands to a common type: numbers widen, a date becomes a moment, constants adapt to the other operand.

use super::data_type::DECIMAL_DIGITS_MAX;
use super::literal;
use crate::scalar::{Literal, Node, Scalar};
use crate::time::MICROS_PER_DAY;
use crate::types::DataType;

/// A literal with a decimal point that met no DECIMAL is DOUBLE.
pub(super) fn settle(scalar: Scalar) -> Scalar {
    match (&scalar.node, scalar.data_type) {
        (Node::Literal(Literal::Decimal(unscaled)), DataType::Decimal { scale, .. }) => {
            let value = format!("{unscaled}e-{scale}").parse().expect("digits and an exponent are a DOUBLE");
            Scalar { node: Node::Literal(Literal::Double(value)), data_type: DataType::Double }
        }
        _ => scalar,
    }
}

/// Returns whether CAST can turn `from` into `to`.
pub(super) fn can_cast(from: DataType, to: DataType) -> bool {
    use DataType::{Boolean, Date, String, Timestamp};
    match (from, to) {
        (from, to) if from == to => true,
        (String, _) | (_, String) => true,
        (Boolean, to) => to.is_integer(),
        (Date, Timestamp) | (Timestamp, Date) => true,
        (from, to) => from.is_numeric() && to.is_numeric(),
    }
}

/// The type in which all of `items` can be compared or chosen from; `None` if there is none. Bare NULLs fit any.
pub(super) fn common_type(items: &[Scalar]) -> Option<DataType> {
    let is_decimal = |item: &&Scalar| matches!(item.data_type, DataType::Decimal { .. });
    let settled = items.iter().filter(|item| !is_null(item)).filter(|item| !matches!(item.node, Node::Literal(_)));
    let any_decimal = settled.clone().any(|item| is_decimal(&item));
    // Constants come last: they adapt to columns.
    let (constants, others): (Vec<&Scalar>, Vec<&Scalar>) =
        items.iter().filter(|item| !is_null(item)).partition(|item| matches!(item.node, Node::Literal(_)));
    let mut common: Option<DataType> = None;
    for item in others.into_iter().chain(constants) {
        let this = match (&item.node, item.data_type) {
            (Node::Literal(Literal::Decimal(_)), _) if !any_decimal => DataType::Double,
            (Node::Literal(Literal::BigInt(value)), _) if any_decimal => {
                DataType::Decimal { precision: value.unsigned_abs().checked_ilog10().unwrap_or(0) as u8 + 1, scale: 0 }
            }
            (_, data_type) => data_type,
        };
        common = Some(match common {
            None => this,
            Some(so_far) => {
                let adapts = matches!(item.node, Node::Literal(Literal::String(_)));
                widen(so_far, this).or_else(|| (adapts && is_moment(so_far)).then_some(so_far))?
            }
        });
    }
    Some(common.unwrap_or(DataType::String))
}

fn is_moment(data_type: DataType) -> bool {
    matches!(data_type, DataType::Date | DataType::Timestamp)
}

/// Returns whether this is a NULL without a type of its own.
pub(super) fn is_null(scalar: &Scalar) -> bool {
    matches!(scalar.node, Node::Literal(Literal::Null))
}

fn widen(a: DataType, b: DataType) -> Option<DataType> {
    use DataType::{BigInt, Date, Decimal, Double, Timestamp};
    match (a, b) {
        (a, b) if a == b => Some(a),
        (Date, Timestamp) | (Timestamp, Date) => Some(Timestamp),
        (a, b) if !a.is_numeric() || !b.is_numeric() => None,
        (Double, _) | (_, Double) => Some(Double),
        (Decimal { .. }, _) | (_, Decimal { .. }) => {
            let ((whole_a, scale_a), (whole_b, scale_b)) = (digits(a), digits(b));
            let scale = scale_a.max(scale_b);
            let precision = (whole_a.max(whole_b) + scale as u8).min(DECIMAL_DIGITS_MAX);
            Some(Decimal { precision, scale })
        }
        _ => Some(BigInt),
    }
}

/// Digits before and behind the point.
fn digits(data_type: DataType) -> (u8, i8) {
    match data_type {
        DataType::Decimal { precision, scale } => (precision.saturating_sub(scale as u8), scale),
        DataType::Int => (10, 0),
        _ => (19, 0),
    }
}

/// Digits behind the point.
pub(super) fn scale_of(data_type: DataType) -> i8 {
    digits(data_type).1
}

/// Brings `scalar` to type `to`: constants at once, everything else by a cast. Errors: a text that is not a date or moment.
pub(super) fn bring_to(scalar: Scalar, to: DataType) -> Result<Scalar, String> {
    if scalar.data_type == to {
        return Ok(scalar);
    }
    let constant = match (&scalar.node, to) {
        (Node::Literal(Literal::Null), _) => Some(Literal::Null),
        (Node::Literal(Literal::String(text)), DataType::Date | DataType::Timestamp) => {
            return literal::moment(text, to);
        }
        (Node::Literal(Literal::BigInt(value)), DataType::Double) => Some(Literal::Double(*value as f64)),
        (Node::Literal(Literal::BigInt(value)), DataType::Decimal { precision, scale }) => {
            rescale(i128::from(*value), 0, precision, scale)
        }
        (Node::Literal(Literal::Decimal(unscaled)), DataType::Decimal { precision, scale }) => {
            rescale(*unscaled, scale_of(scalar.data_type), precision, scale)
        }
        (Node::Literal(Literal::Decimal(_)), DataType::Double) => return Ok(settle(scalar)),
        (Node::Literal(Literal::Date(day)), DataType::Timestamp) => {
            Some(Literal::Timestamp(i64::from(*day) * MICROS_PER_DAY))
        }
        _ => None,
    };
    Ok(match constant {
        Some(constant) => Scalar { node: Node::Literal(constant), data_type: to },
        None => Scalar { node: Node::Cast(Box::new(scalar)), data_type: to },
    })
}

/// The same number with more digits behind the point, if it fits `precision` digits.
fn rescale(unscaled: i128, from: i8, precision: u8, scale: i8) -> Option<Literal> {
    let power = u32::try_from(scale.checked_sub(from)?).ok()?;
    let value = unscaled.checked_mul(10_i128.checked_pow(power)?)?;
    (value.unsigned_abs() < 10_u128.pow(u32::from(precision))).then_some(Literal::Decimal(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: DataType) -> Scalar {
        Scalar::column(0, data_type)
    }

    #[test]
    fn common_types_are_the_widest() {
        use DataType::{BigInt, Boolean, Date, Decimal, Double, Int, String, Timestamp};
        let decimal = |precision, scale| Decimal { precision, scale };
        let half = literal::number("0.5").expect("a number");
        let five = literal::number("5").expect("a number");
        let text = literal::text("2001-01-01");
        for (items, expected) in [
            (vec![column(Int), column(Int)], Some(Int)),
            (vec![column(Int), column(BigInt)], Some(BigInt)),
            (vec![column(BigInt), column(Double)], Some(Double)),
            (vec![column(decimal(10, 2)), column(decimal(5, 4))], Some(decimal(12, 4))),
            (vec![column(decimal(10, 2)), column(BigInt)], Some(decimal(21, 2))),
            (vec![column(decimal(10, 2)), column(Double)], Some(Double)),
            (vec![column(decimal(10, 2)), half.clone()], Some(decimal(10, 2))),
            (vec![column(decimal(10, 2)), five.clone()], Some(decimal(10, 2))),
            (vec![column(BigInt), half.clone()], Some(Double)),
            (vec![half, five], Some(Double)),
            (vec![column(Date), column(Timestamp)], Some(Timestamp)),
            (vec![text.clone(), column(Date)], Some(Date)),
            (vec![text.clone(), column(String)], Some(String)),
            (vec![text, column(BigInt)], None),
            (vec![column(Boolean), column(BigInt)], None),
        ] {
            assert_eq!(common_type(&items), expected, "{items:?}");
        }
    }
}
