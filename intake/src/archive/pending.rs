//! Collects the rows of one partition that wait to be written, without gaps, with the columns that the archive adds.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{BatchCoalescer, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::retained_bytes::{RetainedBytes, row_bytes};
use shared::stream::Stream;
use shared::time::Micros;

use super::flush::Flush;

/// Small batches are copied together up to this many rows; larger ones stay as they are.
const COALESCE_ROWS: usize = 8_192;

/// Rows from the first that is not archived to the last that arrived.
pub(super) struct PendingRows {
    partition: Partition,
    schema: SchemaRef,
    event_time: usize,
    entity: Option<usize>,
    source_offset: Option<usize>,
    coalescer: BatchCoalescer,
    batches: Vec<RecordBatch>,
    from: Offset,
    to: Offset,
    latest_watermark: Micros,
    since: Option<Instant>,
    retained: RetainedBytes,
    /// Bytes of the rows that the coalescer may still hold.
    coalescing_bytes: usize,
}

impl PendingRows {
    /// Creates an empty collection; `from` is the first offset expected.
    pub fn new(stream: &Stream, partition: Partition, from: Offset) -> PendingRows {
        let schema = stream.archive_schema();
        let coalescer = BatchCoalescer::new(schema.clone(), COALESCE_ROWS)
            .with_biggest_coalesce_batch_size(Some(COALESCE_ROWS / 2));
        PendingRows {
            partition,
            schema,
            event_time: stream.event_time,
            entity: stream.entity,
            source_offset: stream.source_offset(),
            coalescer,
            batches: Vec::new(),
            from,
            to: from,
            latest_watermark: Micros::MIN,
            since: None,
            retained: RetainedBytes::default(),
            coalescing_bytes: 0,
        }
    }

    /// The offset expected next.
    pub fn end(&self) -> Offset {
        self.to
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        (self.to.0 - self.from.0) as usize
    }

    /// Memory that the rows keep alive, in bytes.
    pub fn bytes(&self) -> usize {
        self.retained.bytes() + self.coalescing_bytes
    }

    /// When the oldest row was added.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds the rows of `batch` from the offset expected next; earlier ones were added before.
    pub fn add(&mut self, batch: &LogBatch) -> Result<(), ArrowError> {
        let known = (self.to.0.saturating_sub(batch.first_offset.0) as usize).min(batch.rows.num_rows());
        let rows = batch.rows.slice(known, batch.rows.num_rows() - known);
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let bytes = row_bytes(&rows);
        self.coalescer.push_batch(self.archive_rows(&rows, batch.arrived_at)?)?;
        // Rows that were pushed before are complete by now if any are.
        self.coalescing_bytes = if self.collect() { bytes } else { self.coalescing_bytes + bytes };
        self.to = batch.end_offset();
        self.latest_watermark = batch.watermark;
        self.since.get_or_insert_with(shared::clock::monotonic_now);
        Ok(())
    }

    /// Removes all rows, if there are any.
    pub fn take(&mut self) -> Result<Option<Flush>, ArrowError> {
        if self.rows() == 0 {
            return Ok(None);
        }
        self.coalescer.finish_buffered_batch()?;
        self.coalescing_bytes = 0;
        self.collect();
        let rows = concat_batches(&self.schema, &self.batches)?;
        self.batches.clear();
        let flush = Flush {
            partition: self.partition,
            from: self.from,
            to: self.to,
            latest_watermark: self.latest_watermark,
            event_time: self.event_time,
            entity: self.entity,
            source_offset: self.source_offset,
            rows,
        };
        self.from = self.to;
        self.since = None;
        self.retained = RetainedBytes::default();
        Ok(Some(flush))
    }

    /// Collects complete batches; returns whether there was one.
    fn collect(&mut self) -> bool {
        let before = self.batches.len();
        while let Some(batch) = self.coalescer.next_completed_batch() {
            self.retained.add(&batch);
            self.batches.push(batch);
        }
        self.batches.len() > before
    }

    /// Adds the columns of the archive to rows of the log, which start at the offset expected next.
    fn archive_rows(&self, rows: &RecordBatch, arrived_at: Micros) -> Result<RecordBatch, ArrowError> {
        let count = rows.num_rows();
        let first = self.to.0 as i64;
        let (declared, watermark) = rows.columns().split_at(rows.num_columns() - 1);
        let mut columns: Vec<ArrayRef> = declared.to_vec();
        columns.push(Arc::new(Int32Array::from_value(self.partition.0 as i32, count)));
        columns.push(Arc::new(Int64Array::from_iter_values(first..first + count as i64)));
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(arrived_at.0, count).with_timezone("UTC")));
        columns.extend_from_slice(watermark);
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}
