//! Which 128 bits stand for an event id? The same for the decoder, the writer and recovery, whatever the key's type.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use xxhash_rust::xxh3::xxh3_128;

/// The hash of a null id: an event without one is never a duplicate.
pub const NULL_ID: u128 = 0;

/// The xxh3 of each id's bytes, [`NULL_ID`] for a null; in row order. INT, BIGINT, DATE and TIMESTAMP are hashed as 64-bit,
/// DECIMAL as 128-bit little-endian integers, DOUBLE as its bits, BOOLEAN as one byte: what the decoder computes and what
/// recovery computes from the log have to be the same for ever, or every restart would forget all ids.
///
/// # Panics
/// If the column is not of a type that a stream's columns can have.
pub fn id_hash(column: &dyn Array) -> Vec<u128> {
    match column.data_type() {
        DataType::Utf8View => {
            column.as_string_view().iter().map(|id| id.map_or(NULL_ID, |id| of(id.as_bytes()))).collect()
        }
        DataType::Int32 => of_numbers::<Int32Type, 8>(column, |id| i64::from(id).to_le_bytes()),
        DataType::Int64 => of_numbers::<Int64Type, 8>(column, i64::to_le_bytes),
        DataType::Float64 => of_numbers::<Float64Type, 8>(column, |id| id.to_bits().to_le_bytes()),
        DataType::Date32 => of_numbers::<Date32Type, 8>(column, |id| i64::from(id).to_le_bytes()),
        DataType::Decimal128(_, _) => of_numbers::<Decimal128Type, 16>(column, i128::to_le_bytes),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of_numbers::<TimestampMicrosecondType, 8>(column, i64::to_le_bytes)
        }
        DataType::Boolean => {
            column.as_boolean().iter().map(|id| id.map_or(NULL_ID, |id| of(&[u8::from(id)]))).collect()
        }
        other => unreachable!("no column of a stream is {other}"),
    }
}

fn of_numbers<T: ArrowPrimitiveType, const BYTES: usize>(
    column: &dyn Array,
    bytes: impl Fn(T::Native) -> [u8; BYTES],
) -> Vec<u128> {
    column.as_primitive::<T>().iter().map(|id| id.map_or(NULL_ID, |id| of(&bytes(id)))).collect()
}

fn of(id: &[u8]) -> u128 {
    // The one id in 2^128 whose hash is taken gets its neighbour's.
    xxh3_128(id).max(NULL_ID + 1)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int32Array, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn equal_ids_and_only_they_hash_alike_and_null_stands_for_itself() {
        let text = StringViewArray::from_iter([Some("a"), None, Some("b"), Some("a"), Some("")]);
        let hashes = id_hash(&text);
        assert_eq!(hashes[0], xxh3_128(b"a"));
        assert_eq!(hashes[1], NULL_ID);
        assert_eq!(hashes[0], hashes[3]);
        assert_ne!(hashes[0], hashes[2]);
        assert_ne!(hashes[4], NULL_ID);
        assert_eq!(id_hash(&Int64Array::from(vec![7]))[0], xxh3_128(&7i64.to_le_bytes()));
    }

    #[test]
    fn an_integer_hashes_the_same_in_either_width() {
        let wide = id_hash(&Int64Array::from(vec![-1, 7]));
        assert_eq!(id_hash(&Int32Array::from(vec![-1, 7])), wide);
        assert_eq!(id_hash(&Date32Array::from(vec![-1, 7])), wide);
    }
}
