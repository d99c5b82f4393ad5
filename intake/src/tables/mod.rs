//! Reads the current rows of tables, which the partitions' writers keep ([`crate::partition`]), and restores them at a start from the
//! archive ([`restore`]), and their versions for views that are joined with tables ([`versions`]). Nothing here changes a row.

pub mod restore;
pub mod versions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use shared::entity::EntityId;
use shared::handoff::HandoffError;
use shared::ids::StreamName;
use shared::limits::TABLE_PAGE_BYTES_MAX;
use shared::stream::Stream;
use shared::table_reader::{RowPage, TableReader};

use crate::event_id::hash_entity;
use crate::partition::{CurrentRows, RowKey, RowRange, RowValues};
use crate::streams::{Intake, StreamLog};
use crate::submit::partition_of;

/// The rows of all tables.
pub struct TableRows(Arc<Intake>);

impl TableRows {
    /// Reads the rows that the logs of `intake` keep.
    pub fn new(intake: Arc<Intake>) -> TableRows {
        TableRows(intake)
    }

    fn table(&self, name: &StreamName) -> Result<&Arc<StreamLog>, HandoffError> {
        let log = self.0.stream(name).filter(|log| log.stream().table.is_some());
        log.ok_or_else(|| HandoffError(format!("there is no table {name}")))
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
        Some(Arc::clone(self.0.stream(&name.parse().ok()?)?.stream()))
    }

    fn row(&self, table: &StreamName, key: &EntityId) -> Result<Option<RecordBatch>, HandoffError> {
        let log = self.table(table)?;
        let failed = |error: ArrowError| HandoffError(error.to_string());
        if log.stream().topic().is_none() {
            let partition = partition_of(hash_entity(key), log.stream().partitions);
            let Some(rows) = log.partition(partition).and_then(|partition| partition.rows()) else { return Ok(None) };
            let found = rows.find(key).map_err(failed)?;
            return found.map(|rows| declared(&rows, log.stream())).transpose().map_err(failed);
        }
        // Where a topic has a key, its producer decides.
        for rows in partitions(log) {
            if let Some(rows) = rows.find(key).map_err(failed)? {
                return declared(&rows, log.stream()).map(Some).map_err(failed);
            }
        }
        Ok(None)
    }

    fn rows(&self, table: &StreamName, after: Option<&EntityId>, limit: usize) -> Result<RowPage, HandoffError> {
        let log = self.table(table)?;
        let failed = |error: ArrowError| HandoffError(error.to_string());
        let parts = partitions(log);
        let Some(any) = parts.first() else { return Err(HandoffError(format!("table {table} has no partitions"))) };
        let after = after.map(|key| any.key(key)).transpose().map_err(failed)?;
        let RowRange { rows, has_more } = merged(&parts, after.as_ref(), limit);
        let values: Vec<RowValues> = rows.into_iter().map(|(_, values)| values).collect();
        let rows = any.batch(&values).and_then(|rows| declared(&rows, log.stream())).map_err(failed)?;
        Ok(RowPage { rows, has_more })
    }
}
