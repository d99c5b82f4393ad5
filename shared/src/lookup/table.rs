//! Keeps the versions of the rows of a table, from the events of its log: in the speed layer those that it knows so far, in a run those
//! before its cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast, filter, not};
use arrow::datatypes::{DataType as ArrowType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parking_lot::{RwLock, RwLockReadGuard};

use super::history::{SeenSpan, Version, VoidDeletion, position, seen_spans};
use super::index::{RowIndex, RowKey};
use super::join::{LookupError, ReadsJoins};
use super::values::{Form, NO_ROW, SeenRows, Values, grow};
use crate::handoff::{LogBatch, LogItem, LogSink, Stopped};
use crate::ids::{Offset, Partition, StreamName};
use crate::seam::Cut;
use crate::stream::Stream;

/// The tables that views and sinks are joined with.
#[derive(Debug, Clone, Default)]
pub struct Lookups(BTreeMap<StreamName, Arc<LookupTable>>);

/// The versions of the rows of one table.
#[derive(Debug)]
pub struct LookupTable {
    table: Arc<Stream>,
    /// Indexes of the columns whose values are kept, ascending. The key is among them only if versions are handed on with it: an event that
    /// sees a row has its key.
    columns: Vec<usize>,
    /// Memory that versions may take; beyond it, old ones are forgotten.
    bytes_max: usize,
    versions: RwLock<Versions>,
}

/// The versions of a table as of one moment.
pub(super) struct HeldVersions<'t> {
    table: &'t LookupTable,
    versions: RwLockReadGuard<'t, Versions>,
}

/// Some events of a table, with the columns of [`Stream::schema`].
pub struct TableEvents<'a> {
    pub partition: Partition,
    pub columns: &'a [ArrayRef],
    pub offsets: &'a dyn Fn(usize) -> u64,
    /// When each was accepted, in microseconds.
    pub accepted_at: &'a dyn Fn(usize) -> i64,
}

/// Versions that write a row, each with the event times that see it. All columns have one value for each.
#[derive(Debug)]
pub struct VersionSpans {
    pub keys: ArrayRef,
    /// The first and the last microsecond.
    pub first: Vec<i64>,
    pub last: Vec<i64>,
    /// The values of the columns that were asked for.
    pub columns: Vec<ArrayRef>,
}

/// The number of versions, and the memory that they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LookupStatus {
    pub versions: u64,
    pub bytes: u64,
    /// Versions that were forgotten because there was no room for them.
    pub forgotten: u64,
}

#[derive(Debug)]
struct Versions {
    index: RowIndex,
    values: Values,
    forgotten: u64,
    /// Changes that are not in their order yet.
    unordered: Vec<Change>,
    /// Whether to note deletions that became void.
    notes_void: bool,
    void: Vec<VoidDeletion>,
}

/// An event of a table.
#[derive(Debug, Clone, Copy)]
struct Change {
    key: RowKey,
    position: u64,
    /// The time of the row that it writes, or when the event was accepted that deletes it.
    time: i64,
    /// Number of the values that it writes; [`NO_ROW`] if it deletes the row.
    row: u32,
}

/// What some events see of a table, as far as it was asked for.
#[derive(Debug)]
pub(super) struct SeenColumns {
    /// The keys of the events.
    keys: ArrayRef,
    rows: Option<NumberedRows>,
    columns: Vec<(JoinedColumn, ArrayRef)>,
}

/// The numbers of the rows that events see.
#[derive(Debug)]
struct NumberedRows {
    rows: SeenRows,
    /// The versions that were forgotten before: the rows have other numbers once there are more.
    forgotten: u64,
}

/// A column that events are joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinedColumn {
    Key,
    /// Index into [`LookupTable::columns`].
    Value(usize, Form),
}

impl Lookups {
    /// Returns the tables among `streams` that `readers` are joined with, without versions. Those of each may take `bytes_max` bytes.
    pub fn of<'v, R: ReadsJoins + ?Sized + 'v>(
        streams: &[Arc<Stream>],
        readers: impl IntoIterator<Item = &'v R>,
        bytes_max: usize,
    ) -> Lookups {
        Lookups::keeping(streams, readers, bytes_max, false)
    }

    /// Returns the same tables as [`Lookups::of`], which keep their keys besides: see [`LookupTable::for_each_span`].
    pub fn with_keys<'v, R: ReadsJoins + ?Sized + 'v>(
        streams: &[Arc<Stream>],
        readers: impl IntoIterator<Item = &'v R>,
        bytes_max: usize,
    ) -> Lookups {
        Lookups::keeping(streams, readers, bytes_max, true)
    }

    fn keeping<'v, R: ReadsJoins + ?Sized + 'v>(
        streams: &[Arc<Stream>],
        readers: impl IntoIterator<Item = &'v R>,
        bytes_max: usize,
        keeps_keys: bool,
    ) -> Lookups {
        let mut read: BTreeMap<StreamName, BTreeSet<String>> = BTreeMap::new();
        for reader in readers {
            let columns = reader.joined_columns();
            for (number, join) in reader.joins().iter().enumerate() {
                let names = read.entry(join.table.name.clone()).or_default();
                let of_join = columns.iter().filter(|(join, _)| *join == number);
                names.extend(of_join.map(|(_, column)| join.table.columns[*column].0.clone()));
            }
        }
        let table = |(name, names): (StreamName, BTreeSet<String>)| {
            let stream = streams.iter().find(|stream| stream.name == name && stream.table.is_some())?;
            Some((name, Arc::new(LookupTable::new(stream, &names, bytes_max, keeps_keys))))
        };
        Lookups(read.into_iter().filter_map(table).collect())
    }

    /// Returns the table with this name.
    pub fn get(&self, name: &StreamName) -> Option<&Arc<LookupTable>> {
        self.0.get(name)
    }

    /// Returns whether all tables keep their keys.
    pub fn have_keys(&self) -> bool {
        self.tables().all(|table| table.columns.binary_search(&table.key()).is_ok())
    }

    /// Returns all tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<LookupTable>> {
        self.0.values()
    }
}

impl LookupTable {
    /// Keeps the columns of `table` called `names`. There are no versions yet.
    fn new(table: &Arc<Stream>, names: &BTreeSet<String>, bytes_max: usize, keeps_keys: bool) -> LookupTable {
        let mut columns: BTreeSet<usize> = names.iter().filter_map(|name| table.column(name)).collect();
        let key = table.table.map_or(0, |rows| rows.key.first());
        if keeps_keys {
            columns.insert(key);
        } else {
            columns.remove(&key);
        }
        let columns: Vec<usize> = columns.into_iter().collect();
        let versions = RwLock::new(Versions {
            index: RowIndex::new(table.columns[key].data_type),
            values: Values::new(columns.iter().map(|index| table.columns[*index].data_type).collect()),
            forgotten: 0,
            unordered: Vec::new(),
            notes_void: false,
            void: Vec::new(),
        });
        LookupTable { table: Arc::clone(table), columns, bytes_max, versions }
    }

    /// Notes what [`LookupTable::changed_since`] needs. Call it before the first event.
    pub fn noting_changes(&self) {
        self.versions.write().notes_void = true;
    }

    /// Returns the declaration.
    pub fn table(&self) -> &Arc<Stream> {
        &self.table
    }

    /// Returns the indexes of the columns whose values are kept, ascending.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Returns how many versions there are.
    pub fn status(&self) -> LookupStatus {
        let versions = self.versions.read();
        LookupStatus {
            versions: versions.index.versions() as u64,
            bytes: versions.bytes() as u64,
            forgotten: versions.forgotten,
        }
    }

    /// Adds events that follow those that it has.
    pub fn add(&self, events: &TableEvents<'_>) -> Result<(), ArrowError> {
        let mut versions = self.versions.write();
        let changes = versions.changes(&self.table, &self.columns, events)?;
        versions.apply(&changes);
        versions.fit(self.bytes_max)
    }

    /// Adds events in any order. They count once [`LookupTable::settle`] was called.
    pub fn restore(&self, events: &TableEvents<'_>) -> Result<(), ArrowError> {
        let mut versions = self.versions.write();
        let changes = versions.changes(&self.table, &self.columns, events)?;
        grow(&mut versions.unordered, changes.len());
        versions.unordered.extend(changes);
        Ok(())
    }

    /// Puts the restored events in their order. Returns their number.
    pub fn settle(&self) -> Result<u64, ArrowError> {
        let mut versions = self.versions.write();
        let mut changes = std::mem::take(&mut versions.unordered);
        changes.sort_unstable_by_key(|change| change.position);
        versions.apply(&changes);
        versions.fit(self.bytes_max)?;
        Ok(changes.len() as u64)
    }

    /// Returns the columns of the table at `index`, if views read it.
    pub(super) fn joined(&self, index: usize, form: Form) -> Option<JoinedColumn> {
        if self.table.table.is_some_and(|rows| rows.key.contains(&index)) {
            return Some(JoinedColumn::Key);
        }
        self.columns.binary_search(&index).ok().map(|at| JoinedColumn::Value(at, form))
    }

    /// Holds the versions as they are: no change is added until the result is dropped.
    pub(super) fn hold(&self) -> HeldVersions<'_> {
        HeldVersions { table: self, versions: self.versions.read() }
    }

    fn key_type(&self) -> ArrowType {
        self.table.columns[self.key()].data_type.arrow()
    }

    /// Index of the column that names a row.
    fn key(&self) -> usize {
        self.table.table.map_or(0, |rows| rows.key.first())
    }

    /// Hands all versions that write a row and that some event time sees to `each`, `rows` at a time, in no particular order, until it fails.
    /// `columns` are the wanted ones by name, which the table keeps, as it keeps the keys.
    pub fn for_each_span<E: From<ArrowError> + From<LookupError>>(
        &self,
        columns: &[&str],
        rows: usize,
        each: &mut dyn FnMut(VersionSpans) -> Result<(), E>,
    ) -> Result<(), E> {
        let place = |name: &str| {
            let missing = || LookupError::NoColumn { table: self.table.name.clone(), column: name.to_owned() };
            let kept = self.table.column(name).and_then(|index| self.columns.binary_search(&index).ok());
            kept.ok_or_else(missing)
        };
        let key = place(&self.table.columns[self.key()].name)?;
        let columns = columns.iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
        let versions = self.versions.read();
        let mut hand_on = |spans: Vec<SeenSpan>| -> Result<(), E> { each(versions.values_of(&spans, key, &columns)?) };
        let (mut waiting, mut result): (Vec<SeenSpan>, Result<(), E>) = (Vec::new(), Ok(()));
        versions.index.for_each_row(&mut |_, history| {
            if result.is_err() {
                return;
            }
            waiting.extend(seen_spans(history));
            while result.is_ok() && waiting.len() >= rows {
                let rest = waiting.split_off(rows);
                result = hand_on(std::mem::replace(&mut waiting, rest));
            }
        });
        result?;
        if waiting.is_empty() { Ok(()) } else { hand_on(waiting) }
    }

    /// Returns the spans of event time, half-open, in order and apart, in which events may see another version than they did before the
    /// changes since `cut`.
    pub fn changed_since(&self, cut: &Cut) -> Vec<(i64, i64)> {
        let mut starts: BTreeMap<u32, u64> = BTreeMap::new();
        let versions = self.versions.read();
        for (partition, point) in &cut.0 {
            starts.insert(partition.0, position(partition.0, point.offset.0));
        }
        let is_new = |place: u64| {
            let partition = (place >> position(1, 0).trailing_zeros()) as u32;
            starts.get(&partition).is_none_or(|from| place >= *from)
        };
        let mut spans = Vec::new();
        versions.index.for_each_row(&mut |_, history| {
            for (at, version) in history.iter().enumerate().filter(|(_, version)| is_new(version.position)) {
                spans.push((version.time, history.get(at + 1).map_or(i64::MAX, |next| next.time)));
            }
        });
        let void = versions.void.iter().filter(|void| !is_new(void.deleted) && is_new(void.written));
        spans.extend(void.map(|void| (void.time, i64::MAX)));
        united(spans)
    }
}

impl HeldVersions<'_> {
    /// Returns the values that events with these times see, NULL where they see no row. `seen` has those that were asked for before, which
    /// stay as they were.
    pub(super) fn look_up(
        &self,
        seen: &mut SeenColumns,
        times: &[i64],
        wanted: &[JoinedColumn],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let HeldVersions { table, versions } = self;
        let SeenColumns { keys, rows, columns } = seen;
        let is_known = |wanted: &JoinedColumn| columns.iter().any(|(column, _)| column == wanted);
        if !wanted.iter().all(is_known) {
            let rows = match rows.take().filter(|rows| rows.forgotten == versions.forgotten) {
                Some(known) => rows.insert(known),
                None => {
                    columns.clear();
                    let seen = versions.index.as_of(&versions.index.keys_of(keys)?, times);
                    rows.insert(NumberedRows { rows: SeenRows::new(seen), forgotten: versions.forgotten })
                }
            };
            for wanted in wanted {
                if columns.iter().all(|(column, _)| column != wanted) {
                    let values = match *wanted {
                        JoinedColumn::Value(column, form) => versions.values.gather(&rows.rows, column, form)?,
                        JoinedColumn::Key => rows.rows.mask(&cast(keys, &table.key_type())?)?,
                    };
                    columns.push((*wanted, values));
                }
            }
        }
        let value = |wanted: &JoinedColumn| columns.iter().find(|(column, _)| column == wanted);
        Ok(wanted.iter().filter_map(value).map(|(_, values)| ArrayRef::clone(values)).collect())
    }
}

/// Returns spans that cover the same times, in order and apart.
fn united(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.retain(|(from, to)| from < to);
    spans.sort_unstable();
    let mut united: Vec<(i64, i64)> = Vec::new();
    for (from, to) in spans {
        match united.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => united.push((from, to)),
        }
    }
    united
}

impl SeenColumns {
    /// Returns what the events with these keys see: nothing was asked for yet.
    pub fn new(keys: &ArrayRef) -> SeenColumns {
        SeenColumns { keys: ArrayRef::clone(keys), rows: None, columns: Vec::new() }
    }

    /// Returns whether `keys` are the same column.
    pub fn has_keys(&self, keys: &ArrayRef) -> bool {
        Arc::ptr_eq(&self.keys, keys)
    }
}

impl Versions {
    fn bytes(&self) -> usize {
        self.values.bytes() + self.index.bytes() + self.unordered.capacity() * size_of::<Change>()
    }

    /// Returns versions with their values in the column of the keys and in others.
    fn values_of(&self, spans: &[SeenSpan], key: usize, columns: &[usize]) -> Result<VersionSpans, ArrowError> {
        let rows = SeenRows::new(spans.iter().map(|span| span.row).collect());
        let gather = |column: usize| self.values.gather(&rows, column, Form::Plain);
        Ok(VersionSpans {
            keys: gather(key)?,
            first: spans.iter().map(|span| span.first).collect(),
            last: spans.iter().map(|span| span.last).collect(),
            columns: columns.iter().map(|column| gather(*column)).collect::<Result<_, _>>()?,
        })
    }

    /// Keeps the keys and the values of events, and returns the changes that they are.
    fn changes(
        &mut self,
        table: &Stream,
        columns: &[usize],
        events: &TableEvents<'_>,
    ) -> Result<Vec<Change>, ArrowError> {
        let (Some(rows), Some(retracted)) = (table.table, table.retracted()) else { return Ok(Vec::new()) };
        let keys = self.index.keys_of(&events.columns[rows.key.first()])?;
        let retracts = events.columns[retracted].as_boolean();
        let retracts: BooleanArray = retracts.iter().map(|retracts| Some(retracts == Some(true))).collect();
        let written = not(&retracts)?;
        let kept = columns.iter().map(|index| filter(&events.columns[*index], &written));
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        let mut next = self.values.len();
        self.values.add(written.true_count(), &kept);
        let times = events.columns[table.event_time].as_primitive::<TimestampMicrosecondType>();
        let change = |index: usize| {
            let key = keys.key(index);
            let position = position(events.partition.0, (events.offsets)(index));
            if retracts.value(index) {
                return Change { key, position, time: (events.accepted_at)(index), row: NO_ROW };
            }
            next += 1;
            Change { key, position, time: times.value(index), row: next - 1 }
        };
        Ok((0..keys.len()).map(change).collect())
    }

    /// Adds changes in their order.
    fn apply(&mut self, changes: &[Change]) {
        for Change { key, position, time, row } in changes.iter().copied() {
            if row == NO_ROW {
                self.index.delete(key, time, position);
            } else {
                let void = self.index.write(key, Version { time, position, row });
                self.void.extend(void.filter(|_| self.notes_void));
            }
        }
    }

    /// Forgets versions if all take more than `bytes_max`: first those that a later one of their row supersedes, of these the oldest.
    fn fit(&mut self, bytes_max: usize) -> Result<(), ArrowError> {
        while self.bytes() > bytes_max && self.index.versions() > 0 {
            self.forget(bytes_max)?;
        }
        Ok(())
    }

    fn forget(&mut self, bytes_max: usize) -> Result<(), ArrowError> {
        // I9: some at once, so that not every change has to.
        let (bytes, target) = (self.bytes(), bytes_max / 4 * 3);
        let versions = self.index.versions();
        let forgotten = versions - (versions as u128 * target as u128 / bytes as u128) as usize;
        let mut places = Vec::with_capacity(versions);
        let place = |is_last: bool, version: &Version| (is_last, version.time, version.position);
        self.index.for_each_row(&mut |_, history| {
            let of_row = history.iter().enumerate();
            places.extend(of_row.map(|(at, version)| place(at + 1 == history.len(), version)));
        });
        places.sort_unstable();
        let first_kept = places.get(forgotten).copied();
        let keeps = |is_last: bool, version: &Version| first_kept.is_some_and(|kept| place(is_last, version) >= kept);
        let rows = self.index.retain(&keeps);
        self.values.retain(rows)?;
        self.forgotten += forgotten as u64;
        tracing::warn!(
            forgotten,
            bytes,
            bytes_max,
            "versions of the rows of a table are forgotten (lookup_bytes_max): live figures of earlier events may see no row"
        );
        Ok(())
    }
}

/// Follows the log of its table. A change counts before it is acknowledged.
impl LogSink for LookupTable {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        let LogItem::Batch(batch) = item else { return Ok(()) };
        if let Err(error) = self.add_batch(&batch) {
            // Its columns are those of the table, so this is a bug; the next run has the change all the same.
            tracing::error!(table = %self.table.name, %error, "cannot keep the versions of a change of a table");
        }
        Ok(())
    }
}

impl LookupTable {
    /// Adds a batch of the table's log that follows those that it has.
    pub fn add_batch(&self, batch: &LogBatch) -> Result<(), ArrowError> {
        self.with_batch(batch, &|events| self.add(events))
    }

    /// Adds a batch of the table's log in any order: see [`LookupTable::restore`].
    pub fn restore_batch(&self, batch: &LogBatch) -> Result<(), ArrowError> {
        self.with_batch(batch, &|events| self.restore(events))
    }

    fn with_batch(
        &self,
        batch: &LogBatch,
        add: &dyn Fn(&TableEvents<'_>) -> Result<(), ArrowError>,
    ) -> Result<(), ArrowError> {
        let Offset(first) = batch.first_offset;
        add(&TableEvents {
            partition: batch.partition,
            columns: batch.rows.columns(),
            offsets: &|row| first + row as u64,
            accepted_at: &|_| batch.arrived_at.0,
        })
    }
}
