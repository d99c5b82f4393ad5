//! Finds the versions of rows by the keys of the rows.
//!
//! The newest version of a row is in the [table of keys](super::key_table) itself, because most events see it: such an event reads one line
//! of memory. Keys in random order miss the caches of the processor, so the lines of some keys at a time are touched before the first is
//! read: their accesses to memory do not wait for each other. A row with several versions, or one that is deleted, has a [`History`] besides.
//!
//! Values are elsewhere: a version has the number of its row.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::hint::black_box;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Int64Type};
use arrow::error::ArrowError;
use smallvec::smallvec;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::history::{History, Version, VoidDeletion};
use super::key_table::{Key, KeyTable, NO_HISTORY, Newest, NumberTable, TextTable};
use super::values::{NO_ROW, grow};
use crate::types::DataType;

/// Keys that are found at a time: their lines stay in the cache.
const STAGE_KEYS: usize = 256;

/// The rows of a table by key.
#[derive(Debug)]
pub(super) struct RowIndex {
    newest: NewestRows,
    /// Of the rows that have not exactly one version, or whose last version is a deletion.
    histories: Vec<History>,
    /// Places of the changes that wrote the rows, by number.
    positions: Vec<u64>,
    /// Memory of the histories, beside `histories` itself.
    history_bytes: usize,
    versions: usize,
}

/// The newest versions, by the keys of their rows.
#[derive(Debug)]
enum NewestRows {
    Numbers(NumberTable),
    Texts {
        table: TextTable,
        /// Of the hashes: without it, texts with the same hash cannot be chosen.
        seed: u64,
    },
}

/// The key of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKey {
    Number(i64),
    /// 96 bits of its hash.
    Text([u32; 3]),
}

/// The keys of a batch. That of NULL means nothing.
#[derive(Debug)]
pub(super) struct BatchRowKeys {
    keys: KeyColumn,
    nulls: Option<NullBuffer>,
}

#[derive(Debug)]
enum KeyColumn {
    /// The column of the events, not copied.
    Numbers(ScalarBuffer<i64>),
    Texts(Vec<[u32; 3]>),
}

impl BatchRowKeys {
    /// Returns the key of a row.
    pub fn key(&self, row: usize) -> RowKey {
        match &self.keys {
            KeyColumn::Numbers(keys) => RowKey::Number(keys[row]),
            KeyColumn::Texts(keys) => RowKey::Text(keys[row]),
        }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        match &self.keys {
            KeyColumn::Numbers(keys) => keys.len(),
            KeyColumn::Texts(keys) => keys.len(),
        }
    }
}

impl NewestRows {
    /// Returns no rows, with keys of the same kind.
    fn emptied(&self) -> NewestRows {
        match self {
            NewestRows::Numbers(_) => NewestRows::Numbers(KeyTable::new()),
            NewestRows::Texts { seed, .. } => NewestRows::Texts { table: KeyTable::new(), seed: *seed },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            NewestRows::Numbers(table) => table.bytes(),
            NewestRows::Texts { table, .. } => table.bytes(),
        }
    }

    fn for_each(&self, each: &mut dyn FnMut(RowKey, Newest)) {
        match self {
            NewestRows::Numbers(table) => table.iter().for_each(|(key, newest)| each(RowKey::Number(key), newest)),
            NewestRows::Texts { table, .. } => table.iter().for_each(|(key, newest)| each(RowKey::Text(key), newest)),
        }
    }

    /// Returns the place of the row with a key; `None`: there was none, and `newest` is added. Keys are those of the column of keys.
    fn find_or_add(&mut self, key: RowKey, newest: Newest) -> Option<usize> {
        match (self, key) {
            (NewestRows::Numbers(table), RowKey::Number(key)) => table.find_or_add(key, newest),
            (NewestRows::Texts { table, .. }, RowKey::Text(key)) => table.find_or_add(key, newest),
            (NewestRows::Numbers(_), RowKey::Text(_)) | (NewestRows::Texts { .. }, RowKey::Number(_)) => None,
        }
    }

    fn find(&self, key: RowKey) -> Option<usize> {
        match (self, key) {
            (NewestRows::Numbers(table), RowKey::Number(key)) => table.find(key),
            (NewestRows::Texts { table, .. }, RowKey::Text(key)) => table.find(key),
            (NewestRows::Numbers(_), RowKey::Text(_)) | (NewestRows::Texts { .. }, RowKey::Number(_)) => None,
        }
    }

    fn newest(&self, place: usize) -> Newest {
        match self {
            NewestRows::Numbers(table) => table.newest(place),
            NewestRows::Texts { table, .. } => table.newest(place),
        }
    }

    fn set(&mut self, place: usize, newest: Newest) {
        match self {
            NewestRows::Numbers(table) => table.set(place, newest),
            NewestRows::Texts { table, .. } => table.set(place, newest),
        }
    }
}

impl RowIndex {
    /// Returns no rows, with keys of this type: STRING, INT or BIGINT.
    pub fn new(key: DataType) -> RowIndex {
        RowIndex::empty(match key {
            DataType::String => {
                NewestRows::Texts { table: KeyTable::new(), seed: RandomState::new().build_hasher().finish() }
            }
            _ => NewestRows::Numbers(KeyTable::new()),
        })
    }

    fn empty(newest: NewestRows) -> RowIndex {
        RowIndex { newest, histories: Vec::new(), positions: Vec::new(), history_bytes: 0, versions: 0 }
    }

    /// Number of versions.
    pub fn versions(&self) -> usize {
        self.versions
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.newest.bytes()
            + self.positions.capacity() * size_of::<u64>()
            + self.histories.capacity() * size_of::<History>()
            + self.history_bytes
    }

    /// Returns the keys in `column`. A value that no key can have is NULL.
    pub fn keys_of(&self, column: &ArrayRef) -> Result<BatchRowKeys, ArrowError> {
        let read_as = match self.newest {
            NewestRows::Numbers(_) => ArrowType::Int64,
            NewestRows::Texts { .. } => ArrowType::Utf8View,
        };
        let column = if *column.data_type() == read_as { column.clone() } else { cast(column, &read_as)? };
        let keys = match &self.newest {
            NewestRows::Numbers(_) => KeyColumn::Numbers(column.as_primitive::<Int64Type>().values().clone()),
            NewestRows::Texts { seed, .. } => {
                let texts = column.as_string_view();
                let hash = |row| {
                    let hash = xxh3_128_with_seed(texts.value(row).as_bytes(), *seed);
                    [hash as u32, (hash >> 32) as u32, (hash >> 64) as u32]
                };
                KeyColumn::Texts((0..texts.len()).map(hash).collect())
            }
        };
        Ok(BatchRowKeys { keys, nulls: column.nulls().cloned() })
    }

    /// Returns the number of the row that an event with each key and time sees, or [`NO_ROW`].
    pub fn as_of(&self, BatchRowKeys { keys, nulls }: &BatchRowKeys, times: &[i64]) -> Vec<u32> {
        let mut rows = match (&self.newest, keys) {
            (NewestRows::Numbers(table), KeyColumn::Numbers(keys)) => self.seen_in(table, keys, times),
            (NewestRows::Texts { table, .. }, KeyColumn::Texts(keys)) => self.seen_in(table, keys, times),
            // Keys of another table: no row has them.
            (NewestRows::Numbers(_), KeyColumn::Texts(_)) | (NewestRows::Texts { .. }, KeyColumn::Numbers(_)) => {
                vec![NO_ROW; times.len()]
            }
        };
        if let Some(nulls) = nulls {
            let of_rows = rows.iter_mut().zip(nulls);
            of_rows.filter(|(_, is_valid)| !is_valid).for_each(|(row, _)| *row = NO_ROW);
        }
        rows
    }

    fn seen_in<K: Key, const ROWS: usize>(&self, table: &KeyTable<K, ROWS>, keys: &[K], times: &[i64]) -> Vec<u32> {
        let mut rows = Vec::with_capacity(keys.len());
        let mut lines: Vec<u32> = Vec::with_capacity(STAGE_KEYS);
        for (keys, times) in keys.chunks(STAGE_KEYS).zip(times.chunks(STAGE_KEYS)) {
            lines.clear();
            lines.extend(keys.iter().map(|key| table.first_line(*key)));
            black_box(lines.iter().fold(0, |read, line| read ^ table.touch(*line)));
            rows.extend(lines.iter().zip(keys.iter().zip(times)).map(|(line, (key, time))| {
                table
                    .certain_in(*line, *key, *time)
                    .unwrap_or_else(|| table.find(*key).map_or(NO_ROW, |place| self.seen(table.newest(place), *time)))
            }));
        }
        rows
    }

    fn seen(&self, newest: Newest, time: i64) -> u32 {
        match newest.history {
            _ if newest.time <= time => newest.row,
            NO_HISTORY => NO_ROW,
            history => self.histories[history as usize].as_of(time),
        }
    }

    /// Adds the row that a change writes. Changes are added in their order.
    pub fn write(&mut self, key: RowKey, version: Version) -> Option<VoidDeletion> {
        let Version { time, position, row } = version;
        let more = (row as usize + 1).saturating_sub(self.positions.len());
        grow(&mut self.positions, more);
        self.positions.resize(self.positions.len() + more, 0);
        self.positions[row as usize] = position;
        let Some(place) = self.newest.find_or_add(key, Newest { time, row, history: NO_HISTORY }) else {
            self.versions += 1;
            return None;
        };
        self.change(place, |history| history.write(version))
    }

    /// Adds a deletion that was accepted at `accepted_at`. Of a row that is not known it means nothing.
    pub fn delete(&mut self, key: RowKey, accepted_at: i64, position: u64) {
        if let Some(place) = self.newest.find(key) {
            self.change(place, |history| history.delete(accepted_at, position));
        }
    }

    /// Changes the history of the row at a place, which has one from now on.
    fn change<T>(&mut self, place: usize, change: impl FnOnce(&mut History) -> T) -> T {
        let mut newest = self.newest.newest(place);
        if newest.history == NO_HISTORY {
            newest.history = self.histories.len() as u32;
            grow(&mut self.histories, 1);
            self.histories.push(History(smallvec![newest.version(&self.positions)]));
        }
        let history = &mut self.histories[newest.history as usize];
        let (bytes, versions) = (history.heap_bytes(), history.0.len());
        let result = change(history);
        newest.follow(history);
        self.history_bytes = self.history_bytes + history.heap_bytes() - bytes;
        self.versions = self.versions + history.0.len() - versions;
        self.newest.set(place, newest);
        result
    }

    /// Calls `each` with the versions of every row.
    pub fn for_each_row(&self, each: &mut dyn FnMut(RowKey, &[Version])) {
        self.newest.for_each(&mut |key, newest| match newest.history {
            NO_HISTORY => each(key, &[newest.version(&self.positions)]),
            history => each(key, &self.histories[history as usize].0),
        });
    }

    /// Keeps the versions that `keeps` says, which learns whether each is the last of its row, and numbers their rows from 0. Returns the
    /// numbers that these had.
    pub fn retain(&mut self, keeps: &dyn Fn(bool, &Version) -> bool) -> Vec<u32> {
        let mut kept = RowIndex::empty(self.newest.emptied());
        let mut rows = Vec::new();
        self.for_each_row(&mut |key, versions| {
            let of_row = versions.iter().enumerate().filter(|(at, version)| keeps(at + 1 == versions.len(), version));
            let mut renumber = |version: &Version| match version.row {
                NO_ROW => *version,
                row => {
                    rows.push(row);
                    kept.positions.push(version.position);
                    Version { row: rows.len() as u32 - 1, ..*version }
                }
            };
            let history = History(of_row.map(|(_, version)| renumber(version)).collect());
            kept.put(key, history);
        });
        kept.histories.shrink_to_fit();
        kept.positions.shrink_to_fit();
        *self = kept;
        rows
    }

    /// Adds a row with all its versions, unless there are none.
    fn put(&mut self, key: RowKey, mut history: History) {
        let Some(Version { time, row, .. }) = history.0.last().copied() else { return };
        self.versions += history.0.len();
        let mut newest = Newest { time, row, history: NO_HISTORY };
        if history.0.len() > 1 || row == NO_ROW {
            history.0.shrink_to_fit();
            self.history_bytes += history.heap_bytes();
            newest.history = self.histories.len() as u32;
            self.histories.push(history);
        }
        self.newest.find_or_add(key, newest);
    }
}

impl Newest {
    /// Its version, which wrote a row.
    fn version(&self, positions: &[u64]) -> Version {
        Version { time: self.time, position: positions[self.row as usize], row: self.row }
    }

    fn follow(&mut self, history: &History) {
        if let Some(last) = history.0.last() {
            (self.time, self.row) = (last.time, last.row);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringViewArray};

    use super::*;

    const KEYS: i64 = 20_000;

    /// Writes numbers as a column of keys.
    type KeyColumn<'a> = &'a dyn Fn(&[i64]) -> ArrayRef;

    /// An index of the even keys, each written at its number as time.
    fn even(data_type: DataType, column: KeyColumn<'_>) -> RowIndex {
        let mut index = RowIndex::new(data_type);
        let numbers: Vec<i64> = (0..KEYS).step_by(2).collect();
        let keys = index.keys_of(&column(&numbers)).expect("keys");
        for (at, number) in numbers.iter().enumerate() {
            let row = *number as u32 / 2;
            assert_eq!(index.write(keys.key(at), Version { time: *number, position: u64::from(row), row }), None);
        }
        index
    }

    /// The numbers of the rows that events with these keys see at these times.
    fn seen(index: &RowIndex, column: ArrayRef, times: &[i64]) -> Vec<u32> {
        index.as_of(&index.keys_of(&column).expect("keys"), times)
    }

    #[test]
    fn each_of_many_keys_has_its_row() {
        let integers = |keys: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(keys.to_vec())) };
        // Multiples of a power of two have few bits that differ.
        let spaced =
            |keys: &[i64]| -> ArrayRef { Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key << 40))) };
        let texts =
            |keys: &[i64]| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(keys.iter().map(i64::to_string))) };
        let kinds: [(DataType, KeyColumn<'_>); 3] =
            [(DataType::BigInt, &integers), (DataType::BigInt, &spaced), (DataType::String, &texts)];
        let all: Vec<i64> = (0..KEYS).collect();
        for (data_type, column) in kinds {
            let index = even(data_type, column);
            let expected: Vec<u32> =
                all.iter().map(|key| if key % 2 == 0 { *key as u32 / 2 } else { NO_ROW }).collect();
            assert_eq!(seen(&index, column(&all), &all), expected);
            let before: Vec<i64> = all.iter().map(|key| key - 1).collect();
            assert!(seen(&index, column(&all), &before).iter().all(|row| *row == NO_ROW));
            assert!(index.bytes() < 100 * index.versions(), "{} bytes", index.bytes());
        }
    }

    #[test]
    fn narrow_integers_and_null_are_keys_of_events() {
        let index =
            even(DataType::Int, &|keys| Arc::new(Int32Array::from_iter_values(keys.iter().map(|key| *key as i32))));
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(4), None, Some(0), Some(4 + (1 << 32)), Some(-4)]));
        assert_eq!(seen(&index, keys, &[KEYS; 5]), [2, NO_ROW, 0, NO_ROW, NO_ROW]);
    }
}
