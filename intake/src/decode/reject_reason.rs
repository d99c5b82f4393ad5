//! Why was one event rejected? The reasons, and how each reads to the person who sent the event.
//!
//! A fault borrows from the line; its text is only made for the few that are listed. Faults of a whole body are
//! [`super::DecodeError`].

use std::fmt;

use shared::stream::Column;

/// Characters of a value quoted in a reason; the rest is cut.
const QUOTED_CHARS_MAX: usize = 40;

/// Why one event was rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault<'a> {
    #[error("invalid JSON at column {column}: {reason}")]
    Syntax { column: usize, reason: String },
    #[error("invalid UTF-8 at column {column}")]
    NotUtf8 { column: usize },
    #[error("the event is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("expected an object, found {}", Found(raw))]
    NotObject { raw: &'a str },
    #[error("{}: expected {}, found {}", column.name, column.data_type, Found(raw))]
    WrongType { column: &'a Column, raw: &'a str },
    #[error("{}: {} is out of range, found {}", column.name, column.data_type, Found(raw))]
    OutOfRange { column: &'a Column, raw: &'a str },
    #[error("{}: {reason}", column.name)]
    BadString { column: &'a Column, reason: String },
    #[error("{}: the field appears twice", column.name)]
    Twice { column: &'a Column },
    #[error("{}: the event time may not be null", column.name)]
    NoEventTime { column: &'a Column },
    #[error("the stream has no field {}", Quoted(name))]
    UnknownField { name: String },
}

impl Fault<'_> {
    /// The fault that `serde_json` found in one line, with its position.
    pub(super) fn syntax(error: &serde_json::Error) -> Self {
        Fault::Syntax { column: error.column(), reason: message(error) }
    }
}

/// What `serde_json` says, without the position it appends.
pub(super) fn message(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    text
}

/// A valid JSON value as a reason shows it: its kind, and the value itself where it is short.
struct Found<'a>(&'a str);

impl fmt::Display for Found<'_> {
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
