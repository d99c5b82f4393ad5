//! Finds the events that come after the last epoch of a sink of a stream, as records, in the order of the log.
//!
//! An epoch is a cut of the log: the records of all events between two positions. The position is in the book, so the events are
//! read again from there after a crash, and nothing of them is held meanwhile: a sink that is behind reads the log later, or
//! the archive. Joined rows are those that are known when an event is written, as of its time.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use shared::event_pages::{EventPage, EventPages, PageBounds};
use shared::event_sink::EventSink;
use shared::ids::{Offset, Partition};
use shared::lookup::join::{EventJoin, LookupError, SharedLookups};
use shared::lookup::table::Lookups;
use shared::stream::Stream;

use crate::book::{EventsAgain, SinkBook};
use crate::differences::EpochBatch;
use crate::event_record::{EventRecords, PageRecords};
use crate::sizes::EventSizes;
use crate::view_changes::ChangesError;

/// Finds the events of one sink.
pub struct EventChanges {
    sink: Arc<EventSink>,
    stream: Arc<Stream>,
    pages: Arc<dyn EventPages>,
    /// `None`: the sink has no joins.
    join: Option<EventJoin>,
    records: EventRecords,
    sizes: EventSizes,
    key_hash: String,
}

impl EventChanges {
    /// Returns the events of `pages`, which are those of the sink's stream, joined with the rows of `lookups`.
    ///
    /// # Errors
    /// `lookups` lacks a table of the sink.
    pub fn new(
        sink: Arc<EventSink>,
        stream: Arc<Stream>,
        pages: Arc<dyn EventPages>,
        lookups: &Lookups,
        sizes: EventSizes,
    ) -> Result<EventChanges, LookupError> {
        let join = EventJoin::new(&*sink, lookups, stream.columns.len(), &|index| index)?;
        let (records, key_hash) = (EventRecords::new(Arc::clone(&sink), join.as_ref()), sink.key_hash());
        Ok(EventChanges { sink, stream, pages, join, records, sizes, key_hash })
    }

    /// Returns the records of the next events after the committed cut: a page of each partition that has any. The batch is
    /// partial if more events follow.
    ///
    /// # Errors
    /// The events cannot be read, or the target was written with other keys.
    pub async fn next(&self, book: &SinkBook) -> Result<EpochBatch, ChangesError> {
        if book.has_other_keys(&self.key_hash) {
            return Err(ChangesError::OtherKeys);
        }
        let (mut cut, restarts) = book.position();
        let (mut pages, mut is_partial) = (Vec::new(), false);
        let partitions = self.stream.partitions;
        let share = |bytes: usize| bytes / partitions.max(1) as usize;
        let bounds = PageBounds { rows: self.sizes.page_rows, bytes: share(self.sizes.page_bytes) };
        for partition in (0..partitions).map(Partition) {
            let from = cut.position.get(&partition).copied().unwrap_or(Offset(0));
            let head = self.pages.head(partition);
            if from >= head {
                continue;
            }
            let page = self.pages.page(partition, from, bounds).await?;
            let page_end = page.end;
            let written = self.write(partition, page, cut.again.clone(), share(self.sizes.transaction_bytes)).await?;
            let end = written.rest.unwrap_or(page_end);
            is_partial |= end < head;
            cut.position.insert(partition, end);
            pages.push(written);
        }
        let is_past = |again: &EventsAgain| {
            again.until.iter().all(|(partition, until)| cut.position.get(partition).is_some_and(|end| end >= until))
        };
        if cut.again.as_ref().is_some_and(is_past) {
            cut.again = None;
        }
        let failed: usize = pages.iter().map(|page| page.failed).sum();
        if failed > 0 {
            let name = self.sink.name.to_string();
            metrics::counter!("trueup_sink_failed_events_total", "sink" => name).increment(failed as u64);
            tracing::warn!(sink = %self.sink.name, failed, "an expression failed for events: they are not written");
        }
        let avro = self.records.avro(&mut pages)?;
        let records = pages.into_iter().flat_map(|page| page.records).collect();
        Ok(EpochBatch { records, avro, cut, is_partial, restarts: Some(restarts), ..EpochBatch::default() })
    }

    async fn write(
        &self,
        partition: Partition,
        page: EventPage,
        again: Option<EventsAgain>,
        bytes_max: usize,
    ) -> Result<PageRecords, ChangesError> {
        let (records, join, event_time) = (self.records.clone(), self.join.clone(), self.stream.event_time);
        let write = move || {
            let page = match join {
                None => page,
                Some(join) => {
                    let times = page.rows.column(event_time).as_primitive::<TimestampMicrosecondType>();
                    let rows = join.extend(&page.rows, times.values(), &mut SharedLookups::default())?;
                    EventPage { rows, ..page }
                }
            };
            let times = page.rows.column(event_time).as_primitive::<TimestampMicrosecondType>();
            let is_wanted = |row: usize| match &again {
                None => true,
                Some(EventsAgain { from, until }) => {
                    let is_new = until.get(&partition).is_none_or(|until| page.offsets[row] >= *until);
                    is_new || times.value(row) >= from.0
                }
            };
            records.of_page(partition, &page, &is_wanted, bytes_max)
        };
        tokio::task::spawn_blocking(write).await?
    }
}

#[cfg(test)]
mod tests;
