//! Passes columns between Arrow and Polars without copying, over the Arrow C data interface.
//!
//! The one file with `unsafe`: it hands buffers over by their addresses, as the interface defines it.
#![allow(unsafe_code)]

use arrow::array::{Array, ArrayRef, make_array};
use arrow::datatypes::{DataType as ArrowType, TimeUnit};
use arrow::ffi::{FFI_ArrowArray, from_ffi_and_data_type};
use polars::prelude::{ArrowDataType, ArrowTimeUnit, CompatLevel, Series};
use polars_arrow::ffi::{ArrowArray, export_array_to_c, import_array_from_c};

use super::EvaluateError;
use super::kernel::polars_type;
use crate::types::DataType;

// Both are the C struct `ArrowArray`.
const _: () = assert!(size_of::<FFI_ArrowArray>() == size_of::<ArrowArray>());
const _: () = assert!(align_of::<FFI_ArrowArray>() == align_of::<ArrowArray>());

/// The column as a Polars series called `name`, sharing its buffers. Errors: a type that no [`DataType`] has.
pub fn to_polars_series(name: &str, array: &ArrayRef) -> Result<Series, EvaluateError> {
    let data_type = match array.data_type() {
        ArrowType::Boolean => ArrowDataType::Boolean,
        ArrowType::Int32 => ArrowDataType::Int32,
        ArrowType::Int64 => ArrowDataType::Int64,
        ArrowType::Float64 => ArrowDataType::Float64,
        ArrowType::Decimal128(precision, scale) if *scale >= 0 => {
            ArrowDataType::Decimal(usize::from(*precision), usize::from(scale.unsigned_abs()))
        }
        ArrowType::Utf8View => ArrowDataType::Utf8View,
        ArrowType::Date32 => ArrowDataType::Date32,
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) => {
            ArrowDataType::Timestamp(ArrowTimeUnit::Microsecond, zone.as_deref().map(Into::into))
        }
        other => return Err(EvaluateError::UnknownType(other.clone())),
    };
    let exported = FFI_ArrowArray::new(&array.to_data());
    // SAFETY: both types are the C struct `ArrowArray` (asserted above); ownership moves with the value, and the
    // release callback inside it frees what arrow exported. `data_type` describes the exported buffers: it is matched
    // above.
    let array = unsafe {
        let array = std::mem::transmute::<FFI_ArrowArray, ArrowArray>(exported);
        import_array_from_c(array, data_type)?
    };
    Ok(Series::from_arrow(name.into(), array)?)
}

/// The series as an Arrow column of type `wanted`, sharing its buffers if it is in one piece. Errors: another type.
pub fn from_polars(series: &Series, wanted: DataType) -> Result<ArrayRef, EvaluateError> {
    if *series.dtype() != polars_type(wanted) {
        let given = series.dtype().to_string();
        return Err(EvaluateError::WrongType { given, wanted: wanted.to_string() });
    }
    let array = series.rechunk().to_arrow(0, CompatLevel::newest());
    let exported = export_array_to_c(array);
    // SAFETY: as above, the other way round. A series of this type has exactly the buffers of `wanted.arrow()`.
    let data = unsafe {
        let array = std::mem::transmute::<ArrowArray, FFI_ArrowArray>(exported);
        from_ffi_and_data_type(array, wanted.arrow())?
    };
    Ok(make_array(data))
}
