//! Defines the SQL types and the one Arrow type that carries each, in the log, the archive and every response.
//!
//! One SQL type has exactly one Arrow type, in the log, the archive and every response.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, TimeUnit};
use serde::{Deserialize, Serialize};

/// A column type of the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    Boolean,
    /// 32-bit signed integer.
    Int,
    /// 64-bit signed integer.
    BigInt,
    /// IEEE 754 binary64.
    Double,
    /// Fixed point: `precision` digits in all (at most 38), `scale` of them behind the point.
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// UTF-8, compared by bytes.
    String,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// A JSON text. Only answers have it, such as those of TOP_K; no column of a stream.
    Json,
}

impl DataType {
    /// The Arrow type that carries this type everywhere.
    pub fn arrow(self) -> ArrowType {
        match self {
            DataType::Boolean => ArrowType::Boolean,
            DataType::Int => ArrowType::Int32,
            DataType::BigInt => ArrowType::Int64,
            DataType::Double => ArrowType::Float64,
            DataType::Decimal { precision, scale } => ArrowType::Decimal128(precision, scale),
            DataType::String | DataType::Json => ArrowType::Utf8View,
            DataType::Date => ArrowType::Date32,
            DataType::Timestamp => timestamp_type(),
        }
    }

    /// The type of a column that `arrow` carries, here or in a table as other readers see it; `None`: none of ours.
    pub fn of_arrow(arrow: &ArrowType) -> Option<DataType> {
        Some(match arrow {
            ArrowType::Boolean => DataType::Boolean,
            ArrowType::Int32 => DataType::Int,
            ArrowType::Int64 => DataType::BigInt,
            ArrowType::Float64 => DataType::Double,
            ArrowType::Decimal128(precision, scale) => DataType::Decimal { precision: *precision, scale: *scale },
            ArrowType::Utf8View | ArrowType::Utf8 | ArrowType::LargeUtf8 => DataType::String,
            ArrowType::Date32 => DataType::Date,
            ArrowType::Timestamp(TimeUnit::Microsecond, _) => DataType::Timestamp,
            _ => return None,
        })
    }

    /// INT or BIGINT.
    pub fn is_integer(self) -> bool {
        matches!(self, DataType::Int | DataType::BigInt)
    }

    /// INT, BIGINT, DOUBLE or DECIMAL.
    pub fn is_numeric(self) -> bool {
        self.is_integer() || matches!(self, DataType::Double | DataType::Decimal { .. })
    }
}

/// Microseconds, UTC: the Arrow type of every TIMESTAMP column.
pub fn timestamp_type() -> ArrowType {
    ArrowType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Boolean => f.write_str("BOOLEAN"),
            DataType::Int => f.write_str("INT"),
            DataType::BigInt => f.write_str("BIGINT"),
            DataType::Double => f.write_str("DOUBLE"),
            DataType::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            DataType::String => f.write_str("STRING"),
            DataType::Date => f.write_str("DATE"),
            DataType::Timestamp => f.write_str("TIMESTAMP"),
            DataType::Json => f.write_str("JSON"),
        }
    }
}
