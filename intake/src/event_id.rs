//! Hashes event ids and entities to 128 bits. Deduplication and sequences compare the hashes, not the ids.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use shared::entity::EntityId;
use shared::stream::Stream;
use shared::table_key::TableKey;
use xxhash_rust::xxh3::xxh3_128;

/// The hash of a null id. Intake rejects events without an id; logs of earlier versions hold some, which are never
/// duplicates.
pub const NULL_ID: u128 = 0;

/// Hashes each id of a primary key's column: XXH3-128 of its bytes; [`NULL_ID`] for null.
///
/// Strings are hashed as UTF-8; INT, BIGINT, DATE and TIMESTAMP as 64-bit, DECIMAL as 128-bit little-endian integers;
/// DOUBLE as its bits; BOOLEAN as one byte.
///
/// # Panics
/// If the type of the column is not one of [`shared::types::DataType`].
pub fn hash_ids(column: &dyn Array) -> Vec<u128> {
    match column.data_type() {
        DataType::Utf8View => hashes(column.as_string_view().iter(), |text, hash| hash(text.as_bytes())),
        DataType::Int32 => {
            hashes(column.as_primitive::<Int32Type>().iter(), |v, hash| hash(&i64::from(v).to_le_bytes()))
        }
        DataType::Int64 => hashes(column.as_primitive::<Int64Type>().iter(), |v, hash| hash(&v.to_le_bytes())),
        DataType::Date32 => {
            hashes(column.as_primitive::<Date32Type>().iter(), |v, hash| hash(&i64::from(v).to_le_bytes()))
        }
        DataType::Timestamp(..) => {
            hashes(column.as_primitive::<TimestampMicrosecondType>().iter(), |v, hash| hash(&v.to_le_bytes()))
        }
        DataType::Decimal128(..) => {
            hashes(column.as_primitive::<Decimal128Type>().iter(), |v, hash| hash(&v.to_le_bytes()))
        }
        DataType::Float64 => {
            hashes(column.as_primitive::<Float64Type>().iter(), |v, hash| hash(&v.to_bits().to_le_bytes()))
        }
        DataType::Boolean => hashes(column.as_boolean().iter(), |v, hash| hash(&[u8::from(v)])),
        other => panic!("a stream cannot have a column of type {other}"),
    }
}

/// Hashes the entity of each event of `stream`, if it has an entity. `column` gives the column at an index.
pub fn entity_hashes<'a>(stream: &Stream, column: impl Fn(usize) -> &'a dyn Array) -> Option<Vec<u128>> {
    stream.entity.map(|entity| hash_ids(column(entity)))
}

/// Hashes the event id of each event of `stream`, if it has one. In a stream with an entity, an id belongs to its entity:
/// events of two entities are never duplicates. `entities` are the hashes of [`entity_hashes`].
pub fn event_hashes(stream: &Stream, ids: &dyn Array, entities: Option<&[u128]>) -> Vec<u128> {
    let mut hashes = hash_ids(ids);
    debug_assert_eq!(stream.entity.is_some(), entities.is_some());
    for (hash, entity) in hashes.iter_mut().zip(entities.unwrap_or_default()) {
        if *hash != NULL_ID {
            let mut both = [0; 32];
            both[..16].copy_from_slice(&entity.to_le_bytes());
            both[16..].copy_from_slice(&hash.to_le_bytes());
            *hash = xxh3_128(&both).max(1);
        }
    }
    hashes
}

/// Hashes the id of an entity, as [`entity_hashes`] does.
pub fn hash_entity(id: &EntityId) -> u128 {
    match id {
        EntityId::Text(text) => xxh3_128(text.as_bytes()),
        EntityId::Integer(number) => xxh3_128(&number.to_le_bytes()),
    }
    .max(1)
}

/// Hashes the key of each row of a table, from the columns of the key: of one as [`hash_ids`], of several the hashes of all.
pub fn hash_keys(columns: &[&dyn Array]) -> Vec<u128> {
    let mut hashes: Vec<Vec<u128>> = columns.iter().map(|column| hash_ids(*column)).collect();
    match hashes.len() {
        1 => hashes.remove(0),
        _ => {
            (0..hashes.first().map_or(0, Vec::len)).map(|row| joined(hashes.iter().map(|hashes| hashes[row]))).collect()
        }
    }
}

/// Hashes the key of a row, as [`hash_keys`] does.
pub fn hash_key(key: &TableKey) -> u128 {
    match key.values() {
        [only] => hash_entity(only),
        all => joined(all.iter().map(hash_entity)),
    }
}

fn joined(hashes: impl Iterator<Item = u128>) -> u128 {
    let bytes: Vec<u8> = hashes.flat_map(u128::to_le_bytes).collect();
    xxh3_128(&bytes).max(1)
}

/// Hashes the bytes that `feed` makes of each value. Null becomes 0, and no value does.
fn hashes<T>(
    values: impl ExactSizeIterator<Item = Option<T>>,
    feed: impl Fn(T, &dyn Fn(&[u8]) -> u128) -> u128,
) -> Vec<u128> {
    let hash = |bytes: &[u8]| xxh3_128(bytes).max(1);
    values.map(|value| value.map_or(NULL_ID, |value| feed(value, &hash))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int32Array, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn equal_ids_have_equal_hashes_and_null_has_none() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("e0000000001"),
            None,
            Some(""),
            Some("e0000000001"),
            Some("an id that is longer than twelve bytes"),
        ]));
        let hashes = hash_ids(&text);
        assert_eq!(hashes[0], xxh3_128(b"e0000000001"));
        assert_eq!(hashes[0], hashes[3]);
        assert_eq!(hashes[1], 0);
        assert_eq!(hashes[2], xxh3_128(b""));
        assert_eq!(hashes[4], xxh3_128(b"an id that is longer than twelve bytes"));
    }

    #[test]
    fn an_entity_hashes_as_its_column_does() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["o-1"]));
        assert_eq!(hash_ids(&texts), [hash_entity(&EntityId::Text("o-1".to_owned()))]);
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![-7]));
        assert_eq!(hash_ids(&narrow), [hash_entity(&EntityId::Integer(-7))]);
    }

    #[test]
    fn a_key_hashes_as_its_columns_do() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b", "a"]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 1, 2]));
        let both = hash_keys(&[&texts, &numbers]);
        assert_eq!(hash_keys(&[&texts]), hash_ids(&texts));
        for (row, hash) in both.iter().enumerate() {
            assert_eq!(*hash, hash_key(&TableKey::at(&[Arc::clone(&texts), Arc::clone(&numbers)], row)));
        }
        assert_eq!(hash_keys(&[&texts])[1], hash_key(&TableKey::at(&[Arc::clone(&texts)], 1)));
        assert!(both[0] != both[1] && both[0] != both[2] && hash_keys(&[&numbers, &texts])[0] != both[0]);
    }

    #[test]
    fn an_integer_hashes_the_same_in_either_width() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![-1, 7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![-1, 7]));
        let days: ArrayRef = Arc::new(Date32Array::from(vec![-1, 7]));
        assert_eq!(hash_ids(&narrow), hash_ids(&wide));
        assert_eq!(hash_ids(&days), hash_ids(&wide));
        assert_eq!(hash_ids(&wide)[1], xxh3_128(&7i64.to_le_bytes()));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(hash_ids(&flags), [xxh3_128(&[1])]);
    }
}
