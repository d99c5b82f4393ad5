//! Writes names, constants and types of Spark SQL. Every text from a definition passes through here.

use std::fmt::Write;

use shared::scalar::Literal;
use shared::types::DataType;

/// Returns a quoted name.
pub fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Returns a text constant. Only letters, digits and blanks stand for themselves: Spark reads escapes.
pub fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' => quoted.push(c),
            '!'..='&' | '('..='[' | ']'..='~' => quoted.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(quoted, "\\u{unit:04X}").expect("writing into memory does not fail");
                }
            }
        }
    }
    quoted.push('\'');
    quoted
}

/// Returns the name of a type.
pub fn data_type(data_type: DataType) -> String {
    match data_type {
        DataType::Json => DataType::String.to_string(),
        other => other.to_string(),
    }
}

/// Returns a DOUBLE constant.
pub fn double(value: f64) -> String {
    if value.is_finite() { format!("{value:e}D") } else { format!("CAST('{value}' AS DOUBLE)") }
}

/// Returns a BIGINT constant.
pub fn long(value: i64) -> String {
    // The digits of the smallest number are not a number of their own.
    if value == i64::MIN { format!("CAST('{value}' AS BIGINT)") } else { format!("{value}L") }
}

/// Returns a constant of a type.
pub fn literal(value: &Literal, of: DataType) -> String {
    match value {
        Literal::Null => format!("CAST(NULL AS {})", data_type(of)),
        Literal::Boolean(value) => value.to_string(),
        Literal::BigInt(value) if of == DataType::Int => format!("CAST({value} AS INT)"),
        Literal::BigInt(value) => long(*value),
        Literal::Double(value) => double(*value),
        Literal::Decimal(unscaled) => {
            let scale = if let DataType::Decimal { scale, .. } = of { scale } else { 0 };
            let mut digits = String::new();
            shared::decimal::write_decimal(*unscaled, scale, &mut digits);
            format!("CAST('{digits}' AS {})", data_type(of))
        }
        Literal::String(value) => text(value),
        Literal::Date(days) => format!("date_from_unix_date({days})"),
        Literal::Timestamp(micros) => format!("timestamp_micros({})", long(*micros)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_quotes() {
        assert_eq!(text("it's \\ 50 %\n"), "'it\\u0027s \\u005C 50 %\\u000A'");
        assert_eq!(text("a\u{1F600}é"), "'a\\uD83D\\uDE00\\u00E9'");
        assert_eq!(name("a`b"), "`a``b`");
    }

    #[test]
    fn constants_keep_every_bit() {
        assert_eq!(long(i64::MIN), "CAST('-9223372036854775808' AS BIGINT)");
        assert_eq!(double(0.1), "1e-1D");
        assert_eq!(double(f64::NEG_INFINITY), "CAST('-inf' AS DOUBLE)");
        assert_eq!(
            literal(&Literal::Decimal(-5), DataType::Decimal { precision: 4, scale: 2 }),
            "CAST('-0.05' AS DECIMAL(4,2))"
        );
    }
}
