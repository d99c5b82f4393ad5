//! Encodes, hashes and numbers the keys of a batch once, for all views and tables that look them up.
//!
//! Where keys repeat, they are numbered within the batch: a table is asked once for each key instead of once for each row. Where
//! few repeat, that would only cost, so every row counts as a key of its own.

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::row::Rows;
use hashbrown::HashTable;

use crate::partial::keys::{HashedKey, KeyLayout};

/// Rows at the begin of a batch that show whether keys repeat.
const SAMPLE_ROWS: usize = 1_024;

/// The keys of the rows of a batch.
#[derive(Debug)]
pub struct BatchKeys {
    /// `None`: the rows have no dimensions, and all have the same empty key.
    encoded: Option<EncodedKeys>,
    numbers: KeyNumbers,
}

#[derive(Debug)]
struct EncodedKeys {
    rows: Rows,
    hashes: Vec<u64>,
}

/// How the rows of a batch share keys.
#[derive(Debug)]
pub enum KeyNumbers {
    /// All rows have one key.
    One,
    /// Few rows share a key; each counts as one of its own.
    Each,
    /// Keys repeat.
    Repeated {
        /// The number of the key of each row, from 0.
        of_row: Vec<u32>,
        /// The first row of each key.
        first_rows: Vec<u32>,
    },
}

impl BatchKeys {
    /// The keys of rows without dimensions.
    pub const NONE: BatchKeys = BatchKeys { encoded: None, numbers: KeyNumbers::One };

    /// Encodes the keys of rows with these dimensions, which `layout` encodes.
    pub fn new(layout: &KeyLayout, dimensions: &[ArrayRef]) -> Result<BatchKeys, ArrowError> {
        if dimensions.is_empty() {
            return Ok(BatchKeys::NONE);
        }
        let rows = layout.encode(dimensions)?;
        let hashes = rows.iter().map(|row| HashedKey::new(row.data()).hash).collect();
        let encoded = EncodedKeys { rows, hashes };
        Ok(BatchKeys { numbers: encoded.numbers(), encoded: Some(encoded) })
    }

    /// The key of a row.
    #[inline]
    pub fn key(&self, row: u32) -> HashedKey<'_> {
        match &self.encoded {
            None => HashedKey::new(&[]),
            Some(encoded) => encoded.key(row),
        }
    }

    /// How the rows share keys.
    pub fn numbers(&self) -> &KeyNumbers {
        &self.numbers
    }
}

impl EncodedKeys {
    #[inline]
    fn key(&self, row: u32) -> HashedKey<'_> {
        HashedKey { bytes: self.rows.row(row as usize).data(), hash: self.hashes[row as usize] }
    }

    fn numbers(&self) -> KeyNumbers {
        let rows = self.hashes.len();
        let (mut of_row, mut first_rows) = (Vec::with_capacity(rows), Vec::new());
        let mut table: HashTable<(u64, u32)> = HashTable::with_capacity(SAMPLE_ROWS);
        for row in 0..rows as u32 {
            if row as usize == SAMPLE_ROWS && first_rows.len() > SAMPLE_ROWS / 2 {
                return KeyNumbers::Each;
            }
            let key = self.key(row);
            let is_key = |&(hash, number): &(u64, u32)| {
                hash == key.hash && self.key(first_rows[number as usize]).bytes == key.bytes
            };
            let number = match table.find(key.hash, is_key) {
                Some((_, number)) => *number,
                None => {
                    let number = first_rows.len() as u32;
                    table.insert_unique(key.hash, (key.hash, number), |(hash, _)| *hash);
                    first_rows.push(row);
                    number
                }
            };
            of_row.push(number);
        }
        KeyNumbers::Repeated { of_row, first_rows }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;
    use crate::types::DataType;

    fn keys(values: impl Iterator<Item = i64>) -> BatchKeys {
        let layout = KeyLayout::new(vec![DataType::BigInt]).expect("a layout");
        let column: ArrayRef = Arc::new(values.map(Some).collect::<Int64Array>());
        BatchKeys::new(&layout, &[column]).expect("encodes")
    }

    #[test]
    fn keys_that_repeat_are_numbered_as_they_appear() {
        let keys = keys([5, 7, 5, 5, 9, 7].into_iter());
        let KeyNumbers::Repeated { of_row, first_rows } = keys.numbers() else { panic!("{keys:?}") };
        assert_eq!((of_row.as_slice(), first_rows.as_slice()), (&[0, 1, 0, 0, 2, 1][..], &[0, 1, 4][..]));
        assert_eq!(keys.key(3).bytes, keys.key(0).bytes);
        assert_ne!(keys.key(1).bytes, keys.key(0).bytes);
    }

    #[test]
    fn many_keys_that_rarely_repeat_are_not_numbered() {
        assert!(matches!(keys(0..5_000).numbers(), KeyNumbers::Each));
        assert!(matches!(keys((0..5_000).map(|i| i % 500)).numbers(), KeyNumbers::Repeated { .. }));
    }

    #[test]
    fn rows_without_dimensions_have_the_empty_key() {
        let layout = KeyLayout::new(Vec::new()).expect("a layout");
        let keys = BatchKeys::new(&layout, &[]).expect("encodes");
        assert!(keys.key(3).bytes.is_empty());
        assert!(matches!(keys.numbers(), KeyNumbers::One));
    }
}
