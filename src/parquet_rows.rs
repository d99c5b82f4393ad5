//! Converts Parquet rows to lines of JSON: times without a zone are UTC, nulls are omitted.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch, make_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::line_batch::LineBatch;

/// Rows read at a time; they take well under the bytes of a batch.
const ROWS_AT_ONCE: usize = 4096;

/// Reads the whole file. Passes batches of about `batch_bytes` to `each`, until it returns false. `bar` advances with the
/// share of rows read. Blocks.
pub fn read(
    file: File,
    file_bytes: u64,
    batch_bytes: usize,
    bar: &ProgressBar,
    each: &mut dyn FnMut(LineBatch) -> bool,
) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).context("not a readable Parquet file")?;
    let rows_all = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0).max(1);
    let reader = builder.with_batch_size(ROWS_AT_ONCE).build()?;
    let (mut number, mut first_line, mut lines) = (0, 1, 0);
    let mut body = Vec::with_capacity(batch_bytes + batch_bytes / 4);
    for rows in reader {
        let rows = rows?;
        append_lines(&mut body, &rows)?;
        lines += rows.num_rows() as u64;
        if body.len() >= batch_bytes {
            let full = std::mem::replace(&mut body, Vec::with_capacity(batch_bytes + batch_bytes / 4));
            if !each(LineBatch { number, first_line, lines, body: Bytes::from(full) }) {
                return Ok(());
            }
            (number, first_line, lines) = (number + 1, first_line + lines, 0);
        }
        let rows_done = first_line - 1 + lines;
        bar.set_position((file_bytes as f64 * (rows_done as f64 / rows_all as f64)) as u64);
    }
    if lines > 0 {
        each(LineBatch { number, first_line, lines, body: Bytes::from(body) });
    }
    Ok(())
}

/// Appends rows as lines of JSON.
pub fn append_lines(lines: &mut Vec<u8>, rows: &RecordBatch) -> Result<(), ArrowError> {
    let mut writer = LineDelimitedWriter::new(lines);
    writer.write(&with_utc_times(rows)?)?;
    writer.finish()
}

/// Marks times without a zone as UTC, so that they are written with a `Z`.
fn with_utc_times(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let DataType::Timestamp(unit, None) = field.data_type() else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        };
        let utc = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
        columns.push(make_array(column.to_data().into_builder().data_type(utc.clone()).build()?));
        fields.push(Arc::new(field.as_ref().clone().with_data_type(utc)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
