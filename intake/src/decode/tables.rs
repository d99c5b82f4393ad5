//! Decodes bodies that hold tables: Arrow IPC streams. Their columns are cast as a whole, and rows that do not fit are
//! rejected one by one, as in JSON.
//!
//! The events keep the buffers of the body where they can: nothing is copied that is already in its column's form. A body of
//! which the stream reads only a small part is copied, so that the rest is freed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{concat, concat_batches};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use shared::limits::TABLE_EVENTS_BYTES_MAX;
use shared::retained_bytes::{retained_bytes, row_bytes};
use shared::stream::Stream;
use shared::time::Micros;

use super::column_cast::{CastError, CastRows, ColumnCast};
use super::json_lines;
use super::session::{before_1980, beginning, oldest};
use super::{DecodeError, Decoded, Options, RejectedEvent, Rejection};
use crate::event_id;

/// Memory that a body may keep beyond twice its events.
const UNUSED_BYTES_MAX: usize = 1024 * 1024;

/// Decodes an Arrow IPC stream. Compressed buffers are not supported; compress the body.
///
/// # Errors
/// [`DecodeError::Table`] for a body that is not such a stream or whose columns do not fit, [`DecodeError::TooManyEvents`]
/// and [`DecodeError::EventsTooLarge`] beyond the limits. All else is a rejection of single events.
pub fn decode_arrow(stream: &Arc<Stream>, body: &Bytes, options: Options) -> Result<Decoded, DecodeError> {
    let mut rest = Buffer::from(body.clone());
    let mut decoder = StreamDecoder::new();
    let mut session = TableSession::new(stream, options);
    let mut cast = None;
    while !rest.is_empty() {
        let batch = decoder.decode(&mut rest)?;
        if cast.is_none()
            && let Some(schema) = decoder.schema()
        {
            cast = Some(ColumnCast::new(stream, &schema)?.not_before(session.oldest));
        }
        if let (Some(cast), Some(batch)) = (&cast, batch) {
            session.add(cast, &batch)?;
        }
    }
    decoder.finish()?;
    session.finish()
}

/// The decoding of one body.
struct TableSession<'a> {
    stream: &'a Arc<Stream>,
    options: Options,
    /// Event times before this are too old.
    oldest: Micros,
    rows_max: usize,
    rows_read: u64,
    /// Bytes of the events so far.
    bytes: usize,
    batches: Vec<RecordBatch>,
    rejections: Vec<Rejection>,
    malformed: Vec<RejectedEvent>,
    unknown_fields: u64,
}

impl<'a> TableSession<'a> {
    fn new(stream: &'a Arc<Stream>, options: Options) -> TableSession<'a> {
        TableSession {
            stream,
            options,
            oldest: Micros(oldest(stream, options.arrived_at)),
            rows_max: options.values_max / stream.columns.len().max(1),
            rows_read: 0,
            bytes: 0,
            batches: Vec::new(),
            rejections: Vec::new(),
            malformed: Vec::new(),
            unknown_fields: 0,
        }
    }

    /// Adds the events of a batch.
    fn add(&mut self, cast: &ColumnCast, batch: &RecordBatch) -> Result<(), DecodeError> {
        if self.rows_read + batch.num_rows() as u64 > self.rows_max as u64 {
            return Err(DecodeError::TooManyEvents { max: self.rows_max });
        }
        let CastRows { rows, rejected } = cast.apply(batch)?;
        for (row, reason) in rejected {
            self.reject(batch, row, reason);
        }
        self.rows_read += batch.num_rows() as u64;
        self.unknown_fields += cast.unknown.len() as u64 * rows.num_rows() as u64;
        self.bytes += row_bytes(&rows);
        if self.bytes > TABLE_EVENTS_BYTES_MAX {
            return Err(DecodeError::EventsTooLarge { max: TABLE_EVENTS_BYTES_MAX });
        }
        if rows.num_rows() > 0 {
            self.batches.push(rows);
        }
        Ok(())
    }

    #[cold]
    fn reject(&mut self, batch: &RecordBatch, row: usize, reason: String) {
        let line = self.rows_read + row as u64 + 1;
        if self.rejections.len() < self.options.rejections_listed_max {
            self.rejections.push(Rejection { line, reason: reason.clone() });
        }
        if self.malformed.len() < self.options.malformed_kept_max {
            let mut text = Vec::new();
            // A row of types without a JSON form is kept without its text.
            let written = json_lines::append(&mut text, &batch.slice(row, 1));
            let text = if written.is_ok() { text.trim_ascii_end() } else { &[] };
            let bytes = text.len() as u64;
            let (text, truncated) = beginning(text, self.options.malformed_text_bytes_max);
            self.malformed.push(RejectedEvent { line, reason, text, bytes, truncated });
        }
    }

    fn finish(self) -> Result<Decoded, DecodeError> {
        let rows = match self.batches.as_slice() {
            [] => RecordBatch::new_empty(self.stream.schema()),
            [batch] => batch.clone(),
            batches => concat_batches(&self.stream.schema(), batches)?,
        };
        let unused = retained_bytes(&rows).saturating_sub(2 * row_bytes(&rows));
        let rows = if unused > UNUSED_BYTES_MAX { copied(&rows)? } else { rows };
        Ok(Decoded {
            id_hashes: self.stream.primary_key.map(|column| event_id::hash_ids(rows.column(column))),
            before_1980: before_1980(rows.column(self.stream.event_time).as_primitive()),
            rows,
            lines_read: self.rows_read,
            rejections: self.rejections,
            malformed: self.malformed,
            unknown_fields: self.unknown_fields,
        })
    }
}

/// The same rows in buffers of their own.
fn copied(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let copy = |column: &ArrayRef| -> Result<ArrayRef, ArrowError> {
        if let Some(texts) = column.as_string_view_opt() {
            return Ok(Arc::new(texts.gc()));
        }
        // Two arrays are copied next to each other; a single one would be shared.
        let half = column.len() / 2;
        concat(&[&column.slice(0, half), &column.slice(half, column.len() - half)])
    };
    RecordBatch::try_new(rows.schema(), rows.columns().iter().map(copy).collect::<Result<_, _>>()?)
}

impl From<ArrowError> for DecodeError {
    fn from(error: ArrowError) -> DecodeError {
        DecodeError::Table { reason: error.to_string() }
    }
}

impl From<CastError> for DecodeError {
    fn from(error: CastError) -> DecodeError {
        DecodeError::columns(&error.0)
    }
}
