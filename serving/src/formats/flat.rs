//! Which columns has an answer in a format without objects? Its own, and behind every estimated measure two for the bounds.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use shared::types::DataType;

use crate::answer::{Answer, Column};

/// A column of CSV or Parquet.
pub struct Flat<'a> {
    pub name: Cow<'a, str>,
    pub data_type: DataType,
    pub values: ArrayRef,
}

/// The columns of `answer`: a measure that may be estimated is followed by `<measure>_low` and `<measure>_high`, the 95 %
/// interval, NULL where the value is exact.
pub fn columns(answer: &Answer) -> Vec<Flat<'_>> {
    let mut flat = Vec::with_capacity(answer.columns.len());
    for column in &answer.columns {
        let Column { name, data_type, values, .. } = column;
        flat.push(Flat { name: Cow::Borrowed(name), data_type: *data_type, values: Arc::clone(values) });
        if column.exact_in.is_none() && column.bounds.is_none() {
            continue;
        }
        let (low, high) = match &column.bounds {
            Some(bounds) => (Arc::clone(&bounds.low), Arc::clone(&bounds.high)),
            None => {
                let nothing = new_null_array(values.data_type(), values.len());
                (Arc::clone(&nothing), nothing)
            }
        };
        for (end, values) in [("low", low), ("high", high)] {
            flat.push(Flat { name: Cow::Owned(format!("{name}_{end}")), data_type: *data_type, values });
        }
    }
    flat
}
