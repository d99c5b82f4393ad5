//! Lists the reasons to reject one event, in the words that its sender reads.
//!
//! A reason borrows from the line; only the few that are listed become text. Errors of a whole body are
//! [`super::DecodeError`].

use std::fmt;

use shared::stream::{Column, RecordPart};
use shared::time::Micros;

/// Characters of a value quoted in a reason; the rest is cut.
const QUOTED_CHARS_MAX: usize = 40;

/// Why one event was rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum RejectReason<'a> {
    #[error("invalid JSON at column {column}: {reason}")]
    Syntax { column: usize, reason: String },
    #[error("invalid UTF-8 at column {column}")]
    NotUtf8 { column: usize },
    #[error("the event is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("expected an object, found {}", Described(raw))]
    NotObject { raw: &'a str },
    #[error("{}: expected {}, found {}", column.name, Expected(column), Described(raw))]
    WrongType { column: &'a Column, raw: &'a str },
    #[error("{}: {} is out of range, found {}", column.name, column.data_type, Described(raw))]
    OutOfRange { column: &'a Column, raw: &'a str },
    #[error("{}: {reason}", column.name)]
    BadString { column: &'a Column, reason: String },
    #[error("{}: expected {}, found {}", column.name, Expected(column), Quoted(text))]
    NotValue { column: &'a Column, text: String },
    #[error("expected {expected} fields, as in the header, found {found}")]
    FieldCount { expected: usize, found: usize },
    #[error("{}: the field appears twice", column.name)]
    FieldTwice { column: &'a Column },
    #[error("the object {} appears twice", Quoted(name))]
    ObjectTwice { name: String },
    #[error("{}: the event time may not be null", column.name)]
    NoEventTime { column: &'a Column },
    #[error("{}: {time} is more than {max_age} before its arrival (max_age)", column.name)]
    TooOld { column: &'a Column, time: Micros, max_age: String },
    #[error("{}: the primary key may not be null", column.name)]
    NoPrimaryKey { column: &'a Column },
    #[error("{}: the primary key may not be empty", column.name)]
    EmptyKey { column: &'a Column },
    #[error(
        "the key of the record is neither an object with the {columns} columns of the key nor an array of their values"
    )]
    NoKeyArray { columns: usize },
    #[error("{}: the entity may not be null or empty", column.name)]
    NoEntity { column: &'a Column },
    #[error("{}: the event belongs to another entity than the path names", column.name)]
    OtherEntity { column: &'a Column },
    #[error("the value is not a row change: {reason}")]
    NoChange { reason: &'static str },
    #[error("the value is not a row change: a TRUNCATE names no rows")]
    Truncate,
    #[error(
        "a TRUNCATE, whose place among the changes in other partitions is not known: let Debezium write the table to one partition, or \
         delete its rows with DELETE"
    )]
    TruncateOfPartitions,
    #[error("the record has no value (a tombstone)")]
    NoValue,
    #[error("{reason}")]
    Message { reason: &'a str },
    #[error("{}: the {part} of the record is not UTF-8", column.name)]
    PartNotUtf8 { column: &'a Column, part: &'a RecordPart },
    #[error("the stream has no field {}", Quoted(name))]
    UnknownField { name: String },
}

impl RejectReason<'_> {
    /// The syntax error that `serde_json` found in one line, with its position.
    pub(super) fn syntax(error: &serde_json::Error) -> Self {
        RejectReason::Syntax { column: error.column(), reason: message(error) }
    }
}

/// The message of `serde_json`, without the position it appends.
pub(super) fn message(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    text
}

/// The type of a column as a reason names it, with its format.
struct Expected<'a>(&'a Column);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.format {
            Some(format) => write!(f, "{} as '{format}'", self.0.data_type),
            None if self.0.is_base64 => write!(f, "{} as 'base64'", self.0.data_type),
            None => write!(f, "{}", self.0.data_type),
        }
    }
}

/// A valid JSON value as a reason shows it: its kind, and the value itself where it is short.
struct Described<'a>(&'a str);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_bytes().first() {
            Some(b'{') => f.write_str("object"),
            Some(b'[') => f.write_str("array"),
            Some(b't' | b'f') => write!(f, "boolean {}", self.0),
            Some(b'n') => f.write_str("null"),
            Some(b'"') => write!(f, "string {}", Quoted(&self.0[1..self.0.len() - 1])),
            _ => write!(f, "number {}", Cut(self.0)),
        }
    }
}

/// A text in quotes, cut when long.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Cut(self.0))
    }
}

/// A text cut when long.
struct Cut<'a>(&'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED_CHARS_MAX) {
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}
