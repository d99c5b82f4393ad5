//! Reads constants: numbers, texts, dates and moments.

use chrono::{Datelike, NaiveDate};

use super::data_type::DECIMAL_DIGITS_MAX;
use crate::scalar::{Literal, Node, Scalar};
use crate::time::Micros;
use crate::types::DataType;

/// Days from 0001-01-01 to 1970-01-01, by which chrono counts.
const DAYS_TO_1970: i32 = 719_163;

/// A number: BIGINT without a point, DECIMAL with one (DOUBLE if it has too many digits), DOUBLE with an exponent.
pub(super) fn number(text: &str) -> Result<Scalar, String> {
    let is_double = text.contains(['e', 'E']);
    let decimal = if is_double { None } else { text.split_once('.') };
    match decimal {
        Some((whole, fraction)) => Ok(decimal_literal(whole, fraction).map_or_else(|| double(text), Ok)?),
        None if is_double => double(text),
        None => match text.parse() {
            Ok(value) => Ok(Scalar { node: Node::Literal(Literal::BigInt(value)), data_type: DataType::BigInt }),
            Err(_) => Err(format!("`{text}` does not fit BIGINT; write {text}.0 for a DOUBLE")),
        },
    }
}

fn decimal_literal(whole: &str, fraction: &str) -> Option<Scalar> {
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1);
    let precision = u8::try_from(significant).ok().filter(|precision| *precision <= DECIMAL_DIGITS_MAX)?;
    let scale = i8::try_from(fraction.len()).ok()?;
    let unscaled = digits.parse().ok()?;
    let data_type = DataType::Decimal { precision, scale };
    Some(Scalar { node: Node::Literal(Literal::Decimal(unscaled)), data_type })
}

fn double(text: &str) -> Result<Scalar, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => {
            Ok(Scalar { node: Node::Literal(Literal::Double(value)), data_type: DataType::Double })
        }
        _ => Err(format!("`{text}` does not fit DOUBLE")),
    }
}

/// A text.
pub(super) fn text(text: &str) -> Scalar {
    Scalar { node: Node::Literal(Literal::String(text.to_owned())), data_type: DataType::String }
}

/// A DATE or TIMESTAMP out of a text.
pub(super) fn moment(text: &str, wanted: DataType) -> Result<Scalar, String> {
    let literal = match wanted {
        DataType::Date => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d");
            date.map(|date| Literal::Date(date.num_days_from_ce() - DAYS_TO_1970)).ok()
        }
        _ => Micros::parse(text).map(|moment| Literal::Timestamp(moment.0)),
    };
    match literal {
        Some(literal) => Ok(Scalar { node: Node::Literal(literal), data_type: wanted }),
        None if wanted == DataType::Date => Err(format!("'{text}' is not a DATE such as '2001-01-31'")),
        None => Err(format!("'{text}' is not a TIMESTAMP such as '2001-01-31T06:00:00Z'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Option<Literal> {
        match number(text).ok()?.node {
            Node::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    #[test]
    fn numbers_have_the_type_of_their_form() {
        assert_eq!(literal("42"), Some(Literal::BigInt(42)));
        assert_eq!(literal("-9223372036854775808"), Some(Literal::BigInt(i64::MIN)));
        assert_eq!(literal("9223372036854775808"), None);
        assert_eq!(literal("-0.50"), Some(Literal::Decimal(-50)));
        assert_eq!(number("0.05").map(|n| n.data_type), Ok(DataType::Decimal { precision: 2, scale: 2 }));
        assert_eq!(literal(".5"), Some(Literal::Decimal(5)));
        assert_eq!(literal("1e3"), Some(Literal::Double(1000.0)));
        assert_eq!(literal("1e999"), None);
        assert!(matches!(literal(&format!("{}.5", "9".repeat(60))), Some(Literal::Double(_))));
    }

    #[test]
    fn dates_before_1970_are_negative_days() {
        let date = moment("1969-12-31", DataType::Date).expect("a date");
        assert_eq!(date.node, Node::Literal(Literal::Date(-1)));
        assert!(moment("1969-12-31T00:00:00Z", DataType::Date).is_err());
        assert!(moment("soon", DataType::Timestamp).is_err());
    }
}
