//! Numbers the keys of rows, and finds the numbers of a batch of keys: each is hashed once.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Int64Type};
use arrow::error::ArrowError;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::types::DataType;

/// Keys, numbered from 0 in the order in which they came.
#[derive(Debug)]
pub(super) struct RowKeys {
    numbers: HashTable<u32>,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Integers(Vec<i64>),
    Texts { bytes: Vec<u8>, ends: Vec<usize> },
}

impl Keys {
    fn text(bytes: &[u8], ends: &[usize], number: u32) -> std::ops::Range<usize> {
        let number = number as usize;
        let start = if number == 0 { 0 } else { ends[number - 1] };
        debug_assert!(ends[number] <= bytes.len());
        start..ends[number]
    }
}

fn of_integer(key: i64) -> u64 {
    xxh3_64(&key.to_le_bytes())
}

impl RowKeys {
    /// Returns no keys, for a column of this type: STRING, INT or BIGINT.
    pub fn new(data_type: DataType) -> RowKeys {
        let keys = match data_type {
            DataType::String => Keys::Texts { bytes: Vec::new(), ends: Vec::new() },
            _ => Keys::Integers(Vec::new()),
        };
        RowKeys { numbers: HashTable::new(), keys }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        match &self.keys {
            Keys::Integers(keys) => keys.len(),
            Keys::Texts { ends, .. } => ends.len(),
        }
    }

    /// Memory of the keys, in bytes.
    pub fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Integers(keys) => keys.len() * size_of::<i64>(),
            Keys::Texts { bytes, ends } => bytes.len() + ends.len() * size_of::<usize>(),
        };
        keys + self.numbers.capacity() * (size_of::<u32>() + 1)
    }

    /// Returns the column with the type of the keys. A value that no key can have is NULL.
    fn fitted(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let wanted = match &self.keys {
            Keys::Integers(_) => ArrowType::Int64,
            Keys::Texts { .. } => ArrowType::Utf8View,
        };
        if *column.data_type() == wanted { Ok(column.clone()) } else { cast(column, &wanted) }
    }

    /// Calls `each` with every row of `column` and the number of its key; `None`: NULL, or a key that is not known.
    pub fn find(&self, column: &ArrayRef, each: &mut dyn FnMut(usize, Option<u32>)) -> Result<(), ArrowError> {
        let column = self.fitted(column)?;
        match &self.keys {
            Keys::Integers(keys) => {
                let values = column.as_primitive::<Int64Type>();
                for row in 0..values.len() {
                    let found = values.is_valid(row).then(|| values.value(row)).and_then(|key| {
                        self.numbers.find(of_integer(key), |number| keys[*number as usize] == key).copied()
                    });
                    each(row, found);
                }
            }
            Keys::Texts { bytes, ends } => {
                let values = column.as_string_view();
                for row in 0..values.len() {
                    let found = values.is_valid(row).then(|| values.value(row).as_bytes()).and_then(|key| {
                        let is_key = |number: &u32| bytes[Keys::text(bytes, ends, *number)] == *key;
                        self.numbers.find(xxh3_64(key), is_key).copied()
                    });
                    each(row, found);
                }
            }
        }
        Ok(())
    }

    /// Returns the numbers of the keys in `column`, none of which is NULL. New ones are added.
    pub fn number(&mut self, column: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        let column = self.fitted(column)?;
        let mut numbers = Vec::with_capacity(column.len());
        match &mut self.keys {
            Keys::Integers(keys) => {
                for key in column.as_primitive::<Int64Type>().values() {
                    let hash = of_integer(*key);
                    let known = self.numbers.find(hash, |number| keys[*number as usize] == *key).copied();
                    numbers.push(known.unwrap_or_else(|| {
                        let number = keys.len() as u32;
                        keys.push(*key);
                        self.numbers.insert_unique(hash, number, |other| of_integer(keys[*other as usize]));
                        number
                    }));
                }
            }
            Keys::Texts { bytes, ends } => {
                for key in column.as_string_view().iter() {
                    let key = key.unwrap_or_default().as_bytes();
                    let hash = xxh3_64(key);
                    let is_key = |number: &u32| bytes[Keys::text(bytes, ends, *number)] == *key;
                    let known = self.numbers.find(hash, is_key).copied();
                    numbers.push(known.unwrap_or_else(|| {
                        let number = ends.len() as u32;
                        bytes.extend_from_slice(key);
                        ends.push(bytes.len());
                        let rehash = |other: &u32| xxh3_64(&bytes[Keys::text(bytes, ends, *other)]);
                        self.numbers.insert_unique(hash, number, rehash);
                        number
                    }));
                }
            }
        }
        Ok(numbers)
    }

    /// Keeps the keys that `keeps` says, in their order, and numbers them from 0.
    pub fn retain(&mut self, keeps: &dyn Fn(u32) -> bool) {
        let kept = (0..self.len() as u32).filter(|number| keeps(*number));
        let mut numbers = HashTable::new();
        let keys = match &self.keys {
            Keys::Integers(keys) => {
                let keys: Vec<i64> = kept.map(|number| keys[number as usize]).collect();
                for (number, key) in keys.iter().enumerate() {
                    let rehash = |other: &u32| of_integer(keys[*other as usize]);
                    numbers.insert_unique(of_integer(*key), number as u32, rehash);
                }
                Keys::Integers(keys)
            }
            Keys::Texts { bytes, ends } => {
                let (mut kept_bytes, mut kept_ends) = (Vec::new(), Vec::new());
                for number in kept {
                    kept_bytes.extend_from_slice(&bytes[Keys::text(bytes, ends, number)]);
                    kept_ends.push(kept_bytes.len());
                }
                for number in 0..kept_ends.len() as u32 {
                    let rehash = |other: &u32| xxh3_64(&kept_bytes[Keys::text(&kept_bytes, &kept_ends, *other)]);
                    numbers.insert_unique(rehash(&number), number, rehash);
                }
                Keys::Texts { bytes: kept_bytes, ends: kept_ends }
            }
        };
        *self = RowKeys { numbers, keys };
    }
}
