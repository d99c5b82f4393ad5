//! Writes the deletions of all rows of a table, in parts or all of them: for a TRUNCATE, and for a snapshot that starts.

use arrow::array::ArrayRef;
use kafka::TopicRecord;
use shared::ids::Partition;
use shared::limits::TABLE_PAGE_BYTES_MAX;
use shared::table_key::TableKey;

use super::error::SourceError;
use crate::partition::{RowKey, RowRange, RowValues};
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
    Ok(page(log, partition, None, &offset_of)?.0)
}

/// The deletions of all rows of a partition, likewise.
///
/// # Errors
/// [`SourceError::TransactionTooLarge`] if they take more than `bytes_max` bytes.
pub(super) fn all_deletions(
    log: &StreamLog,
    partition: u32,
    offset_of: impl Fn(i64) -> i64,
    bytes_max: usize,
) -> Result<Vec<TopicRecord>, SourceError> {
    let (mut all, mut bytes): (Vec<TopicRecord>, usize) = (Vec::new(), 0);
    let mut after = None;
    loop {
        let first = all.len() as i64;
        let (deletions, next) = page(log, partition, after.as_ref(), &|number| offset_of(first + number))?;
        bytes += deletions.iter().map(held_bytes).sum::<usize>();
        // I9: what takes more cannot become visible together.
        if bytes > bytes_max {
            return Err(SourceError::TransactionTooLarge);
        }
        all.extend(deletions);
        after = next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Memory of a record that waits for others.
pub(super) fn held_bytes(record: &TopicRecord) -> usize {
    size_of::<TopicRecord>() + record.bytes()
}

/// The deletions of the rows behind the key `after`, and the last key of these if more rows are behind it.
fn page(
    log: &StreamLog,
    partition: u32,
    after: Option<&RowKey>,
    offset_of: &dyn Fn(i64) -> i64,
) -> Result<(Vec<TopicRecord>, Option<RowKey>), SourceError> {
    let rows = log.partition(Partition(partition)).and_then(|log| log.rows());
    let (Some(table), Some(rows)) = (log.stream().table, rows) else { return Ok((Vec::new(), None)) };
    let RowRange { rows: page, has_more } = rows.range(after, CLEARED_ROWS, TABLE_PAGE_BYTES_MAX);
    let next = page.last().filter(|_| has_more).map(|(key, _)| key.clone());
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
    Ok(((0..).zip(keys).map(deletion).collect(), next))
}
