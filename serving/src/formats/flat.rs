//! Which columns has an answer in a format without objects? Its own, and behind every estimated measure two for the bounds.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use shared::types::DataType;

use crate::answer::{Answer, Column};

/// A column of CSV, Parquet or Arrow.
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

/// All of `answer` as one batch: its columns in their own types, then `_layer` and `_finality` as text.
pub fn batch(answer: &Answer) -> Result<RecordBatch, ArrowError> {
    let layers: StringViewArray = answer.layers.iter().map(|l| Some(l.name())).collect();
    let finality: StringViewArray = answer.finality.iter().map(|f| Some(f.name())).collect();
    let flat = columns(answer);
    let mut columns: Vec<ArrayRef> = flat.iter().map(|c| Arc::clone(&c.values)).collect();
    columns.extend([Arc::new(layers) as ArrayRef, Arc::new(finality)]);
    let mut fields: Vec<Field> =
        flat.iter().map(|c| Field::new(c.name.as_ref(), c.values.data_type().clone(), true)).collect();
    fields.extend(["_layer", "_finality"].map(|name| Field::new(name, DataType::String.arrow(), false)));
    let options = RecordBatchOptions::new().with_row_count(Some(answer.rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}
