//! Keeps the current rows of a table's partition, and turns changes into events that retract and assert rows.
//!
//! The rows are a pure function of the log: those that its events assert and do not retract. So every retraction is of exactly the
//! row that was asserted before, whatever a change says about it: a change that comes twice, without the row before it, or with
//! another one, cannot spoil a figure. A change that changes nothing has no events.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use parking_lot::{Mutex, RwLock};
use shared::control::RowsStatus;
use shared::limits::SUBMISSION_BYTES_MAX;
use shared::stream::{KeyColumns, Stream};
use shared::table_key::TableKey;

use super::submission::SubmitError;
use crate::decode::KeptValues;

/// Bytes of memory that a row takes beside those of its key and its values.
pub const ROW_OVERHEAD_BYTES: usize = 96;

/// The key of a row; keys sort like their values.
pub type RowKey = Box<[u8]>;
/// The values of a row.
pub type RowValues = Arc<[u8]>;

/// The rows of a partition that are durable.
pub struct CurrentRows {
    layout: RowLayout,
    rows: RwLock<StoredRows>,
    /// The last event of each key that was read again at the start.
    restored: Mutex<BTreeMap<RowKey, LastEvent>>,
}

#[derive(Default)]
struct StoredRows {
    by_key: BTreeMap<RowKey, RowValues>,
    bytes: usize,
}

/// The last event of a key: its offset, and the row that it asserts.
struct LastEvent {
    offset: i64,
    asserts: Option<RowValues>,
}

/// An event that asserts or retracts a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowEvent<'e> {
    /// Its index among the events that are read together.
    pub index: usize,
    /// As in [`RowKey`].
    pub key: &'e [u8],
    /// As in [`RowValues`].
    pub row: &'e [u8],
    pub retracts: bool,
}

/// How rows are held as bytes.
struct RowLayout {
    stream: Arc<Stream>,
    key: KeyColumns,
    retracted: usize,
    /// The columns that make up a row, in their order.
    columns: Vec<usize>,
    keys: RowConverter,
    values: RowConverter,
}

/// Some rows, in the order of their keys.
#[derive(Debug, Clone)]
pub struct RowRange {
    /// With the key of each.
    pub rows: Vec<(RowKey, RowValues)>,
    /// Whether rows behind them were left for the next range.
    pub has_more: bool,
}

impl RowLayout {
    /// The layout of the rows of `stream`; `None` if it is not a table.
    fn new(stream: &Arc<Stream>) -> Result<Option<RowLayout>, ArrowError> {
        let (Some(table), Some(retracted)) = (stream.table, stream.retracted()) else { return Ok(None) };
        let added = [Some(retracted), stream.source_offset()];
        let columns: Vec<usize> = (0..stream.columns.len()).filter(|index| !added.contains(&Some(*index))).collect();
        let field = |index: &usize| SortField::new(stream.columns[*index].data_type.arrow());
        Ok(Some(RowLayout {
            stream: Arc::clone(stream),
            key: table.key,
            retracted,
            keys: RowConverter::new(table.key.iter().map(field).collect())?,
            values: RowConverter::new(columns.iter().map(field).collect())?,
            columns,
        }))
    }

    /// The columns that make up rows.
    fn of_rows(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.columns.iter().map(|index| Arc::clone(&columns[*index])).collect()
    }

    /// The columns of the key.
    fn of_keys(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.key.iter().map(|index| Arc::clone(&columns[*index])).collect()
    }

    /// The columns of [`Stream::schema`] of rows; other columns are null.
    fn decode<'r>(&self, rows: impl ExactSizeIterator<Item = &'r [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let count = rows.len();
        let parser = self.values.parser();
        let decoded = self.values.convert_rows(rows.map(|row| parser.parse(row)))?;
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.stream.columns.len()];
        for (index, column) in self.columns.iter().zip(decoded) {
            columns[*index] = Some(column);
        }
        let or_null = |(index, column): (usize, Option<ArrayRef>)| {
            column.unwrap_or_else(|| new_null_array(&self.stream.columns[index].data_type.arrow(), count))
        };
        Ok(columns.into_iter().enumerate().map(or_null).collect())
    }
}

fn row_bytes(key: &[u8], values: &[u8]) -> usize {
    key.len() + values.len() + ROW_OVERHEAD_BYTES
}

impl StoredRows {
    fn set(&mut self, key: RowKey, values: Option<RowValues>) {
        if let Some(values) = &values {
            self.bytes += row_bytes(&key, values);
        }
        let before = match values {
            Some(values) => self.by_key.insert(key.clone(), values),
            None => self.by_key.remove(&key),
        };
        self.bytes -= before.map_or(0, |before| row_bytes(&key, &before));
    }
}

impl CurrentRows {
    /// The rows of a partition of `stream`, none yet; `None` if it is not a table.
    pub(crate) fn new(stream: &Arc<Stream>) -> Result<Option<CurrentRows>, ArrowError> {
        let layout = RowLayout::new(stream)?;
        Ok(layout.map(|layout| CurrentRows { layout, rows: RwLock::default(), restored: Mutex::default() }))
    }

    /// Notes events that are stored already, with the columns of [`Stream::schema`], in any order. They count once
    /// [`CurrentRows::settle`] was called.
    pub(crate) fn restore(&self, columns: &[ArrayRef], offset: impl Fn(usize) -> i64) -> Result<(), ArrowError> {
        let mut restored = self.restored.lock();
        self.each_event(columns, &mut |RowEvent { index, key, row, retracts }| {
            let offset = offset(index);
            let last = restored.get(key);
            if last.is_none_or(|last| last.offset < offset) {
                let asserts = (!retracts).then(|| RowValues::from(row));
                restored.insert(key.into(), LastEvent { offset, asserts });
            }
        })
    }

    /// Calls `each` with events, which have the columns of [`Stream::schema`].
    pub(crate) fn each_event(
        &self,
        columns: &[ArrayRef],
        each: &mut dyn FnMut(RowEvent<'_>),
    ) -> Result<(), ArrowError> {
        let RowLayout { retracted, keys, values, .. } = &self.layout;
        let keys = keys.convert_columns(&self.layout.of_keys(columns))?;
        let rows = values.convert_columns(&self.layout.of_rows(columns))?;
        let is_retraction = columns[*retracted].as_boolean();
        for (index, (key, row)) in keys.iter().zip(rows.iter()).enumerate() {
            let retracts = is_retraction.is_valid(index) && is_retraction.value(index);
            each(RowEvent { index, key: key.as_ref(), row: row.as_ref(), retracts });
        }
        Ok(())
    }

    /// Ends the restoration: the keys whose last event asserts a row have it.
    pub(crate) fn settle(&self) {
        let restored = std::mem::take(&mut *self.restored.lock());
        let mut rows = self.rows.write();
        for (key, LastEvent { asserts, .. }) in restored {
            rows.set(key, asserts);
        }
    }

    /// The number of rows, and the memory that they take.
    pub fn status(&self) -> RowsStatus {
        let rows = self.rows.read();
        RowsStatus { count: rows.by_key.len() as u64, bytes: rows.bytes as u64 }
    }

    /// The row with this key, with the columns of [`Stream::schema`].
    pub fn find(&self, key: &TableKey) -> Result<Option<RecordBatch>, ArrowError> {
        let key = self.key(key)?;
        let found = self.rows.read().by_key.get(&key).cloned();
        found.map(|values| self.batch(&[values])).transpose()
    }

    /// The bytes of a key.
    pub fn key(&self, key: &TableKey) -> Result<RowKey, ArrowError> {
        let RowLayout { stream, key: columns, keys, .. } = &self.layout;
        let values = columns.iter().zip(key.values());
        let values: Vec<ArrayRef> =
            values.map(|(index, value)| value.column(stream.columns[*index].data_type)).collect();
        Ok(keys.convert_columns(&values)?.row(0).as_ref().into())
    }

    /// A key as text, as paths and parameters have it.
    pub fn key_text(&self, key: &RowKey) -> Result<String, ArrowError> {
        let keys = &self.layout.keys;
        Ok(TableKey::at(&keys.convert_rows([keys.parser().parse(key)])?, 0).to_string())
    }

    /// Rows behind the key `after`: at most `rows_max`, and no more than the first that reaches `bytes_max`.
    pub fn range(&self, after: Option<&RowKey>, rows_max: usize, bytes_max: usize) -> RowRange {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let rows = self.rows.read();
        let mut behind = rows.by_key.range((start, Bound::Unbounded));
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < rows_max && bytes < bytes_max {
            let Some((key, values)) = behind.next() else { return RowRange { rows: found, has_more: false } };
            bytes += key.len() + values.len();
            found.push((key.clone(), Arc::clone(values)));
        }
        RowRange { rows: found, has_more: behind.next().is_some() }
    }

    /// The rows with the columns of [`Stream::schema`].
    pub fn batch(&self, rows: &[RowValues]) -> Result<RecordBatch, ArrowError> {
        let columns = self.layout.decode(rows.iter().map(AsRef::as_ref))?;
        RecordBatch::try_new(self.layout.stream.schema(), columns)
    }
}

/// The part of a partition's writer that applies changes to the rows.
pub(crate) struct RowChanges {
    current: Arc<CurrentRows>,
    /// What changes that are not durable yet make of rows; `None`: deleted.
    pending: BTreeMap<RowKey, Option<RowValues>>,
    /// Bytes by which they change the size of the rows.
    pending_bytes: i64,
    bytes_max: usize,
}

/// The events of some changes.
#[derive(Debug)]
pub(crate) struct AppliedChanges {
    /// With the columns of [`Stream::schema`].
    pub events: RecordBatch,
    /// Changes that changed a row.
    pub effective: u64,
    /// Changes that changed nothing.
    pub unchanged: u64,
}

impl RowChanges {
    pub fn new(current: CurrentRows, bytes_max: usize) -> RowChanges {
        RowChanges { current: Arc::new(current), pending: BTreeMap::new(), pending_bytes: 0, bytes_max }
    }

    /// The rows over durable events.
    pub fn current(&self) -> &Arc<CurrentRows> {
        &self.current
    }

    /// Applies changes, rows with the columns of [`Stream::schema`], in their order. The inner error refuses all of them.
    pub fn apply(
        &mut self,
        rows: &RecordBatch,
        kept: &[KeptValues],
    ) -> Result<Result<AppliedChanges, SubmitError>, ArrowError> {
        let current = Arc::clone(&self.current);
        let layout = &current.layout;
        let stored = current.rows.read();
        let keys = layout.keys.convert_columns(&layout.of_keys(rows.columns()))?;
        let values = layout.values.convert_columns(&layout.of_rows(rows.columns()))?;
        let deletes = rows.column(layout.retracted).as_boolean();
        let mut kept = kept.iter().peekable();
        let mut local: BTreeMap<RowKey, Option<RowValues>> = BTreeMap::new();
        let mut events = Events::default();
        let (mut local_bytes, mut unchanged) = (0_i64, 0);
        // The row before the previous change.
        let mut previous: Option<RowValues> = None;
        for index in 0..rows.num_rows() {
            let key = keys.row(index);
            let key: &[u8] = key.as_ref();
            let known = local.get(key).or_else(|| self.pending.get(key));
            let before = known.map_or_else(|| stored.by_key.get(key).cloned(), Clone::clone);
            let keeps = kept.next_if(|kept| kept.row == index);
            let after: Option<RowValues> = match keeps {
                _ if deletes.value(index) => None,
                None => Some(values.row(index).as_ref().into()),
                Some(kept) => {
                    let renamed = previous.as_ref().filter(|_| kept.is_renamed);
                    Some(merged(layout, rows, kept, renamed.or(before.as_ref()))?)
                }
            };
            previous.clone_from(&before);
            if before == after {
                unchanged += 1;
                continue;
            }
            let bytes = |values: &Option<RowValues>| values.as_ref().map_or(0, |v| row_bytes(key, v)) as i64;
            local_bytes += bytes(&after) - bytes(&before);
            events.changes += 1;
            events.add(index, before.as_ref(), true);
            events.add(index, after.as_ref(), false);
            local.insert(key.into(), after);
        }
        // I9: the rows that are there can still be changed and deleted.
        let bytes = stored.bytes as i64 + self.pending_bytes + local_bytes;
        drop(stored);
        if local_bytes > 0 && bytes > self.bytes_max as i64 {
            return Ok(Err(SubmitError::TableFull { max: self.bytes_max }));
        }
        if events.bytes > SUBMISSION_BYTES_MAX {
            return Ok(Err(SubmitError::TooLarge { bytes: events.bytes, max: SUBMISSION_BYTES_MAX }));
        }
        let effective = events.changes;
        let events = events.batch(layout, rows)?;
        self.pending.extend(local);
        self.pending_bytes += local_bytes;
        Ok(Ok(AppliedChanges { events, effective, unchanged }))
    }

    /// Keeps the changes of the group: they are durable.
    pub fn commit(&mut self) {
        self.pending_bytes = 0;
        if self.pending.is_empty() {
            return;
        }
        let mut rows = self.current.rows.write();
        for (key, values) in std::mem::take(&mut self.pending) {
            rows.set(key, values);
        }
    }

    /// Reverts the changes of the group.
    pub fn rollback(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }
}

/// The row at the index of `kept`, with the values that it keeps of the row before it; NULL where there is none.
fn merged(
    layout: &RowLayout,
    rows: &RecordBatch,
    kept: &KeptValues,
    before: Option<&RowValues>,
) -> Result<RowValues, ArrowError> {
    let mut columns: Vec<ArrayRef> = rows.columns().iter().map(|column| column.slice(kept.row, 1)).collect();
    let before = before.map(|before| layout.decode([&**before].into_iter())).transpose()?;
    for index in &kept.columns {
        columns[*index] = match &before {
            Some(before) => Arc::clone(&before[*index]),
            None => new_null_array(columns[*index].data_type(), 1),
        };
    }
    Ok(layout.values.convert_columns(&layout.of_rows(&columns))?.row(0).as_ref().into())
}

/// Events while they are collected.
#[derive(Default)]
struct Events {
    rows: Vec<RowValues>,
    retracts: Vec<bool>,
    /// Index of the change of each.
    changes_of: Vec<u32>,
    changes: u64,
    bytes: usize,
}

impl Events {
    fn add(&mut self, index: usize, row: Option<&RowValues>, retracts: bool) {
        let Some(row) = row else { return };
        self.bytes += row.len();
        self.rows.push(Arc::clone(row));
        self.retracts.push(retracts);
        self.changes_of.push(index as u32);
    }

    fn batch(self, layout: &RowLayout, changes: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = layout.decode(self.rows.iter().map(AsRef::as_ref))?;
        columns[layout.retracted] = Arc::new(BooleanArray::from(self.retracts));
        if let Some(index) = layout.stream.source_offset() {
            columns[index] = take(changes.column(index), &UInt32Array::from(self.changes_of), None)?;
        }
        RecordBatch::try_new(layout.stream.schema(), columns)
    }
}
