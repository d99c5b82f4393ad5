//! Writes rows as lines of JSON: times without a zone are UTC, nulls are omitted.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, make_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;

/// Appends rows as lines.
///
/// # Errors
/// For types that have no JSON form.
pub fn append(lines: &mut Vec<u8>, rows: &RecordBatch) -> Result<(), ArrowError> {
    let mut writer = LineDelimitedWriter::new(lines);
    writer.write(&with_utc_times(rows)?)?;
    writer.finish()
}

/// Marks times without a zone as UTC, so that they are written with a `Z`.
fn with_utc_times(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let DataType::Timestamp(unit, None) = field.data_type() else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        };
        let utc = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
        columns.push(make_array(column.to_data().into_builder().data_type(utc.clone()).build()?));
        fields.push(Arc::new(field.as_ref().clone().with_data_type(utc)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
