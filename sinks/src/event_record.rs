//! Writes events of a stream as records: JSON keys and values, and headers with the position of the event. For other formats it
//! returns the columns of keys and values ([`crate::avro`]).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::error::ArrowError;
use bytes::Bytes;
use kafka::OutgoingRecord;
use shared::evaluate::events::{EvaluatedEvents, EventExpressions, Needed};
use shared::event_pages::EventPage;
use shared::event_sink::EventSink;
use shared::ids::{Offset, Partition};
use shared::json_cell::json_cell;
use shared::lookup::join::EventJoin;
use shared::sink::SinkFormat;

use crate::avro::{AvroRows, nullable_rows};
use crate::record::JsonObject;
use crate::view_changes::ChangesError;

/// The header with the partition of the stream.
pub(crate) const PARTITION: &str = "_partition";
/// The header with the offset of the event in its partition.
pub(crate) const OFFSET: &str = "_offset";

/// The records of one page of events.
#[derive(Debug, Default)]
pub struct PageRecords {
    pub records: Vec<OutgoingRecord>,
    /// The columns of their keys and values, of a sink that writes Avro.
    avro: Vec<(RecordBatch, RecordBatch)>,
    /// Bytes of keys and values, before they are encoded as Avro.
    pub bytes: usize,
    /// Events that are in no record because an expression failed for them.
    pub failed: usize,
    /// The first event that had no room.
    pub rest: Option<Offset>,
}

/// Writes the records of one sink.
#[derive(Debug, Clone)]
pub struct EventRecords {
    sink: Arc<EventSink>,
    expressions: Arc<EventExpressions>,
}

impl EventRecords {
    /// Returns a writer of records of `sink`, whose events `join` has joined.
    pub fn new(sink: Arc<EventSink>, join: Option<&EventJoin>) -> EventRecords {
        let mut expressions = EventExpressions::of_sink(&sink);
        if let Some(join) = join {
            expressions.renumber(&mut |index| *index = join.place(*index).unwrap_or(*index));
        }
        EventRecords { expressions: Arc::new(expressions), sink }
    }

    /// Returns the records of the events of a page that pass the condition, at most `bytes_max` bytes of them, but at least one.
    /// `is_wanted` says which rows of the page may be written. Blocking.
    ///
    /// # Errors
    /// The expressions do not fit the events, which does not happen for a sink of the stream.
    pub fn of_page(
        &self,
        partition: Partition,
        page: &EventPage,
        is_wanted: &dyn Fn(usize) -> bool,
        bytes_max: usize,
    ) -> Result<PageRecords, ChangesError> {
        let mut written = PageRecords::default();
        self.expressions.for_each_piece(&page.rows, Needed::All, &mut |events| {
            if written.rest.is_none() {
                self.add_piece(&mut written, (partition, page), &events, is_wanted, bytes_max)?;
            }
            Ok::<(), ChangesError>(())
        })?;
        Ok(written)
    }

    fn add_piece(
        &self,
        written: &mut PageRecords,
        (partition, page): (Partition, &EventPage),
        events: &EvaluatedEvents,
        is_wanted: &dyn Fn(usize) -> bool,
        bytes_max: usize,
    ) -> Result<(), ChangesError> {
        let mut taken: Vec<u32> = Vec::new();
        for row in &events.selected {
            let of_page = events.rows.start + *row as usize;
            if !is_wanted(of_page) {
                continue;
            }
            let offset = page.offsets[of_page];
            let (key, value) = (self.key(events, *row as usize), self.value(events, *row as usize));
            let bytes = value.len() + key.as_ref().map_or(0, Bytes::len);
            if !written.records.is_empty() && written.bytes + bytes > bytes_max {
                written.rest = Some(offset);
                break;
            }
            written.bytes += bytes;
            let headers =
                vec![(PARTITION, Bytes::from(partition.to_string())), (OFFSET, Bytes::from(offset.to_string()))];
            written.records.push(OutgoingRecord {
                topic: self.sink.target.to_string(),
                key,
                value: Some(value),
                headers,
            });
            taken.push(*row);
        }
        let is_before_rest = |row: usize| written.rest.is_none_or(|rest| page.offsets[row] < rest);
        let failed = events.failed.iter().filter(|failed| is_wanted(failed.row) && is_before_rest(failed.row)).count();
        written.failed += failed;
        if self.sink.target.format() == SinkFormat::Avro && !taken.is_empty() {
            written.avro.push(self.columns(events, &UInt32Array::from(taken))?);
        }
        Ok(())
    }

    fn key(&self, events: &EvaluatedEvents, row: usize) -> Option<Bytes> {
        if self.sink.key.is_empty() {
            return None;
        }
        Some(self.object(events, row, self.sink.key.iter().copied()))
    }

    fn value(&self, events: &EvaluatedEvents, row: usize) -> Bytes {
        self.object(events, row, 0..self.sink.columns.len())
    }

    fn object(&self, events: &EvaluatedEvents, row: usize, columns: impl Iterator<Item = usize>) -> Bytes {
        let mut json = JsonObject::default();
        for index in columns {
            json.add(&self.sink.columns[index].name, &json_cell(&events.dimensions[index], row));
        }
        json.finish()
    }

    /// The columns of keys and values of some rows.
    fn columns(&self, events: &EvaluatedEvents, rows: &UInt32Array) -> Result<(RecordBatch, RecordBatch), ArrowError> {
        let column = |index: usize| -> Result<(String, ArrayRef), ArrowError> {
            Ok((self.sink.columns[index].name.clone(), take(&events.dimensions[index], rows, None)?))
        };
        let batch = |columns: Result<Vec<(String, ArrayRef)>, ArrowError>| nullable_rows(columns?, rows.len());
        let keys = batch(self.sink.key.iter().copied().map(column).collect())?;
        Ok((keys, batch((0..self.sink.columns.len()).map(column).collect())?))
    }

    /// Returns the columns of all records of pages, in their order; `None`: the sink does not write Avro, or there are none.
    ///
    /// # Errors
    /// The pages have other columns than each other, which does not happen for one sink.
    pub fn avro(&self, pages: &mut [PageRecords]) -> Result<Option<AvroRows>, ArrowError> {
        let (keys, values): (Vec<RecordBatch>, Vec<RecordBatch>) =
            pages.iter_mut().flat_map(|page| std::mem::take(&mut page.avro)).unzip();
        let Some(first) = values.first() else { return Ok(None) };
        let has_key = !self.sink.key.is_empty();
        let all_keys = has_key.then(|| concat_batches(keys[0].schema_ref(), &keys)).transpose()?;
        Ok(Some(AvroRows { keys: all_keys, values: concat_batches(first.schema_ref(), &values)? }))
    }
}
