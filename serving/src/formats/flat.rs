//! Lays results out for formats without objects: every estimated measure is followed by two columns for its bounds.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array};
use arrow::datatypes::{Field, Schema};
use shared::partial::query_budget::QueryBudget;
use shared::types::DataType;

use super::parquet::WriteError;
use crate::execute::{QueryResult, ResultColumn};

/// A column of CSV, Parquet or Arrow.
pub struct FlatColumn<'a> {
    pub name: Cow<'a, str>,
    pub data_type: DataType,
    pub values: ArrayRef,
}

/// Returns the columns of `result`: a measure that may be estimated is followed by `<measure>_low` and `<measure>_high`, the 95 %
/// interval, NULL where the value is exact.
pub fn columns(result: &QueryResult) -> Vec<FlatColumn<'_>> {
    let mut flat = Vec::with_capacity(result.columns.len());
    for column in &result.columns {
        let ResultColumn { name, data_type, values, .. } = column;
        flat.push(FlatColumn { name: Cow::Borrowed(name), data_type: *data_type, values: Arc::clone(values) });
        if column.exact_in.is_none() && column.bounds.is_none() {
            continue;
        }
        let (low, high) = match &column.bounds {
            Some(bounds) => (Arc::clone(&bounds.low), Arc::clone(&bounds.high)),
            None => {
                let nulls = new_null_array(values.data_type(), values.len());
                (Arc::clone(&nulls), nulls)
            }
        };
        for (end, values) in [("low", low), ("high", high)] {
            flat.push(FlatColumn { name: Cow::Owned(format!("{name}_{end}")), data_type: *data_type, values });
        }
    }
    flat
}

/// Returns `result` as one batch: its columns in their own types, then `_layer` and `_finality` as text. A file of the batch
/// is about as large as its columns, so these have to fit the memory of the query.
pub fn batch(result: &QueryResult, budget: &QueryBudget) -> Result<RecordBatch, WriteError> {
    let layers: StringViewArray = result.layers.iter().map(|l| Some(l.name())).collect();
    let finality: StringViewArray = result.finality.iter().map(|f| Some(f.name())).collect();
    let flat = columns(result);
    let mut columns: Vec<ArrayRef> = flat.iter().map(|c| Arc::clone(&c.values)).collect();
    columns.extend([Arc::new(layers) as ArrayRef, Arc::new(finality)]);
    let mut fields: Vec<Field> =
        flat.iter().map(|c| Field::new(c.name.as_ref(), c.values.data_type().clone(), true)).collect();
    fields.extend(["_layer", "_finality"].map(|name| Field::new(name, DataType::String.arrow(), false)));
    let options = RecordBatchOptions::new().with_row_count(Some(result.rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    budget.check(batch.get_array_memory_size())?;
    Ok(batch)
}
