//! Encodes the dimension values of groups as comparable bytes and numbers them as they appear.
//!
//! The encoding is that of `arrow`'s row format: equal bytes mean equal values (NULL equals NULL), and bytes sort as
//! the values do, NULL first. [`BatchKeys`](crate::partial::batch_keys::BatchKeys) has the keys of a batch.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::double::canonical_column;
use crate::partial::coded_keys::resolved;
use crate::types::DataType;

const BLOCK_KEYS: usize = 1024;

/// The encoding of a view's dimensions.
#[derive(Debug)]
pub struct KeyLayout {
    types: Vec<DataType>,
    converter: RowConverter,
}

impl KeyLayout {
    /// A layout for dimensions of these types.
    pub fn new(types: Vec<DataType>) -> Result<KeyLayout, ArrowError> {
        let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.arrow())).collect())?;
        Ok(KeyLayout { types, converter })
    }

    /// The types of the dimensions.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Encodes one key per row. NaN has one encoding, and -0.0 that of 0.0. Columns may be dictionaries.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        let columns = columns.iter().map(|column| resolved(column).map(canonical_column));
        self.converter.convert_columns(&columns.collect::<Result<Vec<_>, _>>()?)
    }

    /// The dimension columns of the given encoded keys, in their order.
    pub fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.converter.parser();
        self.converter.convert_rows(keys.map(|bytes| parser.parse(bytes)))
    }
}

#[derive(Debug, Clone, Default)]
struct KeyBlock {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// Encoded keys numbered from 0. Cloning is cheap: full blocks are shared.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    blocks: Vec<Arc<KeyBlock>>,
    len: usize,
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The encoded key with number `id`.
    #[inline]
    pub fn get(&self, id: u32) -> &[u8] {
        let block = &self.blocks[id as usize / BLOCK_KEYS];
        let at = id as usize % BLOCK_KEYS;
        let start = if at == 0 { 0 } else { block.ends[at - 1] as usize };
        &block.bytes[start..block.ends[at] as usize]
    }

    /// All encoded keys in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len as u32).map(|id| self.get(id))
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|b| b.bytes.capacity() + b.ends.capacity() * 4).sum()
    }

    pub(super) fn push(&mut self, key: &[u8]) -> u32 {
        if self.len.is_multiple_of(BLOCK_KEYS) {
            self.blocks.push(Arc::default());
        }
        let last = self.blocks.last_mut().expect("a block was pushed when the last one was full");
        let block = Arc::make_mut(last);
        block.bytes.extend_from_slice(key);
        block.ends.push(u32::try_from(block.bytes.len()).expect("the keys of a block have less than 4 GiB"));
        self.len += 1;
        (self.len - 1) as u32
    }
}

/// An encoded key with its hash, which several tables use.
#[derive(Debug, Clone, Copy)]
pub struct HashedKey<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

impl HashedKey<'_> {
    /// Hashes an encoded key.
    #[inline]
    pub fn new(bytes: &[u8]) -> HashedKey<'_> {
        HashedKey { bytes, hash: xxh3_64(bytes) }
    }
}

/// Length of the keys that a table holds itself; one number has 9 bytes.
const SHORT_KEY_BYTES: usize = 11;
/// Ends the mark of a longer key.
const LONG: u8 = u8::MAX;

/// What the table knows of a key: a short key itself, padded, with its length at the end, or the hash of a long one. So a
/// short key is found with one access to memory instead of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyMark([u8; SHORT_KEY_BYTES + 1]);

impl KeyMark {
    #[inline]
    fn of(key: HashedKey<'_>) -> KeyMark {
        let mut mark = [0; SHORT_KEY_BYTES + 1];
        if key.bytes.len() <= SHORT_KEY_BYTES {
            mark[..key.bytes.len()].copy_from_slice(key.bytes);
            mark[SHORT_KEY_BYTES] = key.bytes.len() as u8;
        } else {
            mark[..8].copy_from_slice(&key.hash.to_le_bytes());
            mark[SHORT_KEY_BYTES] = LONG;
        }
        KeyMark(mark)
    }

    #[inline]
    fn is_long(self) -> bool {
        self.0[SHORT_KEY_BYTES] == LONG
    }

    fn hash(self) -> u64 {
        match self.0[SHORT_KEY_BYTES] {
            LONG => u64::from_le_bytes(std::array::from_fn(|at| self.0[at])),
            length => xxh3_64(&self.0[..usize::from(length)]),
        }
    }
}

/// Numbers keys as they appear: equal keys get equal numbers.
#[derive(Debug, Clone, Default)]
pub struct KeyIndex {
    keys: Keys,
    table: HashTable<(KeyMark, u32)>,
}

impl KeyIndex {
    /// The number of `key`, a new one if it was not seen before.
    #[inline]
    pub fn id_of(&mut self, key: &[u8]) -> u32 {
        self.id_of_hashed(HashedKey::new(key))
    }

    /// The number of `key`, a new one if it was not seen before.
    #[inline]
    pub fn id_of_hashed(&mut self, key: HashedKey<'_>) -> u32 {
        let mark = KeyMark::of(key);
        let keys = &self.keys;
        let is_key = |&(known, id): &(KeyMark, u32)| known == mark && (!mark.is_long() || keys.get(id) == key.bytes);
        if let Some((_, id)) = self.table.find(key.hash, is_key) {
            return *id;
        }
        let id = self.keys.push(key.bytes);
        self.table.insert_unique(key.hash, (mark, id), |(mark, _)| mark.hash());
        id
    }

    /// The number of `key`; `None`: it was not seen before.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        let key = HashedKey::new(key);
        let mark = KeyMark::of(key);
        let is_key =
            |&(known, id): &(KeyMark, u32)| known == mark && (!mark.is_long() || self.keys.get(id) == key.bytes);
        self.table.find(key.hash, is_key).map(|(_, id)| *id)
    }

    /// The keys numbered so far.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The keys alone.
    pub fn into_keys(self) -> Keys {
        self.keys
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.table.capacity() * (size_of::<(KeyMark, u32)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Float64Array, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn equal_values_have_equal_numbers_and_round_trip() {
        let layout = KeyLayout::new(vec![DataType::String, DataType::BigInt]).expect("a layout");
        let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a"), Some("")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(1), None]));
        let rows = layout.encode(&[Arc::clone(&names), Arc::clone(&numbers)]).expect("encodes");
        let mut index = KeyIndex::default();
        let ids: Vec<u32> = rows.iter().map(|row| index.id_of(row.as_ref())).collect();
        assert_eq!(ids, [0, 1, 0, 2]);
        let back = layout.decode(index.keys().iter()).expect("decodes");
        assert_eq!(back[0].as_string_view().iter().collect::<Vec<_>>(), [Some("a"), None, Some("")]);
        assert_eq!(back[1].len(), 3);
    }

    #[test]
    fn floats_have_one_nan_and_one_zero() {
        let layout = KeyLayout::new(vec![DataType::Double]).expect("a layout");
        let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN, 0.0, -0.0]));
        let rows = layout.encode(&[column]).expect("encodes");
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
    }

    #[test]
    fn many_keys_keep_their_numbers() {
        // Of every length around that of keys in the table, and some that differ in their length only.
        let key = |i: u32| [format!("{i}").into_bytes(), vec![0; i as usize % 13]].concat();
        let mut index = KeyIndex::default();
        for i in 0..5000u32 {
            assert_eq!(index.id_of(&key(i)), i);
        }
        let shared = index.keys().clone();
        for i in (0..5000u32).rev() {
            assert_eq!(index.id_of(&key(i)), i);
            assert_eq!(shared.get(i), key(i));
        }
    }

    #[test]
    fn long_keys_with_one_hash_have_their_own_numbers() {
        let mut index = KeyIndex::default();
        let keys: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; SHORT_KEY_BYTES + 1]).collect();
        for _ in 0..2 {
            let ids = keys.iter().map(|bytes| index.id_of_hashed(HashedKey { bytes, hash: 7 }));
            assert_eq!(ids.collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }
}
