//! What does a JSON value mean in a column of this type? The rules of the contract, one per type.

use serde_json::Deserializer;
use shared::stream::Column;
use shared::types::DataType;

use super::number::{self, NotScaled};
use super::reject_reason::{self, Fault};
use super::row::Cell;
use super::timestamp::{self, NotMoment};
use super::token::{Kind, Token};

/// Why a value is none of its column's type. Small, and made into a [`Fault`] only where one is wanted.
#[derive(Debug)]
pub(super) enum Wrong {
    Type,
    Range,
    Escape(serde_json::Error),
}

impl Wrong {
    /// The fault of an event whose `column` has the value `raw`.
    pub(super) fn fault<'a>(self, column: &'a Column, raw: &'a str) -> Fault<'a> {
        match self {
            Wrong::Type => Fault::WrongType { column, raw },
            Wrong::Range => Fault::OutOfRange { column, raw },
            Wrong::Escape(error) => Fault::BadString { column, reason: reject_reason::message(&error) },
        }
    }
}

impl From<NotMoment> for Wrong {
    fn from(error: NotMoment) -> Wrong {
        match error {
            NotMoment::Malformed => Wrong::Type,
            NotMoment::OutOfRange => Wrong::Range,
        }
    }
}

impl From<NotScaled> for Wrong {
    fn from(error: NotScaled) -> Wrong {
        match error {
            NotScaled::NotNumber => Wrong::Type,
            NotScaled::TooLarge => Wrong::Range,
        }
    }
}

/// Reads one value of a column into its cell. Strings that have escapes are appended to `unescaped` without them.
///
/// The cell is written in place: handing it back in a `Result` took a third of all the time of decoding.
#[inline]
pub(super) fn read<'a>(
    data_type: DataType,
    token: Token<'a>,
    unescaped: &mut String,
    cell: &mut Cell<'a>,
) -> Result<(), Wrong> {
    let raw = token.raw;
    match (data_type, token.kind) {
        (DataType::BigInt, Kind::Integer(value)) => *cell = Cell::Integer(value),
        (DataType::String, Kind::String { escaped: false }) => *cell = Cell::Text(&raw[1..raw.len() - 1]),
        (DataType::String, Kind::String { escaped: true }) => {
            let start = unescaped.len();
            unescape(raw, unescaped)?;
            *cell = Cell::Unescaped { start, end: unescaped.len() };
        }
        (DataType::Timestamp, Kind::String { escaped }) => {
            *cell = Cell::Integer(timestamp::timestamp(content(raw, escaped, unescaped)?)?);
        }
        (_, Kind::Null) => *cell = Cell::Null,
        (DataType::Boolean, Kind::Boolean(value)) => *cell = Cell::Boolean(value),
        (DataType::Int, Kind::Integer(value)) => {
            *cell = Cell::Integer(i32::try_from(value).map_err(|_| Wrong::Range)?.into());
        }
        (DataType::Int, Kind::Number) => {
            *cell = Cell::Integer(i32::try_from(whole(raw)?).map_err(|_| Wrong::Range)?.into());
        }
        (DataType::BigInt, Kind::Number) => {
            *cell = Cell::Integer(i64::try_from(whole(raw)?).map_err(|_| Wrong::Range)?);
        }
        // Adding zero makes -0.0 zero and changes nothing else.
        (DataType::Double, Kind::Integer(value)) => *cell = Cell::Double(value as f64 + 0.0),
        (DataType::Double, Kind::Number) => match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => *cell = Cell::Double(value + 0.0),
            _ => return Err(Wrong::Range),
        },
        (DataType::Decimal { precision, scale }, Kind::Integer(_) | Kind::Number) => {
            *cell = Cell::Decimal(decimal(raw, precision, scale)?);
        }
        (DataType::Decimal { precision, scale }, Kind::String { escaped }) => {
            *cell = Cell::Decimal(decimal(content(raw, escaped, unescaped)?, precision, scale)?);
        }
        (DataType::Date, Kind::String { escaped }) => {
            *cell = Cell::Integer(timestamp::date(content(raw, escaped, unescaped)?)?.into());
        }
        (DataType::Timestamp, Kind::Integer(millis)) => {
            *cell = Cell::Integer(timestamp::in_range(millis.checked_mul(1_000).ok_or(Wrong::Range)?)?);
        }
        (DataType::Timestamp, Kind::Number) => {
            let scaled = number::scaled(raw, 3)?;
            // What is finer than a microsecond is cut towards the past, as it is in texts.
            let micros = scaled.value - i128::from(scaled.inexact && scaled.negative);
            *cell = Cell::Integer(timestamp::in_range(i64::try_from(micros).map_err(|_| Wrong::Range)?)?);
        }
        _ => return Err(Wrong::Type),
    }
    Ok(())
}

/// The value of a number that has no fraction, however it is written.
fn whole(raw: &str) -> Result<i128, Wrong> {
    let scaled = number::scaled(raw, 0)?;
    if scaled.inexact { Err(Wrong::Type) } else { Ok(scaled.value) }
}

/// The value of a number at `scale`, if it has no more digits than its type.
fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Wrong> {
    let scaled = number::scaled(text, scale)?;
    if scaled.inexact {
        Err(Wrong::Type)
    } else if scaled.value.unsigned_abs() < 10u128.pow(u32::from(precision.min(38))) {
        Ok(scaled.value)
    } else {
        Err(Wrong::Range)
    }
}

/// What stands between the quotes of a string.
#[inline]
fn content<'b>(raw: &'b str, escaped: bool, unescaped: &'b mut String) -> Result<&'b str, Wrong> {
    if !escaped {
        return Ok(&raw[1..raw.len() - 1]);
    }
    let start = unescaped.len();
    unescape(raw, unescaped)?;
    Ok(&unescaped[start..])
}

fn unescape(raw: &str, unescaped: &mut String) -> Result<(), Wrong> {
    serde::Deserializer::deserialize_str(&mut Deserializer::from_str(raw), Append(unescaped)).map_err(Wrong::Escape)
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
