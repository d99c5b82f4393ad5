//! Decides which names columns may have, and when two names mean the same column.
//!
//! A name keeps its spelling everywhere: in events, tables and results. Matching ignores case, as in DuckDB and Spark, so two
//! columns of one stream or view never differ by case alone.

/// Bytes of the longest column name.
pub const BYTES_MAX: usize = 255;

/// Characters that Delta tables and Spark refuse in column names, besides control characters.
const REFUSED: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '='];

/// Names of columns that Trueup adds to events, results or tables.
const RESERVED: &[&str] = &[
    "window_start",
    "window_end",
    "_partition",
    "_offset",
    "_arrived_at",
    "_watermark",
    "_sequence",
    "_source_offset",
    "_retracted",
    "_event_date",
    "_window_date",
    "_layer",
    "_finality",
    "_bounds",
    "_overflow",
    "_gone",
];

/// Beginnings of names that Trueup gives columns of its own: states in view tables, and columns inside a batch run.
const RESERVED_PREFIXES: &[&str] = &["_state_", "__"];

/// Why a text cannot name a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidColumnName {
    #[error("the name of a column cannot be empty")]
    Empty,
    #[error("the name of a column has at most {BYTES_MAX} bytes, not {0}")]
    TooLong(usize),
    #[error("the name of a column cannot contain the control character U+{:04X}", *.0 as u32)]
    Control(char),
    #[error("`{name}` cannot name a column: Delta tables do not allow {} in names", described(*.character))]
    Refused { name: String, character: char },
    #[error("the name `{0}` is reserved")]
    Reserved(String),
}

/// Returns whether two names mean the same column.
pub fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

/// Checks that `name` can name a column of a stream or of a view.
pub fn check(name: &str) -> Result<(), InvalidColumnName> {
    if name.is_empty() {
        return Err(InvalidColumnName::Empty);
    }
    if name.len() > BYTES_MAX {
        return Err(InvalidColumnName::TooLong(name.len()));
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(InvalidColumnName::Control(control));
    }
    if let Some(character) = name.chars().find(|c| REFUSED.contains(c)) {
        return Err(InvalidColumnName::Refused { name: name.to_owned(), character });
    }
    match is_reserved(name) {
        true => Err(InvalidColumnName::Reserved(name.to_owned())),
        false => Ok(()),
    }
}

/// Returns whether Trueup gives this name to a column of its own.
pub fn is_reserved(name: &str) -> bool {
    let begins = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    RESERVED.iter().any(|reserved| same(reserved, name)) || RESERVED_PREFIXES.iter().any(begins)
}

/// The reserved names in words, for the help of an error.
pub fn reserved_names() -> String {
    format!("reserved are {}, and names that begin with {}", RESERVED.join(", "), RESERVED_PREFIXES.join(" or "))
}

/// A name of plain characters that looks like `name`.
pub fn plain(name: &str) -> String {
    name.trim().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

fn described(character: char) -> String {
    if character == ' ' { "spaces".to_owned() } else { format!("`{character}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_case() {
        for (a, b, equal) in [
            ("eventId", "EVENTID", true),
            ("Größe", "GRÖßE", true),
            ("größe", "grösse", false),
            ("a", "b", false),
            ("é", "e", false),
        ] {
            assert_eq!(same(a, b), equal, "{a} {b}");
        }
    }

    #[test]
    fn quotes_allow_all_names_but_few() {
        for name in ["@timestamp", "user-id", "_id", "a.b", "select", "日付", "100%", "\"", "*", "^a$", "/x", "_"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "x".repeat(256);
        for name in
            ["", &long, "a\0", "a\tb", "user id", "f(x)", "a,b", "Window_Start", "_LAYER", "__proto__", "_state_0_n"]
        {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert_eq!(
            check("user id").expect_err("a space").to_string(),
            "`user id` cannot name a column: Delta tables do not allow spaces in names"
        );
    }
}
