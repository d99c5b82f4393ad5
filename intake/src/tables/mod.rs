//! Reads the current rows of tables, which the partitions' writers keep ([`crate::partition`]), and restores them at a start from the
//! archive ([`restore`]), and their versions for views that are joined with tables ([`versions`]). Rows as of an instant are read from all
//! changes at each request ([`past`]). Nothing here changes a row.

mod past;
pub mod restore;
pub mod versions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::BoxFuture;
use lake::Lake;
use shared::handoff::HandoffError;
use shared::ids::{Partition, StreamName};
use shared::limits::TABLE_PAGE_BYTES_MAX;
use shared::lookup::instant::SeenRow;
use shared::partial::query_budget::QueryBudget;
use shared::stream::Stream;
use shared::table_key::TableKey;
use shared::table_reader::{PageSelection, PastRowsError, RowPage, TableReader, no_table};
use shared::time::Micros;

use self::past::{FoundRows, PastError, PastRequest, Selection};

use crate::event_id::hash_key;
use crate::partition::{CurrentRows, RowKey, RowRange, RowValues};
use crate::streams::{Intake, StreamLog};
use crate::submit::partition_of;

/// The rows of all tables.
pub struct TableRows {
    intake: Arc<Intake>,
    lake: Lake,
}

impl TableRows {
    /// Reads the rows that the logs of `intake` keep, and changes from the archives in `lake`.
    pub fn new(intake: Arc<Intake>, lake: Lake) -> TableRows {
        TableRows { intake, lake }
    }

    fn table(&self, name: &StreamName) -> Result<&Arc<StreamLog>, HandoffError> {
        let log = self.intake.stream(name).filter(|log| log.stream().table.is_some());
        log.ok_or_else(|| no_table(name))
    }
}

/// The partition that has the row with this key; `None`: any may have it, because the producer of a topic decides.
fn partition_of_row(log: &StreamLog, key: &TableKey) -> Option<Partition> {
    log.stream().topic().is_none().then(|| partition_of(hash_key(key), log.stream().partitions))
}

/// The rows of any partition: they all have the same layout.
fn layout(log: &StreamLog) -> Result<&CurrentRows, HandoffError> {
    let no_partitions = || HandoffError(format!("table {} has no partitions", log.stream().name));
    partitions(log).first().copied().ok_or_else(no_partitions)
}

/// The rows with the columns of the declaration.
fn declared_rows(log: &StreamLog, rows: &[RowValues]) -> Result<RecordBatch, HandoffError> {
    let rows = layout(log)?.batch(rows).and_then(|rows| declared(&rows, log.stream()));
    rows.map_err(|error| HandoffError(error.to_string()))
}

impl From<PastError> for PastRowsError {
    fn from(error: PastError) -> PastRowsError {
        match error {
            PastError::Exceeded(exceeded) => exceeded.into(),
            PastError::Read(error) => HandoffError(error.to_string()).into(),
        }
    }
}

/// The rows of each partition.
fn partitions(log: &StreamLog) -> Vec<&CurrentRows> {
    log.partitions().iter().filter_map(|partition| partition.rows().map(AsRef::as_ref)).collect()
}

/// The columns of the declaration.
fn declared(rows: &RecordBatch, stream: &Stream) -> Result<RecordBatch, ArrowError> {
    rows.project(&stream.own_columns().map(|(index, _)| index).collect::<Vec<_>>())
}

/// The first rows of all partitions behind a key.
fn merged(parts: &[&CurrentRows], after: Option<&RowKey>, limit: usize) -> RowRange {
    let mut all: Vec<(RowKey, RowValues)> = Vec::new();
    let mut has_more = false;
    // Keys up to this one are known in every partition.
    let mut known: Option<RowKey> = None;
    for part in parts {
        let range = part.range(after, limit, TABLE_PAGE_BYTES_MAX);
        if range.has_more {
            has_more = true;
            let last = range.rows.last().map(|(key, _)| key.clone());
            known = match (known, last) {
                (Some(known), Some(last)) => Some(known.min(last)),
                (known, last) => known.or(last),
            };
        }
        all.extend(range.rows);
    }
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let is_known = |key: &RowKey| known.as_ref().is_none_or(|known| key <= known);
    let (mut count, mut bytes) = (0, 0);
    while count < limit.min(all.len()) && is_known(&all[count].0) && bytes < TABLE_PAGE_BYTES_MAX {
        bytes += all[count].1.len();
        count += 1;
    }
    has_more |= count < all.len();
    all.truncate(count);
    RowRange { rows: all, has_more }
}

impl TableReader for TableRows {
    fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        Some(Arc::clone(self.intake.stream(&name.parse().ok()?)?.stream()))
    }

    fn row(&self, table: &StreamName, key: &TableKey) -> Result<Option<RecordBatch>, HandoffError> {
        let log = self.table(table)?;
        let failed = |error: ArrowError| HandoffError(error.to_string());
        let only = partition_of_row(log, key);
        let all = (0..).map(Partition).zip(log.partitions());
        for (_, partition) in all.filter(|(partition, _)| only.is_none_or(|only| only == *partition)) {
            let Some(rows) = partition.rows() else { continue };
            if let Some(rows) = rows.find(key).map_err(failed)? {
                return declared(&rows, log.stream()).map(Some).map_err(failed);
            }
        }
        Ok(None)
    }

    fn rows(
        &self,
        table: &StreamName,
        PageSelection { after, limit }: &PageSelection,
    ) -> Result<RowPage, HandoffError> {
        let log = self.table(table)?;
        let failed = |error: ArrowError| HandoffError(error.to_string());
        let layout = layout(log)?;
        let after = after.as_ref().map(|key| layout.key(key)).transpose().map_err(failed)?;
        let RowRange { rows, has_more } = merged(&partitions(log), after.as_ref(), *limit);
        let last = rows.last().filter(|_| has_more);
        let next = last.map(|(key, _)| layout.key_text(key)).transpose().map_err(failed)?;
        let values: Vec<RowValues> = rows.into_iter().map(|(_, values)| values).collect();
        Ok(RowPage { rows: declared_rows(log, &values)?, next })
    }

    fn row_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        key: &'a TableKey,
        instant: Micros,
        budget: QueryBudget,
    ) -> BoxFuture<'a, Result<SeenRow<RecordBatch>, PastRowsError>> {
        async move {
            let log = self.table(table)?;
            let failed = |error: ArrowError| HandoffError(error.to_string());
            let bytes = layout(log)?.key(key).map_err(failed)?;
            let selection = Selection::Row { key: key.clone(), bytes, partition: partition_of_row(log, key) };
            let FoundRows { mut rows, .. } =
                past::read(log, &self.lake, &PastRequest { instant, selection, budget }).await?;
            Ok(match rows.pop().map(|(_, row)| row) {
                None | Some(SeenRow::Unknown) => SeenRow::Unknown,
                Some(SeenRow::Row(values)) => SeenRow::Row(declared_rows(log, &[values])?),
                Some(SeenRow::Deleted(at)) => SeenRow::Deleted(at),
                Some(SeenRow::NotYet(first)) => SeenRow::NotYet(first),
            })
        }
        .boxed()
    }

    fn rows_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        PageSelection { after, limit }: &'a PageSelection,
        instant: Micros,
        budget: QueryBudget,
    ) -> BoxFuture<'a, Result<RowPage, PastRowsError>> {
        async move {
            let log = self.table(table)?;
            let failed = |error: ArrowError| HandoffError(error.to_string());
            let layout = layout(log)?;
            let after = after.as_ref().map(|key| layout.key(key)).transpose().map_err(failed)?;
            let selection = Selection::Page { after, limit: *limit };
            let FoundRows { rows: found, mut has_more } =
                past::read(log, &self.lake, &PastRequest { instant, selection, budget }).await?;
            let (mut values, mut bytes, mut last) = (Vec::new(), 0, None);
            for (key, row) in found {
                if bytes >= TABLE_PAGE_BYTES_MAX {
                    has_more = true;
                    break;
                }
                if let SeenRow::Row(row) = row {
                    bytes += row.len();
                    values.push(row);
                }
                last = Some(key);
            }
            let next = last.filter(|_| has_more).map(|key| layout.key_text(&key)).transpose().map_err(failed)?;
            Ok(RowPage { rows: declared_rows(log, &values)?, next })
        }
        .boxed()
    }
}
