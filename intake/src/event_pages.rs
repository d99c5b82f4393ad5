//! Reads the events of a stream again in the order of the log, page by page: from the log and, where it has them no longer, from
//! the archive, which has every event that the log has lost. Nothing here changes anything, or keeps the log longer.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::BoxFuture;
use lake::{ArchiveTags, DataFile, Lake, Table, TablePath};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use shared::event_pages::{EventPage, EventPages, PageBounds};
use shared::handoff::{HandoffError, LogReplay};
use shared::ids::{Offset, Partition};
use shared::retained_bytes::row_bytes;
use shared::stream::{Stream, system_columns};

use crate::entities::{ReadError, fitted};
use crate::log::LogError;
use crate::streams::StreamLog;

/// Rows decoded at once.
const READ_ROWS: usize = 16 * 1024;
/// Attempts to read while the archiver trims the log: each means that it committed in between.
const TRIES: usize = 8;

/// The events of one stream.
pub struct StreamPages {
    log: Arc<StreamLog>,
    lake: Lake,
}

/// Rows found so far, in any order.
struct FoundRows {
    batches: Vec<RecordBatch>,
    offsets: Vec<i64>,
    bytes: usize,
}

impl StreamPages {
    /// Reads the log, and its archive in `lake`.
    pub fn new(log: Arc<StreamLog>, lake: Lake) -> StreamPages {
        StreamPages { log, lake }
    }

    async fn read(&self, partition: Partition, from: Offset, bounds: PageBounds) -> Result<EventPage, ReadError> {
        let (start, head) = self.log.range(partition);
        let to = Offset(from.0.saturating_add(bounds.rows.max(1) as u64)).min(head);
        if from < start {
            return self.archived(partition, (from, to.min(start)), bounds.bytes).await;
        }
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || of_log(&log, partition, (from, to), bounds.bytes)).await?
    }

    /// Reads the events of `from..to` from the archive; fewer if they have more than `bytes_max` bytes, but at least one.
    async fn archived(
        &self,
        partition: Partition,
        (from, mut to): (Offset, Offset),
        bytes_max: usize,
    ) -> Result<EventPage, ReadError> {
        let stream = self.log.stream();
        let path = TablePath::events(&stream.name);
        let table = self.lake.open_table(&path).await?;
        let table = table.ok_or_else(|| ReadError::Other(format!("no table {path}")))?;
        let (snapshot, _lease) = table.held_snapshot().await?;
        loop {
            let is_of = |file: &&DataFile| {
                ArchiveTags::from_tags(&file.tags)
                    .is_ok_and(|tags| tags.partition == partition && tags.from < to && tags.to > from)
            };
            let mut found = FoundRows { batches: Vec::new(), offsets: Vec::new(), bytes: 0 };
            let mut fits = true;
            for file in snapshot.files.iter().filter(is_of) {
                found = read_file(&table, file, stream, (from, to), found).await?;
                fits = found.bytes <= bytes_max || to.0 <= from.0 + 1;
                if !fits {
                    break;
                }
            }
            if fits {
                return Ok(found.into_page(stream, to)?);
            }
            to = Offset(from.0 + (to.0 - from.0) / 2);
        }
    }
}

/// Reads events of the log. Blocking.
fn of_log(
    log: &StreamLog,
    partition: Partition,
    (from, to): (Offset, Offset),
    bytes_max: usize,
) -> Result<EventPage, ReadError> {
    let partition_log = log.partition(partition).ok_or_else(|| ReadError::Other("no such partition".to_owned()))?;
    let mut found = FoundRows { batches: Vec::new(), offsets: Vec::new(), bytes: 0 };
    let (mut end, mut failed) = (from, Ok(()));
    partition_log.replay(from, to, &mut |batch| {
        // The rest of the range is decoded, but not held.
        if failed.is_err() || (found.bytes > bytes_max && end > from) {
            return;
        }
        end = batch.end_offset();
        failed = found.add_log(log, partition, batch.first_offset, &batch.rows);
    })?;
    failed?;
    Ok(found.into_page(log.stream(), end)?)
}

/// Adds the events of `from..to` in a file.
async fn read_file(
    table: &Table,
    file: &DataFile,
    stream: &Arc<Stream>,
    (from, to): (Offset, Offset),
    mut found: FoundRows,
) -> Result<FoundRows, ReadError> {
    let names: Vec<String> = stream.archive_schema().fields().iter().map(|field| field.name().clone()).collect();
    let held = table.hold(std::slice::from_ref(file), &names, &AtomicU64::new(0)).await?;
    let path = held.path(file).unwrap_or_default().to_owned();
    let stream = Arc::clone(stream);
    let read = move || {
        // Held until it is read.
        let _held = held;
        let outcome = found.add_file(&path, &stream, (from, to));
        outcome.map(|()| found).map_err(|reason| ReadError::File { path, reason })
    };
    tokio::task::spawn_blocking(read).await?
}

impl FoundRows {
    /// Adds rows of the log, with its schema, without those of erased entities.
    fn add_log(
        &mut self,
        log: &StreamLog,
        partition: Partition,
        first: Offset,
        rows: &RecordBatch,
    ) -> Result<(), ArrowError> {
        let own: Vec<usize> = (0..log.stream().columns.len()).collect();
        let kept = log.erased(partition, rows).map(|erased| not(&erased)).transpose()?;
        let rows = rows.project(&own)?;
        let offset = |row: usize| (first.0 + row as u64) as i64;
        match kept {
            None => {
                self.offsets.extend((0..rows.num_rows()).map(offset));
                self.add(rows);
            }
            Some(kept) => {
                self.offsets.extend(kept.values().set_indices().map(offset));
                self.add(filter_record_batch(&rows, &kept)?);
            }
        }
        Ok(())
    }

    /// Adds the rows of `from..to` of a file of the archive. Blocking.
    fn add_file(&mut self, path: &str, stream: &Stream, (from, to): (Offset, Offset)) -> Result<(), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let schema = builder.parquet_schema();
        let place = schema.root_schema().get_fields().iter().position(|field| field.name() == system_columns::OFFSET);
        let place = place.ok_or_else(|| format!("there is no column {}", system_columns::OFFSET))?;
        let in_range = ArrowPredicateFn::new(ProjectionMask::roots(schema, [place]), move |batch| {
            let offsets = cast(batch.column(0), &DataType::Int64)?;
            let is_in = |offset: &i64| Some((from.0..to.0).contains(&(*offset as u64)));
            Ok(offsets.as_primitive::<Int64Type>().values().iter().map(is_in).collect::<BooleanArray>())
        });
        let reader = builder.with_batch_size(READ_ROWS).with_row_filter(RowFilter::new(vec![Box::new(in_range)]));
        for batch in reader.build().map_err(|error| error.to_string())? {
            let added = batch.and_then(|batch| self.add_archived(&batch, stream));
            added.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn add_archived(&mut self, batch: &RecordBatch, stream: &Stream) -> Result<(), ArrowError> {
        let rows = fitted(batch, stream)?;
        let offsets: ArrayRef = Arc::clone(rows.column(rows.schema().index_of(system_columns::OFFSET)?));
        self.offsets.extend(offsets.as_primitive::<Int64Type>().values());
        self.add(rows.project(&(0..stream.columns.len()).collect::<Vec<_>>())?);
        Ok(())
    }

    fn add(&mut self, rows: RecordBatch) {
        self.bytes += row_bytes(&rows);
        self.batches.push(rows);
    }

    /// The rows in the order of their offsets.
    fn into_page(self, stream: &Stream, end: Offset) -> Result<EventPage, ArrowError> {
        let rows = concat_batches(&stream.schema(), &self.batches)?;
        let mut order: Vec<u64> = (0..self.offsets.len() as u64).collect();
        let offset = |row: u64| self.offsets[row as usize];
        let is_sorted = self.offsets.is_sorted();
        if !is_sorted {
            order.sort_unstable_by_key(|row| offset(*row));
        }
        let offsets = order.iter().map(|row| Offset(offset(*row) as u64)).collect();
        let rows = if is_sorted { rows } else { take_record_batch(&rows, &UInt64Array::from(order))? };
        Ok(EventPage { rows, offsets, end })
    }
}

impl EventPages for StreamPages {
    fn head(&self, partition: Partition) -> Offset {
        self.log.range(partition).1
    }

    fn page(
        &self,
        partition: Partition,
        from: Offset,
        bounds: PageBounds,
    ) -> BoxFuture<'_, Result<EventPage, HandoffError>> {
        async move {
            let mut tries = 0;
            loop {
                tries += 1;
                match self.read(partition, from, bounds).await {
                    // The log was trimmed since its start was read.
                    Err(ReadError::Log(LogError::BeforeStart { .. })) if tries < TRIES => {}
                    read => return read.map_err(|error| HandoffError(error.to_string())),
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
