//! What does a JSON value mean in a column of this type? The rules of the contract, one per type.

use serde_json::Deserializer;
use shared::stream::Column;
use shared::types::DataType;

use super::fault::{self, Fault};
use super::moment::{self, NotMoment};
use super::number::{self, NotScaled};
use super::row::Cell;
use super::token::{Kind, Token};

/// Reads one value for `column`. Strings that have escapes are appended to `unescaped` without them.
#[inline]
pub(super) fn read<'a>(column: &'a Column, token: Token<'a>, unescaped: &mut String) -> Result<Cell<'a>, Fault<'a>> {
    let raw = token.raw;
    let wrong_type = || Fault::WrongType { column, raw };
    let out_of_range = || Fault::OutOfRange { column, raw };
    let moment = |error| match error {
        NotMoment::Malformed => wrong_type(),
        NotMoment::OutOfRange => out_of_range(),
    };
    match (column.data_type, token.kind) {
        (_, Kind::Null) => Ok(Cell::Null),
        (DataType::Boolean, Kind::Boolean(value)) => Ok(Cell::Boolean(value)),
        (DataType::BigInt, Kind::Integer(value)) => Ok(Cell::Integer(value)),
        (DataType::Int, Kind::Integer(value)) => {
            if i32::try_from(value).is_ok() {
                Ok(Cell::Integer(value))
            } else {
                Err(out_of_range())
            }
        }
        (DataType::Int | DataType::BigInt, Kind::Number) => {
            let value = match number::scaled(raw, 0) {
                Ok(scaled) if scaled.inexact => return Err(wrong_type()),
                Ok(scaled) => i64::try_from(scaled.value).map_err(|_| out_of_range())?,
                Err(_) => return Err(out_of_range()),
            };
            if column.data_type == DataType::Int && i32::try_from(value).is_err() {
                return Err(out_of_range());
            }
            Ok(Cell::Integer(value))
        }
        // Adding zero makes -0.0 zero and changes nothing else.
        (DataType::Double, Kind::Integer(value)) => Ok(Cell::Double(value as f64 + 0.0)),
        (DataType::Double, Kind::Number) => match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Cell::Double(value + 0.0)),
            _ => Err(out_of_range()),
        },
        (DataType::Decimal { precision, scale }, Kind::Integer(_) | Kind::Number) => {
            decimal(column, raw, raw, precision, scale)
        }
        (DataType::Decimal { precision, scale }, Kind::String { escaped }) => {
            decimal(column, raw, content(column, raw, escaped, unescaped)?.of(unescaped), precision, scale)
        }
        (DataType::String, Kind::String { escaped }) => Ok(match content(column, raw, escaped, unescaped)? {
            Content::Plain(text) => Cell::Text(text),
            Content::Unescaped { start, end } => Cell::Unescaped { start, end },
        }),
        (DataType::Date, Kind::String { escaped }) => {
            let text = content(column, raw, escaped, unescaped)?;
            moment::date(text.of(unescaped)).map(|days| Cell::Integer(i64::from(days))).map_err(moment)
        }
        (DataType::Timestamp, Kind::String { escaped }) => {
            let text = content(column, raw, escaped, unescaped)?;
            moment::timestamp(text.of(unescaped)).map(Cell::Integer).map_err(moment)
        }
        (DataType::Timestamp, Kind::Integer(millis)) => {
            let micros = millis.checked_mul(1_000).ok_or_else(out_of_range)?;
            moment::in_range(micros).map(Cell::Integer).map_err(moment)
        }
        (DataType::Timestamp, Kind::Number) => {
            let scaled = number::scaled(raw, 3).map_err(|_| out_of_range())?;
            // What is finer than a microsecond is cut towards the past, as it is in texts.
            let micros = scaled.value - i128::from(scaled.inexact && scaled.negative);
            let micros = i64::try_from(micros).map_err(|_| out_of_range())?;
            moment::in_range(micros).map(Cell::Integer).map_err(moment)
        }
        _ => Err(wrong_type()),
    }
}

/// Reads a DECIMAL from the text of a number; `raw` is what a reason shows.
fn decimal<'a>(column: &'a Column, raw: &'a str, text: &str, precision: u8, scale: i8) -> Result<Cell<'a>, Fault<'a>> {
    match number::scaled(text, scale) {
        Ok(scaled) if scaled.inexact => Err(Fault::WrongType { column, raw }),
        Ok(scaled) if scaled.value.unsigned_abs() < 10u128.pow(u32::from(precision.min(38))) => {
            Ok(Cell::Decimal(scaled.value))
        }
        Ok(_) | Err(NotScaled::TooLarge) => Err(Fault::OutOfRange { column, raw }),
        Err(NotScaled::NotNumber) => Err(Fault::WrongType { column, raw }),
    }
}

/// What stands between the quotes of a string.
enum Content<'a> {
    Plain(&'a str),
    /// A range of the row's unescaped strings.
    Unescaped {
        start: usize,
        end: usize,
    },
}

impl<'a> Content<'a> {
    fn of<'b>(&self, unescaped: &'b str) -> &'b str
    where
        'a: 'b,
    {
        match *self {
            Content::Plain(text) => text,
            Content::Unescaped { start, end } => &unescaped[start..end],
        }
    }
}

#[inline]
fn content<'a>(
    column: &'a Column,
    raw: &'a str,
    escaped: bool,
    unescaped: &mut String,
) -> Result<Content<'a>, Fault<'a>> {
    if !escaped {
        return Ok(Content::Plain(&raw[1..raw.len() - 1]));
    }
    let start = unescaped.len();
    serde::Deserializer::deserialize_str(&mut Deserializer::from_str(raw), Append(unescaped))
        .map_err(|error| Fault::BadString { column, reason: fault::message(&error) })?;
    Ok(Content::Unescaped { start, end: unescaped.len() })
}

/// Appends a string to another while it is being unescaped.
struct Append<'b>(&'b mut String);

impl serde::de::Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}
