//! Finds the versions of rows by the keys of the rows.
//!
//! The newest version of a row is in the [table of keys](super::key_table) itself, because most events see it: such an event reads one line
//! of memory. Keys in random order miss the caches of the processor, so some keys at a time are looked at before the first is followed:
//! their accesses to memory do not wait for each other. A row with several versions, or one that is deleted, has a [`History`] besides.
//!
//! Values are elsewhere: a version has the number of its row.

use std::hash::{BuildHasher, Hasher, RandomState};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Int64Type};
use arrow::error::ArrowError;
use smallvec::smallvec;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::history::{History, Version, VoidDeletion};
use super::key_table::{FirstLook, KeyTable, NO_HISTORY, Newest};
use super::values::{NO_ROW, grow};
use crate::types::DataType;

/// Keys that are found at a time: their lines stay in the cache.
const STAGE_KEYS: usize = 256;

/// The rows of a table by key.
#[derive(Debug)]
pub(super) struct RowIndex {
    /// The type of the keys as they are read.
    key_type: ArrowType,
    /// Of the hashes of texts: without it, texts with the same hash cannot be chosen.
    seed: u64,
    newest: KeyTable,
    /// Of the rows that have not exactly one version, or whose last version is a deletion.
    histories: Vec<History>,
    /// Places of the changes that wrote the rows, by number.
    positions: Vec<u64>,
    /// Memory of the histories, beside `histories` itself.
    history_bytes: usize,
    versions: usize,
}

/// The keys of a batch.
#[derive(Debug)]
pub(super) struct BatchRowKeys {
    keys: Vec<u128>,
    nulls: Option<NullBuffer>,
}

impl BatchRowKeys {
    /// The key of each row; that of NULL means nothing.
    pub fn keys(&self) -> &[u128] {
        &self.keys
    }
}

impl RowIndex {
    /// Returns no rows, with keys of this type: STRING, INT or BIGINT.
    pub fn new(key: DataType) -> RowIndex {
        let key_type = if key == DataType::String { ArrowType::Utf8View } else { ArrowType::Int64 };
        RowIndex::empty(key_type, RandomState::new().build_hasher().finish())
    }

    fn empty(key_type: ArrowType, seed: u64) -> RowIndex {
        RowIndex {
            key_type,
            seed,
            newest: KeyTable::new(),
            histories: Vec::new(),
            positions: Vec::new(),
            history_bytes: 0,
            versions: 0,
        }
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
        let column = if *column.data_type() == self.key_type { column.clone() } else { cast(column, &self.key_type)? };
        let keys = match column.as_primitive_opt::<Int64Type>() {
            Some(numbers) => numbers.values().iter().map(|key| u128::from(key.cast_unsigned())).collect(),
            None => {
                let texts = column.as_string_view();
                let hash = |row| xxh3_128_with_seed(texts.value(row).as_bytes(), self.seed);
                (0..texts.len()).map(hash).collect()
            }
        };
        Ok(BatchRowKeys { keys, nulls: column.nulls().cloned() })
    }

    /// Returns the number of the row that an event with each key and time sees, or [`NO_ROW`].
    pub fn as_of(&self, BatchRowKeys { keys, nulls }: &BatchRowKeys, times: &[i64]) -> Vec<u32> {
        let mut rows = Vec::with_capacity(keys.len());
        let mut looks: Vec<FirstLook> = Vec::with_capacity(STAGE_KEYS);
        for (keys, times) in keys.chunks(STAGE_KEYS).zip(times.chunks(STAGE_KEYS)) {
            looks.clear();
            looks.extend(keys.iter().map(|key| self.newest.first_look(*key)));
            rows.extend(looks.iter().zip(keys.iter().zip(times)).map(|(look, (key, time))| {
                self.newest.after(*look, *key).map_or(NO_ROW, |newest| self.seen(newest, *time))
            }));
        }
        if let Some(nulls) = nulls {
            let of_rows = rows.iter_mut().zip(nulls);
            of_rows.filter(|(_, is_valid)| !is_valid).for_each(|(row, _)| *row = NO_ROW);
        }
        rows
    }

    #[inline]
    fn seen(&self, newest: &Newest, time: i64) -> u32 {
        match newest.history {
            _ if newest.time <= time => newest.row,
            NO_HISTORY => NO_ROW,
            history => self.histories[history as usize].as_of(time),
        }
    }

    /// Adds the row that a change writes. Changes are added in their order.
    pub fn write(&mut self, key: u128, version: Version) -> Option<VoidDeletion> {
        let Version { time, position, row } = version;
        let more = (row as usize + 1).saturating_sub(self.positions.len());
        grow(&mut self.positions, more);
        self.positions.resize(self.positions.len() + more, 0);
        self.positions[row as usize] = position;
        let Some(newest) = self.newest.find_or_add(Newest { key, time, row, history: NO_HISTORY }) else {
            self.versions += 1;
            return None;
        };
        let history = Self::history_of(&mut self.histories, &self.positions, newest);
        let (bytes, versions) = (history.heap_bytes(), history.0.len());
        let void = history.write(version);
        newest.follow(history);
        self.history_bytes = self.history_bytes + history.heap_bytes() - bytes;
        self.versions = self.versions + history.0.len() - versions;
        void
    }

    /// Adds a deletion that was accepted at `accepted_at`. Of a row that is not known it means nothing.
    pub fn delete(&mut self, key: u128, accepted_at: i64, position: u64) {
        let Some(newest) = self.newest.find_mut(key) else { return };
        let history = Self::history_of(&mut self.histories, &self.positions, newest);
        let (bytes, versions) = (history.heap_bytes(), history.0.len());
        history.delete(accepted_at, position);
        newest.follow(history);
        self.history_bytes = self.history_bytes + history.heap_bytes() - bytes;
        self.versions = self.versions + history.0.len() - versions;
    }

    /// The history of a row, which has one from now on.
    fn history_of<'h>(histories: &'h mut Vec<History>, positions: &[u64], newest: &mut Newest) -> &'h mut History {
        if newest.history == NO_HISTORY {
            newest.history = histories.len() as u32;
            grow(histories, 1);
            histories.push(History(smallvec![newest.version(positions)]));
        }
        &mut histories[newest.history as usize]
    }

    /// Calls `each` with the versions of every row.
    pub fn for_each_row(&self, each: &mut dyn FnMut(u128, &[Version])) {
        for newest in self.newest.iter() {
            match newest.history {
                NO_HISTORY => each(newest.key, &[newest.version(&self.positions)]),
                history => each(newest.key, &self.histories[history as usize].0),
            }
        }
    }

    /// Keeps the versions that `keeps` says, which learns whether each is the last of its row, and numbers their rows from 0. Returns the
    /// numbers that these had.
    pub fn retain(&mut self, keeps: &dyn Fn(bool, &Version) -> bool) -> Vec<u32> {
        let mut kept = RowIndex::empty(self.key_type.clone(), self.seed);
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
    fn put(&mut self, key: u128, mut history: History) {
        let Some(Version { time, row, .. }) = history.0.last().copied() else { return };
        self.versions += history.0.len();
        let mut newest = Newest { key, time, row, history: NO_HISTORY };
        if history.0.len() > 1 || row == NO_ROW {
            history.0.shrink_to_fit();
            self.history_bytes += history.heap_bytes();
            newest.history = self.histories.len() as u32;
            self.histories.push(history);
        }
        self.newest.find_or_add(newest);
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
        for (number, key) in numbers.iter().zip(keys.keys()) {
            let row = *number as u32 / 2;
            assert_eq!(index.write(*key, Version { time: *number, position: u64::from(row), row }), None);
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
