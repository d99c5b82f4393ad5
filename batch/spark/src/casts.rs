//! Writes conversions: a value that does not fit, or cannot be read, is NULL. Texts are checked before Spark reads them, since it
//! accepts others.

use shared::types::DataType;

use crate::quote;
use crate::refusal::Unsupported;

/// The white space of Unicode, which is ignored around texts that are read.
const WHITE_SPACE: &str = "\t\n\u{B}\u{C}\r \u{85}\u{A0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\
                           \u{2008}\u{2009}\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}";
const WHOLE_NUMBER: &str = "\\A[+-]?[0-9]+\\z";
const PLAIN_NUMBER: &str = "\\A[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)\\z";
const NUMBER: &str = "\\A[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?\\z";
const INFINITE: &str = "\\A[+-]?([iI][nN][fF]|[iI][nN][fF][iI][nN][iI][tT][yY])\\z";
const NOT_A_NUMBER: &str = "\\A[+-]?[nN][aA][nN]\\z";
const DATE: &str = "\\A[0-9]{4}-[0-9]{2}-[0-9]{2}\\z";
/// Digits of a DECIMAL whose unscaled values are whole DOUBLEs and BIGINTs.
const DIGITS_OF_DOUBLE: u8 = 18;

/// Writes `CAST(a AS to)`, where `a` is of type `from`.
pub fn cast(a: &str, from: DataType, to: DataType) -> Result<String, Unsupported> {
    if from == to {
        return Ok(a.to_owned());
    }
    let plain = || format!("try_cast({a} AS {})", quote::data_type(to));
    Ok(match (from, to) {
        (DataType::String, _) => return of_text(a, to),
        (DataType::Double, DataType::String | DataType::Json) => return Err(Unsupported::DoubleAsText),
        (DataType::Timestamp, DataType::String) => timestamp_text(a),
        (DataType::Double, DataType::BigInt) => truncated(a),
        (DataType::Double, DataType::Int) => format!("try_cast({} AS INT)", truncated(a)),
        (DataType::Double, DataType::Decimal { precision, scale }) => {
            if precision > DIGITS_OF_DOUBLE {
                return Err(Unsupported::WideDecimalOfDouble);
            }
            decimal_of_double(a, precision, scale)
        }
        // Every value fits.
        (DataType::Int | DataType::Boolean, DataType::BigInt) | (_, DataType::Double) => {
            format!("CAST({a} AS {})", quote::data_type(to))
        }
        _ => plain(),
    })
}

/// Writes a DOUBLE truncated toward zero. Spark takes the first number that does not fit for the last that does.
fn truncated(a: &str) -> String {
    format!(
        "(CASE WHEN {a} >= -9.223372036854775808E18D AND {a} < 9.223372036854775808E18D THEN CAST({a} AS BIGINT) END)"
    )
}

/// Writes the DECIMAL nearest to `a` times the power of ten, as a DOUBLE: not to the digits of its text.
fn decimal_of_double(a: &str, precision: u8, scale: i8) -> String {
    let digits = u32::from(scale.unsigned_abs());
    let scaled = format!("({a} * {})", quote::double(10_f64.powi(scale.into())));
    let whole = format!("(CASE WHEN abs({scaled}) < 1e18D THEN CAST(round({scaled}) AS BIGINT) END)");
    let unit = match digits {
        0 => "CAST(1 AS DECIMAL(1,0))".to_owned(),
        digits => format!("CAST('1e-{digits}' AS DECIMAL({digits},{digits}))"),
    };
    format!("try_cast(CAST({whole} AS DECIMAL(19,0)) * {unit} AS DECIMAL({precision},{scale}))")
}

/// Writes RFC 3339 with as many digits of the second as needed: 0, 3 or 6.
fn timestamp_text(a: &str) -> String {
    let with =
        |fraction: &str| format!("date_format({a}, {})", quote::text(&format!("yyyy-MM-dd'T'HH:mm:ss{fraction}'Z'")));
    format!(
        "(CASE WHEN pmod(unix_micros({a}), 1000000L) = 0L THEN {} WHEN pmod(unix_micros({a}), 1000L) = 0L THEN {} ELSE {} END)",
        with(""),
        with(".SSS"),
        with(".SSSSSS")
    )
}

fn of_text(a: &str, to: DataType) -> Result<String, Unsupported> {
    let text = format!("trim(BOTH {} FROM {a})", quote::text(WHITE_SPACE));
    let is = |pattern: &str| format!("regexp_like({text}, {})", quote::text(pattern));
    let read =
        |pattern: &str| format!("(CASE WHEN {} THEN try_cast({text} AS {}) END)", is(pattern), quote::data_type(to));
    Ok(match to {
        DataType::Boolean => format!(
            "(CASE WHEN lower({text}) IN ('true', 't', '1') THEN true WHEN lower({text}) IN ('false', 'f', '0') THEN false END)"
        ),
        DataType::Int | DataType::BigInt => read(WHOLE_NUMBER),
        DataType::Decimal { .. } => read(PLAIN_NUMBER),
        DataType::Double => {
            let infinity = "CAST('Infinity' AS DOUBLE)";
            format!(
                "(CASE WHEN {} THEN CAST({text} AS DOUBLE) WHEN {} THEN CASE WHEN startswith({text}, '-') THEN - {infinity} \
                 ELSE {infinity} END WHEN {} THEN CAST('NaN' AS DOUBLE) END)",
                is(NUMBER),
                is(INFINITE),
                is(NOT_A_NUMBER)
            )
        }
        DataType::Date => read(DATE),
        DataType::Timestamp => return Err(Unsupported::TextAsTime),
        DataType::String | DataType::Json => a.to_owned(),
    })
}
