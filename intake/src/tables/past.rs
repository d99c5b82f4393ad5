//! Reads rows as of an instant of event time, from all changes of their table: those that the log no longer has from the archive, the
//! others from the log. The rule is that of lookup joins ([`shared::lookup::instant`]).
//!
//! Memory is bounded: of a page, only the first rows are candidates, and of each a few bytes per change and the values of one version.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use lake::{ArchiveTags, Lake, TablePath};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use shared::entity::EntityId;
use shared::ids::{Offset, Partition};
use shared::lookup::instant::{RowAtInstant, SeenRow};
use shared::partial::query_budget::{Exceeded, QueryBudget};
use shared::table_key::TableKey;
use shared::time::Micros;

use crate::entities::restore::each_archived_file;
use crate::entities::{ReadError, fitted};
use crate::log::LogError;
use crate::partition::{PartitionLog, RowEvent, RowKey, RowValues};
use crate::streams::StreamLog;

/// Rows decoded at once.
const READ_ROWS: usize = 16 * 1024;
/// Attempts to read while the archiver trims the log: each means that it committed in between.
const TRIES: usize = 8;
/// Memory of a candidate beside its key and what is known of it, in bytes.
const CANDIDATE_BYTES: usize = 64;

/// The rows that are asked for.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    Row {
        key: TableKey,
        /// The same as events have it.
        bytes: RowKey,
        /// The partition that has it, if the key decides that.
        partition: Option<Partition>,
    },
    /// At most `limit` rows behind a key.
    Page { after: Option<RowKey>, limit: usize },
}

/// A request for rows as of `instant`.
#[derive(Debug, Clone)]
pub(super) struct PastRequest {
    pub instant: Micros,
    pub selection: Selection,
    pub budget: QueryBudget,
}

/// The first rows that are asked for, in the order of their keys.
#[derive(Debug)]
pub(super) struct FoundRows {
    pub rows: Vec<(RowKey, SeenRow<RowValues>)>,
    /// Whether rows behind them are omitted.
    pub has_more: bool,
}

/// Why past rows could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PastError {
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Rows while they are collected.
#[derive(Default)]
struct Candidates {
    rows: BTreeMap<RowKey, RowAtInstant<RowValues>>,
    bytes: usize,
    /// The first key that was omitted. Keys from it on are not candidates.
    first_left: Option<RowKey>,
    exceeded: Option<Exceeded>,
}

/// One attempt to read all changes.
struct Reading {
    log: Arc<StreamLog>,
    request: PastRequest,
    /// For each partition the offsets that the log has.
    ranges: Vec<(Offset, Offset)>,
    found: Mutex<Candidates>,
}

/// Some events of a partition; the columns begin with those of the stream's schema.
struct Events<'a> {
    partition: Partition,
    columns: &'a [ArrayRef],
    offset: &'a dyn Fn(usize) -> Offset,
    accepted_at: &'a dyn Fn(usize) -> Micros,
}

/// Reads the rows of a table.
pub(super) async fn read(log: &Arc<StreamLog>, lake: &Lake, request: &PastRequest) -> Result<FoundRows, PastError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match Reading::new(log, request).read(lake).await {
            // The archiver has committed since the range of the log was read, and the log was trimmed.
            Err(PastError::Read(ReadError::Log(LogError::BeforeStart { .. }))) if tries < TRIES => {}
            read => return read,
        }
    }
}

impl Selection {
    fn has_partition(&self, partition: Partition) -> bool {
        match self {
            Selection::Row { partition: Some(only), .. } => *only == partition,
            Selection::Row { .. } | Selection::Page { .. } => true,
        }
    }

    /// The value of the first column of the key that the rows have, if it is known. Of a key of several columns, other rows have it
    /// too: [`Candidates::change`] leaves them out.
    fn first_value(&self) -> Option<&EntityId> {
        match self {
            Selection::Row { key, .. } => key.values().first(),
            Selection::Page { .. } => None,
        }
    }

    /// Decides by the first column of the key which rows of an archive file are decoded.
    fn predicate(&self, mask: ProjectionMask) -> Option<Box<dyn ArrowPredicate>> {
        let value = self.first_value()?.clone();
        Some(Box::new(ArrowPredicateFn::new(mask, move |batch: RecordBatch| Ok(value.matches(batch.column(0))))))
    }
}

impl Reading {
    fn new(log: &Arc<StreamLog>, request: &PastRequest) -> Arc<Reading> {
        Arc::new(Reading {
            log: Arc::clone(log),
            request: request.clone(),
            ranges: log.partitions().iter().map(PartitionLog::range).collect(),
            found: Mutex::default(),
        })
    }

    /// The partitions that may have the rows.
    fn partitions(&self) -> impl Iterator<Item = (Partition, (Offset, Offset))> {
        let all = (0..).map(Partition).zip(self.ranges.iter().copied());
        all.filter(|(partition, _)| self.request.selection.has_partition(*partition))
    }

    async fn read(self: Arc<Reading>, lake: &Lake) -> Result<FoundRows, PastError> {
        self.check_archive(lake).await?;
        let stream = Arc::clone(self.log.stream());
        let names: Vec<String> = stream.archive_schema().fields().iter().map(|field| field.name().clone()).collect();
        let target = |partition: Partition, _: &PartitionLog| {
            self.request.selection.has_partition(partition).then(|| Arc::clone(&self))
        };
        let archived = each_archived_file(&self.log, lake, &names, target, |path, reading| reading.read_file(path));
        self.unless_exceeded(archived.await)?;
        let reading = Arc::clone(&self);
        let replayed = tokio::task::spawn_blocking(move || reading.read_log()).await.map_err(ReadError::Task)?;
        self.unless_exceeded(replayed)?;
        let found = std::mem::take(&mut *self.found.lock());
        Ok(FoundRows {
            rows: found.rows.into_iter().map(|(key, row)| (key, row.seen())).collect(),
            has_more: found.first_left.is_some(),
        })
    }

    /// Fails if changes are neither in the log nor in the archive: rows would be as they never were.
    async fn check_archive(&self, lake: &Lake) -> Result<(), ReadError> {
        let trimmed: Vec<_> = self.partitions().filter(|(_, (start, _))| *start > Offset(0)).collect();
        if trimmed.is_empty() {
            return Ok(());
        }
        let name = &self.log.stream().name;
        let table = lake.open_table(&TablePath::events(name)).await?;
        for (partition, (Offset(start), _)) in trimmed {
            let archived = match &table {
                Some(table) => table.txn_version(&ArchiveTags::app_id(name, partition)).await?,
                None => None,
            };
            let archived = archived.and_then(|end| u64::try_from(end).ok()).unwrap_or(0);
            if archived < start {
                return Err(ReadError::Other(format!(
                    "the changes {archived} to {start} of partition {partition} of the table {name} are no longer kept: they are neither in \
                     the log nor in the archive, so its rows of the past are not known"
                )));
            }
        }
        Ok(())
    }

    /// The outcome of a step, or the limit that ended it.
    fn unless_exceeded(&self, outcome: Result<(), ReadError>) -> Result<(), PastError> {
        match self.found.lock().exceeded {
            Some(exceeded) => Err(exceeded.into()),
            None => Ok(outcome?),
        }
    }

    /// Reads the changes of a file that the log no longer has. Blocking.
    fn read_file(&self, path: &str) -> Result<(), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let stream = self.log.stream();
        let key = &stream.columns[stream.table.map_or(0, |rows| rows.key.first())].name;
        let key = builder.parquet_schema().root_schema().get_fields().iter().position(|field| field.name() == key);
        let key = key.ok_or("it does not have the column of the key")?;
        let of_key = self.request.selection.predicate(ProjectionMask::roots(builder.parquet_schema(), [key]));
        let builder = match of_key {
            Some(of_key) => builder.with_row_filter(RowFilter::new(vec![of_key])),
            None => builder,
        };
        for batch in builder.with_batch_size(READ_ROWS).build().map_err(|error| error.to_string())? {
            let added = batch.and_then(|batch| self.add_archived(&fitted(&batch, stream)?));
            added.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Adds those of the events, which have the columns of the archive, that the log no longer has.
    fn add_archived(&self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let own = self.log.stream().columns.len();
        let Some(partition) = rows.column(own).as_primitive::<Int32Type>().iter().flatten().next() else {
            return Ok(());
        };
        let partition = Partition(partition.unsigned_abs());
        let start = self.ranges.get(partition.0 as usize).map_or(Offset(0), |(start, _)| *start);
        let of = |offset: i64| Offset(offset.unsigned_abs());
        let offsets = rows.column(own + 1).as_primitive::<Int64Type>();
        let is_archived = offsets.values().iter().map(|offset| Some(of(*offset) < start)).collect();
        let rows = filter_record_batch(rows, &is_archived)?;
        let (columns, system) = rows.columns().split_at(own);
        let offsets = system[1].as_primitive::<Int64Type>();
        let accepted = system[2].as_primitive::<TimestampMicrosecondType>();
        self.add(&Events {
            partition,
            columns,
            offset: &|row| of(offsets.value(row)),
            accepted_at: &|row| Micros(accepted.value(row)),
        })
    }

    /// Reads the changes that the log has. Blocking.
    fn read_log(&self) -> Result<(), ReadError> {
        let key = self.log.stream().table.map_or(0, |rows| rows.key.first());
        let is_match = |keys: &ArrayRef| match self.request.selection.first_value() {
            Some(value) => value.matches(keys),
            None => BooleanArray::from(vec![true; keys.len()]),
        };
        for (partition, (start, head)) in self.partitions() {
            let Some(log) = self.log.partition(partition) else { continue };
            let mut added = Ok(());
            log.replay_where(start, head, key, &is_match, &mut |found| {
                if added.is_ok() {
                    added = self.add(&Events {
                        partition,
                        columns: found.rows.columns(),
                        offset: &|row| found.offsets[row],
                        accepted_at: &|_| found.arrived_at,
                    });
                }
            })?;
            added?;
        }
        Ok(())
    }

    fn add(&self, events: &Events<'_>) -> Result<(), ArrowError> {
        let Some(layout) = self.log.partition(events.partition).and_then(PartitionLog::rows) else { return Ok(()) };
        let times = events.columns[self.log.stream().event_time].as_primitive::<TimestampMicrosecondType>();
        let mut found = self.found.lock();
        layout.each_event(events.columns, &mut |event| {
            let (offset, accepted_at) = ((events.offset)(event.index), (events.accepted_at)(event.index));
            let add = |row: &mut RowAtInstant<RowValues>| match event.retracts {
                true => row.delete(events.partition, offset, accepted_at),
                false => row.write(events.partition, offset, Micros(times.value(event.index)), || event.row.into()),
            };
            found.change(&self.request, &event, add);
        })?;
        // I9: one row alone may have more changes than there is memory for.
        let (exceeded, bytes) = (self.request.budget.check(found.bytes).err(), found.bytes);
        found.exceeded = found.exceeded.or(exceeded);
        match exceeded {
            Some(exceeded) => Err(ArrowError::ComputeError(format!("{exceeded}, with {bytes} bytes"))),
            None => Ok(()),
        }
    }
}

impl Candidates {
    /// Changes the row of an event, if it is among the first that are asked for.
    fn change(
        &mut self,
        request: &PastRequest,
        event: &RowEvent<'_>,
        change: impl FnOnce(&mut RowAtInstant<RowValues>),
    ) {
        let limit = match &request.selection {
            Selection::Row { bytes, .. } if event.key != &**bytes => return,
            Selection::Row { .. } => 1,
            Selection::Page { after: Some(after), .. } if event.key <= &**after => return,
            Selection::Page { limit, .. } => *limit,
        };
        if self.first_left.as_ref().is_some_and(|left| event.key >= &**left) {
            return;
        }
        if !self.rows.contains_key(event.key) {
            let row = RowAtInstant::new(request.instant);
            self.bytes += candidate_bytes(event.key, &row);
            self.rows.insert(event.key.into(), row);
        }
        let row = self.rows.get_mut(event.key).expect("it was added");
        let before = row_bytes(row);
        change(row);
        self.bytes = self.bytes + row_bytes(row) - before;
        while self.rows.len() > limit || (self.rows.len() > 1 && self.bytes > request.budget.bytes_max) {
            let Some((key, row)) = self.rows.pop_last() else { return };
            self.bytes -= candidate_bytes(&key, &row);
            self.first_left = Some(key);
        }
    }
}

fn row_bytes(row: &RowAtInstant<RowValues>) -> usize {
    row.bytes(|values| values.len())
}

fn candidate_bytes(key: &[u8], row: &RowAtInstant<RowValues>) -> usize {
    key.len() + CANDIDATE_BYTES + row_bytes(row)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    /// Adds an event per key and time, all of them writes.
    fn candidates(selection: Selection, bytes_max: usize, events: &[(u8, i64)]) -> Candidates {
        let budget = QueryBudget { bytes_max, ..QueryBudget::unlimited() };
        let request = PastRequest { instant: Micros(i64::MAX), selection, budget };
        let mut found = Candidates::default();
        for (offset, (key, time)) in events.iter().enumerate() {
            let event = RowEvent { index: 0, key: &[*key], row: &[1; 50], retracts: false };
            found.change(&request, &event, |row| {
                row.write(Partition(0), Offset(offset as u64), Micros(*time), || event.row.into());
            });
        }
        found
    }

    fn keys(found: &Candidates) -> Vec<u8> {
        found.rows.keys().map(|key| key[0]).collect()
    }

    #[test]
    fn a_page_keeps_its_first_rows_and_no_more_than_fit() {
        let events: Vec<(u8, i64)> = (0..100).map(|n| ((n * 37 % 100) as u8, n)).collect();
        let page = |after: Option<u8>, limit| Selection::Page { after: after.map(|key| Box::from([key])), limit };
        let found = candidates(page(None, 5), usize::MAX, &events);
        assert_eq!((keys(&found), found.first_left.map(|key| key[0])), (vec![0, 1, 2, 3, 4], Some(5)));
        let found = candidates(page(Some(95), 5), usize::MAX, &events);
        assert_eq!((keys(&found), found.first_left), (vec![96, 97, 98, 99], None));
        let one = candidate_bytes(
            &[0],
            candidates(page(None, 1), usize::MAX, &events[..1]).rows.values().next().expect("a row"),
        );
        let found = candidates(page(None, 50), 3 * one, &events);
        assert_eq!((keys(&found), found.bytes), (vec![0, 1, 2], 3 * one));
        // The first stays, whatever it takes.
        let found = candidates(page(None, 50), one / 2, &events);
        assert_eq!((keys(&found), found.bytes > one / 2), (vec![0], true));
    }

    #[test]
    fn the_memory_of_a_row_grows_with_its_changes_and_not_with_their_values() {
        let events: Vec<(u8, i64)> = (0..1_000).map(|n| (7, n)).collect();
        let columns: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![7]))];
        let selection = Selection::Row { key: TableKey::at(&columns, 0), bytes: Box::from([7]), partition: None };
        // Another key with the same first column.
        let other = events.iter().flat_map(|event| [*event, (8, event.1)]).collect::<Vec<_>>();
        assert_eq!(keys(&candidates(selection.clone(), usize::MAX, &other)), [7]);
        let found = candidates(selection, usize::MAX, &events);
        assert!((24_000..30_000).contains(&found.bytes), "{} bytes", found.bytes);
    }
}
