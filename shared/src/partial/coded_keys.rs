//! Numbers the keys of a batch by codes: dimensions that come as dictionaries, as those of joined tables with few different texts, are
//! compared by their codes, and only the first key of each number is encoded.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::take;
use arrow::datatypes::UInt16Type;
use arrow::error::ArrowError;

/// Codes that are looked at even for one row.
const CODES_ALWAYS: usize = 4_096;
/// Codes for each row of a batch, at most: more take longer than the texts.
const CODES_PER_ROW: usize = 4;

/// The numbers of the keys of a batch.
pub(super) struct KeyCodes {
    /// The number of the key of each row, from 0.
    pub of_row: Vec<u32>,
    /// The first row of each key.
    pub first_rows: Vec<u32>,
}

/// Returns a column as its values: dictionaries are resolved.
pub(super) fn resolved(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.as_dictionary_opt::<UInt16Type>() {
        Some(coded) => take(coded.values(), coded.keys(), None),
        None => Ok(ArrayRef::clone(column)),
    }
}

impl KeyCodes {
    /// Numbers the keys of rows with these dimensions; `None`: not all are dictionaries, each with different values, or they have too many.
    pub fn new(dimensions: &[ArrayRef]) -> Option<KeyCodes> {
        let coded: Option<Vec<&DictionaryArray<UInt16Type>>> =
            dimensions.iter().map(|dimension| dimension.as_dictionary_opt()).collect();
        let coded = coded?;
        let rows = coded.first()?.len();
        let all = coded.iter().try_fold(1_usize, |all, column| all.checked_mul(column.values().len() + 1))?;
        if all > CODES_ALWAYS.max(rows * CODES_PER_ROW) {
            return None;
        }
        let mut of_row = vec![0; rows];
        for column in coded {
            let null = column.values().len() as u32;
            let codes = of_row.iter_mut().zip(column.keys().values());
            let add = |number: &mut u32, code: u32| *number = *number * (null + 1) + code;
            match column.keys().nulls() {
                None => codes.for_each(|(number, code)| add(number, u32::from(*code))),
                Some(nulls) => codes.zip(nulls).for_each(|((number, code), is_valid)| {
                    add(number, if is_valid { u32::from(*code) } else { null });
                }),
            }
        }
        let (mut numbers, mut first_rows) = (vec![u32::MAX; all], Vec::new());
        for (row, code) in of_row.iter_mut().enumerate() {
            let number = &mut numbers[*code as usize];
            if *number == u32::MAX {
                *number = first_rows.len() as u32;
                first_rows.push(row as u32);
            }
            *code = *number;
        }
        Some(KeyCodes { of_row, first_rows })
    }
}
