//! Encodes, hashes and numbers the keys of a batch once, for all views and tables that look them up.
//!
//! Where keys repeat, they are numbered within the batch: a table is asked once for each key instead of once for each row. Where
//! few repeat, that would only cost, so every row counts as a key of its own. Dimensions that are dictionaries are numbered by their
//! [codes](crate::partial::coded_keys), and each key is encoded once.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use arrow::row::Rows;
use hashbrown::HashTable;

use crate::partial::coded_keys::KeyCodes;
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
    of: Encoded,
    rows: Rows,
    hashes: Vec<u64>,
}

/// The owner of an encoded key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoded {
    Row,
    /// The number of a key.
    Number,
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
        if let Some(KeyCodes { of_row, first_rows }) = KeyCodes::new(dimensions) {
            let first = UInt32Array::from(first_rows);
            let keys =
                dimensions.iter().map(|dimension| take(dimension, &first, None)).collect::<Result<Vec<_>, _>>()?;
            let encoded = EncodedKeys::new(Encoded::Number, layout.encode(&keys)?);
            let first_rows = first.values().to_vec();
            return Ok(BatchKeys { numbers: KeyNumbers::Repeated { of_row, first_rows }, encoded: Some(encoded) });
        }
        let encoded = EncodedKeys::new(Encoded::Row, layout.encode(dimensions)?);
        Ok(BatchKeys { numbers: encoded.numbers(), encoded: Some(encoded) })
    }

    /// The key of a row.
    #[inline]
    pub fn key(&self, row: u32) -> HashedKey<'_> {
        match (&self.encoded, &self.numbers) {
            (None, _) => HashedKey::new(&[]),
            (Some(encoded), KeyNumbers::Repeated { of_row, .. }) if encoded.of == Encoded::Number => {
                encoded.key(of_row[row as usize])
            }
            (Some(encoded), _) => encoded.key(row),
        }
    }

    /// How the rows share keys.
    pub fn numbers(&self) -> &KeyNumbers {
        &self.numbers
    }
}

impl EncodedKeys {
    fn new(of: Encoded, rows: Rows) -> EncodedKeys {
        let hashes = rows.iter().map(|row| HashedKey::new(row.data()).hash).collect();
        EncodedKeys { of, rows, hashes }
    }

    #[inline]
    fn key(&self, place: u32) -> HashedKey<'_> {
        HashedKey { bytes: self.rows.row(place as usize).data(), hash: self.hashes[place as usize] }
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

    use arrow::array::{DictionaryArray, Int64Array, StringViewArray, UInt16Array};

    use super::*;
    use crate::partial::coded_keys::resolved;
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

    fn coded(codes: impl Iterator<Item = Option<u16>>, texts: &[&str]) -> ArrayRef {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        Arc::new(DictionaryArray::new(codes.collect::<UInt16Array>(), texts))
    }

    #[test]
    fn dimensions_with_codes_have_the_keys_of_their_texts() {
        let layout = KeyLayout::new(vec![DataType::String, DataType::String]).expect("a layout");
        let first =
            coded((0..1_000).map(|n| (n % 5 < 4).then_some(n % 5)), &["d", "c", "a longer text than twelve bytes", ""]);
        let second = coded((0..1_000).map(|n| (n % 3 > 0).then_some(n % 2)), &["a", "c"]);
        let plain = [&first, &second].map(|column| resolved(column).expect("texts"));
        let (codes, texts) = ([first, Arc::clone(&second)], [Arc::clone(&plain[0]), second]);
        let expected = BatchKeys::new(&layout, &plain).expect("encodes");
        for (dimensions, of) in [(codes, Encoded::Number), (texts, Encoded::Row)] {
            let keys = BatchKeys::new(&layout, &dimensions).expect("encodes");
            assert_eq!(keys.encoded.as_ref().map(|encoded| encoded.of), Some(of));
            let KeyNumbers::Repeated { of_row, first_rows } = keys.numbers() else { panic!("{keys:?}") };
            assert_eq!(first_rows.len(), 15, "{first_rows:?}");
            for row in 0..1_000 {
                assert_eq!(keys.key(row).bytes, expected.key(row).bytes);
                assert_eq!(keys.key(row).hash, expected.key(row).hash);
                assert_eq!(keys.key(first_rows[of_row[row as usize] as usize]).bytes, expected.key(row).bytes);
            }
        }
    }

    #[test]
    fn codes_of_many_more_texts_than_rows_are_not_looked_at() {
        let layout = KeyLayout::new(vec![DataType::String, DataType::String]).expect("a layout");
        let texts: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let column = coded((0..10).map(Some), &texts);
        let keys = BatchKeys::new(&layout, &[Arc::clone(&column), column]).expect("encodes");
        assert_eq!(keys.encoded.as_ref().map(|encoded| encoded.of), Some(Encoded::Row));
    }

    #[test]
    fn rows_without_dimensions_have_the_empty_key() {
        let layout = KeyLayout::new(Vec::new()).expect("a layout");
        let keys = BatchKeys::new(&layout, &[]).expect("encodes");
        assert!(keys.key(3).bytes.is_empty());
        assert!(matches!(keys.numbers(), KeyNumbers::One));
    }
}
