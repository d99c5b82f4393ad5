//! Reads the name of a column type.

use super::suggest::did_you_mean;
use crate::types::DataType;

/// All spellings, for suggestions.
const NAMES: &[&str] = &[
    "BOOLEAN",
    "BOOL",
    "INT",
    "INTEGER",
    "BIGINT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "STRING",
    "TEXT",
    "VARCHAR",
    "DATE",
    "TIMESTAMP",
];

/// Most digits of a DECIMAL: what 128 bits hold.
pub(super) const DECIMAL_DIGITS_MAX: u8 = 38;

/// Reads a type such as `BIGINT` or `DECIMAL(10, 2)`. Errors: the message, and what may help.
pub(super) fn parse_data_type(text: &str) -> Result<DataType, (String, Option<String>)> {
    let upper = text.to_uppercase();
    let (name, arguments) = match upper.split_once('(') {
        Some((name, rest)) => (name.trim(), Some(rest.trim_end().trim_end_matches(')'))),
        None => (upper.trim(), None),
    };
    let plain = match name {
        "DECIMAL" | "NUMERIC" => return parse_decimal(name, arguments),
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "INT" | "INTEGER" => DataType::Int,
        "BIGINT" => DataType::BigInt,
        "DOUBLE" | "DOUBLE PRECISION" => DataType::Double,
        "STRING" | "TEXT" | "VARCHAR" => DataType::String,
        "DATE" => DataType::Date,
        "TIMESTAMP" => DataType::Timestamp,
        _ => {
            let help = match name {
                "FLOAT" | "REAL" | "FLOAT8" => Some("the type of floating point numbers is DOUBLE".to_owned()),
                "SMALLINT" | "TINYINT" => Some("the smallest type of whole numbers is INT".to_owned()),
                "CHAR" => Some("the type of texts is STRING".to_owned()),
                "DATETIME" | "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" | "TIMESTAMP WITHOUT TIME ZONE" => {
                    Some("the type of moments is TIMESTAMP; it is always UTC".to_owned())
                }
                _ => did_you_mean(name, NAMES.iter().copied()),
            };
            let help = help.or_else(|| Some(format!("the types are {}", NAMES.join(", "))));
            return Err((format!("unknown type `{name}`"), help));
        }
    };
    match arguments {
        None => Ok(plain),
        Some(_) => Err((format!("{name} has no length"), Some(format!("write {name}")))),
    }
}

fn parse_decimal(name: &str, arguments: Option<&str>) -> Result<DataType, (String, Option<String>)> {
    let help = Some(format!("write {name}(10,2) for 10 digits, 2 of them behind the point"));
    let Some(arguments) = arguments else {
        return Err((format!("{name} needs its number of digits"), help));
    };
    let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
    let (Ok(precision), Ok(scale)) = (precision.trim().parse::<u8>(), scale.trim().parse::<i8>()) else {
        return Err((format!("`{}` are not the digits of a {name}", arguments.trim()), help));
    };
    if !(1..=DECIMAL_DIGITS_MAX).contains(&precision) {
        return Err((format!("{name} has 1 to {DECIMAL_DIGITS_MAX} digits, not {precision}"), None));
    }
    if !(0..=precision as i8).contains(&scale) {
        return Err((format!("the digits behind the point are 0 to {precision}, not {scale}"), None));
    }
    Ok(DataType::Decimal { precision, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_may_be_spelled_as_in_other_dialects() {
        for (text, expected) in [
            ("bool", DataType::Boolean),
            ("Integer", DataType::Int),
            ("DOUBLE PRECISION", DataType::Double),
            ("decimal(10, 2)", DataType::Decimal { precision: 10, scale: 2 }),
            ("NUMERIC(38)", DataType::Decimal { precision: 38, scale: 0 }),
            ("text", DataType::String),
        ] {
            assert_eq!(parse_data_type(text), Ok(expected), "{text}");
        }
        for text in ["DECIMAL", "DECIMAL(39,0)", "DECIMAL(3,4)", "DECIMAL(3,-1)", "INT(11)", "FLOAT", "", "("] {
            assert!(parse_data_type(text).is_err(), "{text}");
        }
    }
}
