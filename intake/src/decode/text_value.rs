//! Reads values that are given as plain text, without quotes: fields of CSV, and texts in a table for a column of another type.

use shared::stream::Column;
use shared::types::DataType;

use super::row::Cell;
use super::timestamp;
use super::token::{Kind, Scanner, Token};
use super::value::{self, ValueError};

/// Reads `text` as a value of `column`, by the rules for JSON; numbers and booleans are written as in JSON.
pub(super) fn read<'a>(column: &Column, text: &'a str) -> Result<Cell<'a>, ValueError> {
    match column.data_type {
        DataType::String | DataType::Json => Ok(Cell::Text(text)),
        DataType::Boolean => match text {
            "true" | "True" | "TRUE" => Ok(Cell::Boolean(true)),
            "false" | "False" | "FALSE" => Ok(Cell::Boolean(false)),
            _ => Err(ValueError::Type),
        },
        DataType::Date => Ok(Cell::Integer(timestamp::date(text)?.into())),
        DataType::Timestamp => match (&column.format, number(text)) {
            (Some(format), _) => Ok(Cell::Integer(timestamp::formatted(text, format)?)),
            (None, Some(token)) => scalar(column, token),
            (None, None) => Ok(Cell::Integer(timestamp::timestamp(text)?)),
        },
        DataType::Decimal { precision, .. } if column.is_base64 => Ok(Cell::Decimal(value::unscaled(text, precision)?)),
        DataType::Int | DataType::BigInt | DataType::Double | DataType::Decimal { .. } => {
            scalar(column, number(text).ok_or(ValueError::Type)?)
        }
    }
}

fn scalar<'a>(column: &Column, token: Token<'a>) -> Result<Cell<'a>, ValueError> {
    let mut cell = Cell::Null;
    // A number has no escapes, so nothing is appended to the string.
    value::read(column, token, &mut String::new(), &mut cell)?;
    Ok(cell)
}

/// The text as a JSON number, if it is one.
fn number(text: &str) -> Option<Token<'_>> {
    let mut scanner = Scanner::new(text, 0);
    let token = scanner.scalar()?;
    let whole = scanner.at == text.len() && matches!(token.kind, Kind::Integer(_) | Kind::Number);
    whole.then_some(token)
}
