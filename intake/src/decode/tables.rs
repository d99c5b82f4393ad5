//! Decodes bodies that hold tables: Arrow IPC streams and Parquet files. Their columns are cast as a whole, and rows that do not fit are
//! rejected one by one, as in JSON.
//!
//! The events keep the buffers of the body where they can: nothing is copied that is already in its column's form. A body of
//! which the stream reads only a small part is copied, so that the rest is freed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use shared::limits::{TABLE_COLUMNS_MAX, TABLE_EVENTS_BYTES_MAX};
use shared::retained_bytes::{retained_bytes, row_bytes};
use shared::stream::Stream;
use shared::time::Micros;

use super::column_cast::{CastError, CastRows, ColumnCast};
use super::json_lines;
use super::outcome::{Outcome, oldest};
use super::parquet_pages::checked_footer;
use super::{DecodeError, Decoded, Options};

/// Memory that a body may keep beyond twice its events.
const UNUSED_BYTES_MAX: usize = 1024 * 1024;
/// Rows of a Parquet file that are read at a time.
const PARQUET_BATCH_ROWS: usize = 16_384;

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
            if schema.fields().len() > TABLE_COLUMNS_MAX {
                return Err(DecodeError::too_many_columns());
            }
            cast = Some(ColumnCast::new(stream, &schema)?.not_before(session.oldest));
        }
        if let (Some(cast), Some(batch)) = (&cast, batch) {
            session.add(cast, &batch)?;
        }
    }
    decoder.finish()?;
    session.finish()
}

/// Decodes a Parquet file: flat columns, of the encodings and compressions that [`checked_footer`] accepts.
///
/// # Errors
/// [`DecodeError::Table`] for a body that is not such a file or whose columns do not fit, [`DecodeError::TooManyEvents`]
/// and [`DecodeError::EventsTooLarge`] beyond the limits. All else is a rejection of single events.
pub fn decode_parquet(stream: &Arc<Stream>, body: &Bytes, options: Options) -> Result<Decoded, DecodeError> {
    let footer = Arc::new(checked_footer(body)?);
    let mut session = TableSession::new(stream, options);
    session.check_room(u64::try_from(footer.file_metadata().num_rows()).unwrap_or(u64::MAX))?;
    // The schema that other programs add says how they hold columns in memory, which is nothing to this one.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let stored = ArrowReaderMetadata::try_new(Arc::clone(&footer), options.clone())?;
    if stored.schema().fields().len() > TABLE_COLUMNS_MAX {
        return Err(DecodeError::too_many_columns());
    }
    // Views into the pages, so that a text that rows share is not copied for each of them.
    let viewed = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        DataType::Binary => Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView)),
        _ => Arc::clone(field),
    };
    let schema = Arc::new(Schema::new(stored.schema().fields().iter().map(viewed).collect::<Fields>()));
    let cast = ColumnCast::new(stream, &schema)?.not_before(session.oldest);
    let read = ArrowReaderMetadata::try_new(footer, options.with_schema(schema))?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(body.clone(), read);
    for batch in reader.with_batch_size(PARQUET_BATCH_ROWS).build()? {
        session.add(&cast, &batch?)?;
    }
    session.finish()
}

/// The decoding of one body.
struct TableSession<'a> {
    stream: &'a Arc<Stream>,
    options: Options,
    /// Event times before this are too old.
    oldest: Micros,
    rows_max: usize,
    /// Bytes of the events so far.
    bytes: usize,
    batches: Vec<RecordBatch>,
    outcome: Outcome,
}

impl<'a> TableSession<'a> {
    fn new(stream: &'a Arc<Stream>, options: Options) -> TableSession<'a> {
        TableSession {
            stream,
            options,
            oldest: oldest(stream, options.arrived_at),
            rows_max: options.values_max / stream.columns.len().max(1),
            bytes: 0,
            batches: Vec::new(),
            outcome: Outcome::new(options),
        }
    }

    /// Refuses the body if `more` further events are too many.
    fn check_room(&self, more: u64) -> Result<(), DecodeError> {
        match self.outcome.lines_read.saturating_add(more) > self.rows_max as u64 {
            true => Err(DecodeError::TooManyEvents { max: self.rows_max }),
            false => Ok(()),
        }
    }

    /// Adds the events of a batch.
    fn add(&mut self, cast: &ColumnCast, batch: &RecordBatch) -> Result<(), DecodeError> {
        let before = self.outcome.lines_read;
        self.check_room(batch.num_rows() as u64)?;
        let reasons_max = self.options.rejections_listed_max.max(self.options.malformed_kept_max);
        let CastRows { rows, rejected } = cast.apply(batch, reasons_max)?;
        for (row, reason) in rejected {
            self.outcome.reject(before + row as u64 + 1, reason, || json(batch, row));
        }
        self.outcome.lines_read += batch.num_rows() as u64;
        self.outcome.unknown_fields += cast.unknown.len() as u64 * rows.num_rows() as u64;
        self.bytes += row_bytes(&rows);
        if self.bytes > TABLE_EVENTS_BYTES_MAX {
            return Err(DecodeError::EventsTooLarge { max: TABLE_EVENTS_BYTES_MAX });
        }
        if rows.num_rows() > 0 {
            self.batches.push(rows);
        }
        Ok(())
    }

    fn finish(self) -> Result<Decoded, DecodeError> {
        let rows = match self.batches.as_slice() {
            [] => RecordBatch::new_empty(self.stream.schema()),
            [batch] => batch.clone(),
            batches => concat_batches(&self.stream.schema(), batches)?,
        };
        let unused = retained_bytes(&rows).saturating_sub(2 * row_bytes(&rows));
        let rows = if unused > UNUSED_BYTES_MAX { copied(&rows)? } else { rows };
        Ok(self.outcome.decoded(self.stream, rows))
    }
}

/// A row of the body as JSON; empty if its types have no JSON form.
fn json(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let written = json_lines::append(&mut text, &batch.slice(row, 1));
    let length = if written.is_ok() { text.trim_ascii_end().len() } else { 0 };
    text.truncate(length);
    text
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
