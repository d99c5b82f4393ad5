//! Decodes the events of a body: JSON, CSV or a table in, Arrow columns out, each event accepted or rejected by itself.
//!
//! Reading order: `framing` splits a body of JSON into events, `fields` knows which member of an event belongs to which column,
//! `fast_path` reads flat events and `object` all others, `value` converts a JSON value for its column, `session` collects.
//! `csv` reads records into the same session, and `records` those of a topic. `tables` reads Arrow and Parquet, column by column
//! ([`column_cast`]), [`avro`] records of Avro, `avro_tables` those that change a table, and `appends` a body of appends to entities.
//! Nothing here speaks HTTP or decompresses.
//!
//! An event that has the same field twice is rejected, since it does not say which value counts.

mod appends;
pub mod avro;
mod avro_tables;
pub mod column_cast;
mod columns;
mod csv;
mod debezium;
mod debezium_avro;
mod fast_path;
mod fields;
mod framing;
pub mod json_lines;
mod number;
mod object;
mod outcome;
mod parquet_pages;
pub mod protobuf;
mod records;
mod reject_reason;
mod row;
mod session;
mod table_changes;
mod tables;
mod text_value;
mod timestamp;
mod token;
pub(crate) mod transactions;
mod value;

#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use serde::Serialize;
use shared::entity::EntityId;
use shared::limits::{
    BODY_VALUES_MAX, EVENT_LINE_BYTES_MAX, QUARANTINE_REQUEST_LINES_MAX, QUARANTINE_TEXT_BYTES_MAX,
    REJECTIONS_LISTED_MAX, TABLE_COLUMNS_MAX,
};
use shared::stream::Stream;
use shared::time::Micros;
use utoipa::ToSchema;

pub use appends::{AppendsError, DecodedAppend, DecodedAppends, decode_appends};
pub(crate) use outcome::before_1980;
pub use records::{TextFormat, decode_records};
use session::Session;
pub use table_changes::{KeptValues, TableChanges};
pub use tables::{decode_arrow, decode_parquet};

/// Reasons against the columns of a table that an error lists, and characters of each: the table chooses its names.
const REASONS_LISTED_MAX: usize = 20;
const REASON_CHARS_MAX: usize = 200;

/// The bounds of decoding.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest event, in bytes of JSON without the space around it. Longer ones are rejected.
    pub event_bytes_max: usize,
    /// Rejections described in [`Decoded::rejections`]; further ones are only counted.
    pub rejections_listed_max: usize,
    /// Rejected lines given back in [`Decoded::malformed`], and the bytes given of each.
    pub malformed_kept_max: usize,
    pub malformed_text_bytes_max: usize,
    /// Most values, rows times columns. A body that holds more is refused.
    pub values_max: usize,
    /// When the body arrived, for the stream's `max_age`. `None`: events of any age are accepted, as historical ones are.
    pub arrived_at: Option<Micros>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            event_bytes_max: EVENT_LINE_BYTES_MAX,
            rejections_listed_max: REJECTIONS_LISTED_MAX,
            malformed_kept_max: QUARANTINE_REQUEST_LINES_MAX,
            malformed_text_bytes_max: QUARANTINE_TEXT_BYTES_MAX,
            values_max: BODY_VALUES_MAX,
            arrived_at: None,
        }
    }
}

/// The events of a body.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The events that are valid, in the order of the body: [`Stream::schema`].
    pub rows: RecordBatch,
    /// Events seen: lines that are not blank, or elements of the array.
    pub lines_read: u64,
    /// Why events were rejected, the first [`Options::rejections_listed_max`] of them.
    pub rejections: Vec<Rejection>,
    /// The rejected events themselves, the first [`Options::malformed_kept_max`] of them.
    pub malformed: Vec<RejectedEvent>,
    /// Fields of the valid events that the stream does not declare.
    pub unknown_fields: u64,
    /// Hash of each row's event id ([`crate::event_id::event_hashes`]), if the stream has one.
    pub id_hashes: Option<Vec<u128>>,
    /// Hash of each row's entity ([`crate::event_id::entity_hashes`]), if the stream has one.
    pub entity_hashes: Option<Vec<u128>>,
    /// Of a table: what the rows change.
    pub changes: Option<TableChanges>,
}

impl Decoded {
    /// No events of `stream`.
    pub fn empty(stream: &Stream) -> Decoded {
        Decoded {
            rows: RecordBatch::new_empty(stream.schema()),
            lines_read: 0,
            rejections: Vec::new(),
            malformed: Vec::new(),
            unknown_fields: 0,
            id_hashes: stream.primary_key.map(|_| Vec::new()),
            entity_hashes: stream.entity.map(|_| Vec::new()),
            changes: stream.table.map(|_| TableChanges::default()),
        }
    }

    /// Events rejected, listed or not.
    pub fn rejected(&self) -> u64 {
        // A change of a key is two rows.
        let added = self.changes.as_ref().map_or(0, |changes| changes.added);
        self.lines_read + added - self.rows.num_rows() as u64
    }
}

/// One event that was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rejection {
    /// Line of the body, or number of the array's element, from 1.
    pub line: u64,
    pub reason: String,
}

/// The text of a rejected event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedEvent {
    /// Line of the body, or number of the array's element, from 1. Of a topic, the number of the record in its batch, from 0.
    pub line: u64,
    pub reason: String,
    /// Its first bytes, with replacement characters for invalid UTF-8.
    pub text: String,
    /// Bytes of the whole event.
    pub bytes: u64,
    /// Whether `text` is only the beginning.
    pub truncated: bool,
}

/// Why a whole body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is an array, and not JSON. Line and column (in bytes) from 1.
    #[error("the array is not valid JSON at line {line} column {column}: {reason}")]
    Syntax { line: u64, column: u64, reason: String },
    /// The body holds more events than its stream's columns may take at once.
    #[error("the body holds more than {max} events of this stream; send it in parts")]
    TooManyEvents { max: usize },
    /// The body is a table, and its events take more memory than one request may.
    #[error("the events of the body take more than {max} bytes in memory; send it in parts")]
    EventsTooLarge { max: usize },
    /// A record of a table's topic deletes all of its rows. Those before it and those behind it are read apart.
    #[error("the record {record} deletes all rows")]
    Truncate { record: usize },
    /// The body is not a table of its type, or its columns do not fit the stream.
    #[error("cannot read the table: {reason}")]
    Table { reason: String },
}

impl DecodeError {
    /// The error of a table whose columns do not fit, with the first reasons.
    fn columns(reasons: &[String]) -> DecodeError {
        let short = |reason: &String| match reason.char_indices().nth(REASON_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &reason[..end]),
            None => reason.clone(),
        };
        let listed: Vec<String> = reasons.iter().take(REASONS_LISTED_MAX).map(short).collect();
        let more = match reasons.len() - listed.len() {
            0 => String::new(),
            more => format!("; and {more} more reasons"),
        };
        DecodeError::Table { reason: format!("the columns do not fit the stream: {}{more}", listed.join("; ")) }
    }

    fn too_many_columns() -> DecodeError {
        DecodeError::Table { reason: format!("it has more than {TABLE_COLUMNS_MAX} columns") }
    }
}

/// Reads the events of `body`: NDJSON, a JSON array of objects, or one object, which may go over several lines.
///
/// # Errors
/// [`DecodeError::Syntax`] for an array that is not valid JSON, [`DecodeError::TooManyEvents`] beyond
/// [`Options::values_max`]. All else is a rejection of single events.
pub fn decode(stream: &Stream, body: &[u8], options: Options) -> Result<Decoded, DecodeError> {
    decode_with(stream, body, options, true)
}

/// Decodes JSON like [`decode`], for an append to the entity `id`: an event that does not name its entity gets this one, and
/// one that names another entity is rejected.
pub fn decode_of_entity(stream: &Stream, body: &[u8], options: Options, id: &EntityId) -> Result<Decoded, DecodeError> {
    let mut session = Session::new(stream, options, body.len(), true).of_entity(id);
    framing::read(&mut session, body)?;
    session.finish()
}

/// Reads the records of a CSV body with a header.
///
/// # Errors
/// [`DecodeError::Table`] for a header that does not fit the stream, [`DecodeError::TooManyEvents`] beyond
/// [`Options::values_max`]. All else is a rejection of single events.
pub fn decode_csv(stream: &Stream, body: &[u8], options: Options) -> Result<Decoded, DecodeError> {
    let mut session = Session::new(stream, options, body.len(), false);
    csv::read(&mut session, body)?;
    session.finish()
}

/// Decodes with or without the fast path.
fn decode_with(stream: &Stream, body: &[u8], options: Options, fast_path: bool) -> Result<Decoded, DecodeError> {
    let mut session = Session::new(stream, options, body.len(), fast_path);
    framing::read(&mut session, body)?;
    session.finish()
}
