//! Converts one value of a column to JSON, as in query responses: times are RFC 3339, DECIMALs are strings.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use serde_json::Value;

use crate::time::{Day, Micros};

/// Returns the value in `row`. Columns are of the types of [`crate::types::DataType`].
pub fn json_cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        ArrowType::Boolean => column.as_boolean().value(row).into(),
        ArrowType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        ArrowType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        ArrowType::Float64 => {
            // Text for what JSON does not have: null would mean that the value is missing.
            crate::double::to_json(column.as_primitive::<Float64Type>().value(row))
        }
        ArrowType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        ArrowType::Date32 => Day(column.as_primitive::<Date32Type>().value(row)).to_string().into(),
        ArrowType::Timestamp(..) => {
            Micros(column.as_primitive::<TimestampMicrosecondType>().value(row)).to_string().into()
        }
        _ => column.as_string_view().value(row).into(),
    }
}

/// The value in `row` as a number, if the column is numeric and it is not null.
pub fn number(column: &ArrayRef, row: usize) -> Option<f64> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        ArrowType::Int32 => Some(f64::from(column.as_primitive::<Int32Type>().value(row))),
        ArrowType::Int64 => Some(column.as_primitive::<Int64Type>().value(row) as f64),
        ArrowType::Float64 => Some(column.as_primitive::<Float64Type>().value(row)),
        ArrowType::Decimal128(_, scale) => {
            Some(column.as_primitive::<Decimal128Type>().value(row) as f64 / 10f64.powi(i32::from(*scale)))
        }
        _ => None,
    }
}
