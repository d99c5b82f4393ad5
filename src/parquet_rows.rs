//! Reads the rows of a Parquet file as bodies of events: Arrow streams, or lines of JSON if the file has nested values, into
//! which a column's FROM can point.

use std::fs::File;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use indicatif::ProgressBar;
use intake::decode::json_lines;
use parquet::arrow::arrow_reader::ArrowReaderOptions;

use crate::damaged_parquet::{caught, check_columns, next_rows, open};
use crate::line_batch::{BatchFormat, LineBatch};

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
    let pages = file.try_clone()?;
    let builder = open(file, ArrowReaderOptions::new()).context("not a readable Parquet file")?;
    check_columns(&pages, &builder, |_| true)?;
    let rows_all = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0).max(1);
    let schema = builder.schema().clone();
    let format = if has_nested(&schema) { BatchFormat::Lines } else { BatchFormat::Arrow };
    let mut reader = caught(|| builder.with_batch_size(ROWS_AT_ONCE).build())?;
    let mut body = BodyWriter::new(format, &schema)?;
    let (mut number, mut first_line, mut lines) = (0, 1, 0);
    while let Some(rows) = next_rows(&mut reader)? {
        body.append(&rows)?;
        lines += rows.num_rows() as u64;
        if body.bytes() >= batch_bytes {
            let full = std::mem::replace(&mut body, BodyWriter::new(format, &schema)?).finish()?;
            if !each(LineBatch { number, first_line, lines, format, body: full }) {
                return Ok(());
            }
            (number, first_line, lines) = (number + 1, first_line + lines, 0);
        }
        let rows_done = first_line - 1 + lines;
        bar.set_position((file_bytes as f64 * (rows_done as f64 / rows_all as f64)) as u64);
    }
    if lines > 0 {
        each(LineBatch { number, first_line, lines, format, body: body.finish()? });
    }
    Ok(())
}

fn has_nested(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| match field.data_type() {
        DataType::Dictionary(_, values) => values.is_nested(),
        other => other.is_nested(),
    })
}

/// Writes rows into the body of a request.
enum BodyWriter {
    Lines(Vec<u8>),
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl BodyWriter {
    fn new(format: BatchFormat, schema: &SchemaRef) -> Result<BodyWriter, ArrowError> {
        Ok(match format {
            BatchFormat::Lines => BodyWriter::Lines(Vec::new()),
            BatchFormat::Arrow => BodyWriter::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
        })
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            BodyWriter::Lines(lines) => json_lines::append(lines, rows),
            BodyWriter::Arrow(writer) => writer.write(rows),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            BodyWriter::Lines(lines) => lines.len(),
            BodyWriter::Arrow(writer) => writer.get_ref().len(),
        }
    }

    fn finish(self) -> Result<Bytes, ArrowError> {
        match self {
            BodyWriter::Lines(lines) => Ok(Bytes::from(lines)),
            BodyWriter::Arrow(writer) => Ok(Bytes::from(writer.into_inner()?)),
        }
    }
}
