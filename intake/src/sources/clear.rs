//! Writes the deletions of all rows of a table, in parts: for a TRUNCATE, and for a snapshot that starts.

use arrow::array::ArrayRef;
use kafka::TopicRecord;
use shared::ids::Partition;
use shared::limits::TABLE_PAGE_BYTES_MAX;
use shared::table_key::TableKey;

use super::error::SourceError;
use crate::partition::RowValues;
use crate::streams::StreamLog;

/// Rows that are deleted together.
const CLEARED_ROWS: usize = 5_000;

/// The deletions of the first rows of a partition, as records without a value; none if it has no rows. `offset_of` gives the offset of each
/// by its number.
pub(super) fn deletions(
    log: &StreamLog,
    partition: u32,
    offset_of: impl Fn(i64) -> i64,
) -> Result<Vec<TopicRecord>, SourceError> {
    let rows = log.partition(Partition(partition)).and_then(|log| log.rows());
    let (Some(table), Some(rows)) = (log.stream().table, rows) else { return Ok(Vec::new()) };
    let page = rows.range(None, CLEARED_ROWS, TABLE_PAGE_BYTES_MAX).rows;
    let values: Vec<RowValues> = page.into_iter().map(|(_, values)| values).collect();
    let batch = rows.batch(&values).map_err(|error| SourceError::Decode(error.to_string()))?;
    let deletion = |(number, key): (i64, Vec<u8>)| TopicRecord {
        partition,
        offset: offset_of(number),
        timestamp_ms: 0,
        key: Some(key.into()),
        value: None,
        headers: Vec::new(),
    };
    let keys: Vec<ArrayRef> = table.key.iter().map(|index| batch.column(*index).clone()).collect();
    let keys = (0..batch.num_rows()).map(|row| TableKey::at(&keys, row).json());
    Ok((0..).zip(keys).map(deletion).collect())
}
