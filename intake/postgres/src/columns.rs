//! Decides which columns of a database a declared column can take, and writes rows and changes as JSON.
//!
//! A change is the envelope that Debezium writes. Values are texts as the server prints them; a text that is not a value of its
//! declared column is written as it is, so that the row is rejected with it.

use bytes::Bytes;
use tokio_postgres::types::Type;

/// A column that is taken of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenColumn {
    /// In the database, and in JSON.
    pub name: String,
    /// The declared type, as an operator reads it.
    pub declared: String,
    pub takes: ColumnUse,
}

/// What a declared column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnUse {
    Boolean,
    Int,
    BigInt,
    Double,
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// Any value, as the server prints it.
    Text,
    Date,
    Timestamp,
    /// A number that is a time.
    Number,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Null,
    /// It did not change, and is not known.
    Unchanged,
    Text(&'a str),
}

/// The precision and the scale of a `numeric` with this modifier; `None`: any.
fn digits(modifier: i32) -> Option<(i32, i32)> {
    // Four bytes of a header, then 16 bits of precision and 11 of scale with its sign.
    let modifier = modifier.checked_sub(4).filter(|modifier| *modifier >= 0)?;
    Some((modifier >> 16 & 0xFFFF, (modifier & 0x7FF ^ 0x400) - 0x400))
}

impl ColumnUse {
    /// Whether a column of this type can be taken. `None`: a type that extensions or applications have made.
    pub fn fits(self, of: Option<&Type>, modifier: i32) -> bool {
        let is_one_of = |types: &[Type]| of.is_some_and(|of| types.contains(of));
        let integers = [Type::INT2, Type::INT4, Type::INT8];
        match self {
            ColumnUse::Text => true,
            ColumnUse::Boolean => is_one_of(&[Type::BOOL]),
            ColumnUse::Int => is_one_of(&integers[..2]),
            ColumnUse::BigInt => is_one_of(&integers),
            ColumnUse::Double => is_one_of(&integers) || is_one_of(&[Type::FLOAT4, Type::FLOAT8, Type::NUMERIC]),
            ColumnUse::Decimal { precision, scale } => {
                let (precision, scale) = (i32::from(precision), i32::from(scale));
                let has_room = digits(modifier).is_none_or(|(p, s)| s <= scale && p - s <= precision - scale);
                is_one_of(&integers) || is_one_of(&[Type::NUMERIC]) && has_room
            }
            ColumnUse::Date => is_one_of(&[Type::DATE]),
            ColumnUse::Timestamp => is_one_of(&[Type::TIMESTAMP, Type::TIMESTAMPTZ]),
            ColumnUse::Number => is_one_of(&integers) || is_one_of(&[Type::NUMERIC]),
        }
    }

    fn write(self, text: &str, json: &mut Vec<u8>) {
        match self {
            ColumnUse::Boolean if matches!(text, "t" | "f") => {
                json.extend_from_slice(if text == "t" { b"true" } else { b"false" });
            }
            ColumnUse::Int | ColumnUse::BigInt | ColumnUse::Double | ColumnUse::Decimal { .. } | ColumnUse::Number
                if is_number(text) =>
            {
                json.extend_from_slice(text.as_bytes());
            }
            ColumnUse::Timestamp => write_text(&rfc_3339(text), json),
            _ => write_text(text, json),
        }
    }
}

/// The declaration that would take all values of a column.
pub(crate) fn declaration(of: Option<&Type>, modifier: i32) -> String {
    match of {
        Some(&Type::BOOL) => "BOOLEAN".to_owned(),
        Some(&Type::INT2 | &Type::INT4) => "INT".to_owned(),
        Some(&Type::INT8) => "BIGINT".to_owned(),
        Some(&Type::FLOAT4 | &Type::FLOAT8) => "DOUBLE".to_owned(),
        Some(&Type::NUMERIC) => match digits(modifier) {
            Some((precision, scale)) if precision <= 38 && scale >= 0 => format!("DECIMAL({precision},{scale})"),
            _ => "DECIMAL(38,9) or STRING".to_owned(),
        },
        Some(&Type::DATE) => "DATE".to_owned(),
        Some(&Type::TIMESTAMP | &Type::TIMESTAMPTZ) => "TIMESTAMP".to_owned(),
        _ => "STRING".to_owned(),
    }
}

/// Whether JSON has the text as a number, unlike `NaN` and `Infinity`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'))
}

/// A time as the server prints it, in the zone UTC, as RFC 3339.
fn rfc_3339(text: &str) -> String {
    let in_utc = text.strip_suffix("+00").unwrap_or(text);
    format!("{}Z", in_utc.replacen(' ', "T", 1))
}

fn write_text(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("a text has a JSON form, and memory takes it");
}

/// Writes the columns of a table as JSON.
pub(crate) struct RowWriter {
    columns: Vec<TakenColumn>,
    /// Indexes of the columns that together name a row.
    pub key: Vec<usize>,
    /// The text of a value that did not change and is not known.
    unchanged: &'static str,
}

impl RowWriter {
    pub fn new(columns: Vec<TakenColumn>, key: Vec<usize>, unchanged: &'static str) -> RowWriter {
        RowWriter { columns, key, unchanged }
    }

    pub fn columns(&self) -> &[TakenColumn] {
        &self.columns
    }

    /// A change: the operation, its time, the key of the row before it where it says so, and the row after it.
    pub fn change(
        &self,
        op: &str,
        timestamp_ms: i64,
        before: Option<&[Field<'_>]>,
        after: Option<&[Field<'_>]>,
    ) -> Bytes {
        let mut json = format!("{{\"op\":\"{op}\",\"source\":{{\"ts_ms\":{timestamp_ms}}},\"before\":").into_bytes();
        match before {
            Some(row) => self.write(self.key.iter().map(|index| (&self.columns[*index], &row[*index])), &mut json),
            None => json.extend_from_slice(b"null"),
        }
        json.extend_from_slice(b",\"after\":");
        match after {
            Some(row) => self.write(self.columns.iter().zip(row), &mut json),
            None => json.extend_from_slice(b"null"),
        }
        json.push(b'}');
        Bytes::from(json)
    }

    fn write<'r>(&self, row: impl Iterator<Item = (&'r TakenColumn, &'r Field<'r>)>, json: &mut Vec<u8>) {
        json.push(b'{');
        for (index, (column, field)) in row.enumerate() {
            if index > 0 {
                json.push(b',');
            }
            write_text(&column.name, json);
            json.push(b':');
            match field {
                Field::Null => json.extend_from_slice(b"null"),
                Field::Unchanged => write_text(self.unchanged, json),
                Field::Text(text) => column.takes.write(text, json),
            }
        }
        json.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_their_columns_read_them() {
        for (takes, text, json) in [
            (ColumnUse::Boolean, "t", "true"),
            (ColumnUse::Boolean, "f", "false"),
            (ColumnUse::Int, "-7", "-7"),
            (ColumnUse::Decimal { precision: 12, scale: 2 }, "10.50", "10.50"),
            (ColumnUse::Decimal { precision: 12, scale: 2 }, "NaN", "\"NaN\""),
            (ColumnUse::Double, "1e+20", "1e+20"),
            (ColumnUse::Double, "-1.5e-07", "-1.5e-07"),
            (ColumnUse::Double, "-Infinity", "\"-Infinity\""),
            (ColumnUse::Text, "t", "\"t\""),
            (ColumnUse::Text, "a \"b\"\n", "\"a \\\"b\\\"\\n\""),
            (ColumnUse::Date, "2026-11-27", "\"2026-11-27\""),
            (ColumnUse::Timestamp, "2026-11-27 08:00:00.5", "\"2026-11-27T08:00:00.5Z\""),
            (ColumnUse::Timestamp, "2026-11-27 08:00:00+00", "\"2026-11-27T08:00:00Z\""),
            (ColumnUse::Timestamp, "infinity", "\"infinityZ\""),
            (ColumnUse::Number, "1790000000", "1790000000"),
            (ColumnUse::Int, "", "\"\""),
        ] {
            let mut written = Vec::new();
            takes.write(text, &mut written);
            assert_eq!(String::from_utf8(written).as_deref(), Ok(json), "{takes:?} {text}");
        }
    }

    #[test]
    fn a_column_takes_what_it_can_hold() {
        // numeric(12, 2), and numeric without digits.
        let (small, any) = ((12 << 16 | 2) + 4, -1);
        let decimal = |precision, scale| ColumnUse::Decimal { precision, scale };
        for (takes, of, modifier, fits) in [
            (ColumnUse::Int, Type::INT4, -1, true),
            (ColumnUse::Int, Type::INT8, -1, false),
            (ColumnUse::BigInt, Type::INT2, -1, true),
            (ColumnUse::BigInt, Type::TEXT, -1, false),
            (decimal(12, 2), Type::NUMERIC, small, true),
            (decimal(14, 3), Type::NUMERIC, small, true),
            (decimal(12, 3), Type::NUMERIC, small, false),
            (decimal(12, 1), Type::NUMERIC, small, false),
            (decimal(12, 2), Type::NUMERIC, any, true),
            (decimal(12, 2), Type::FLOAT8, -1, false),
            (ColumnUse::Timestamp, Type::TIMESTAMPTZ, -1, true),
            (ColumnUse::Timestamp, Type::DATE, -1, false),
            (ColumnUse::Text, Type::UUID, -1, true),
        ] {
            assert_eq!(takes.fits(Some(&of), modifier), fits, "{takes:?} {of}({modifier})");
        }
        assert!(ColumnUse::Text.fits(None, -1) && !ColumnUse::Int.fits(None, -1));
        assert_eq!(declaration(Some(&Type::NUMERIC), small), "DECIMAL(12,2)");
        assert_eq!(digits((3 << 16 | 0x7FE) + 4), Some((3, -2)), "a scale below zero");
    }

    #[test]
    fn changes_have_the_form_of_debezium() {
        let column = |name: &str, takes| TakenColumn { name: name.to_owned(), declared: String::new(), takes };
        let columns = vec![column("id", ColumnUse::BigInt), column("a \"b\"", ColumnUse::Text)];
        let writer = RowWriter::new(columns, vec![0], "\0unchanged");
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).expect("UTF-8");
        let row = [Field::Text("2"), Field::Unchanged];
        assert_eq!(
            text(writer.change("u", 7, Some(&[Field::Text("1"), Field::Null]), Some(&row))),
            r#"{"op":"u","source":{"ts_ms":7},"before":{"id":1},"after":{"id":2,"a \"b\"":"\u0000unchanged"}}"#
        );
        assert_eq!(
            text(writer.change("d", 7, Some(&[Field::Text("1"), Field::Null]), None)),
            r#"{"op":"d","source":{"ts_ms":7},"before":{"id":1},"after":null}"#
        );
        let row = [Field::Text("3"), Field::Null];
        assert_eq!(
            text(writer.change("r", 7, None, Some(&row))),
            r#"{"op":"r","source":{"ts_ms":7},"before":null,"after":{"id":3,"a \"b\"":null}}"#
        );
    }
}
