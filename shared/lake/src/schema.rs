//! Converts Arrow schemas to Delta schemas, and compares two of them.

use std::fmt;

use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::{StructField, StructType};

use super::LakeError;

/// The difference between a table's columns and the wanted ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChange {
    /// No difference.
    None,
    /// Columns were added, omitted, reordered or made nullable: old files can still be read, with nulls where a
    /// column is missing.
    Compatible,
    /// A column has another type: old files no longer fit. The text names the column and both types.
    Incompatible(String),
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaChange::None => f.write_str("no change"),
            SchemaChange::Compatible => f.write_str("a compatible change"),
            SchemaChange::Incompatible(reason) => f.write_str(reason),
        }
    }
}

/// Returns the Delta schema of `schema`, with the DATE column `partition_column` at the end if `schema` lacks it.
pub(super) fn delta_schema(table: &str, schema: &Schema, partition_column: &str) -> Result<StructType, LakeError> {
    let wrong = |reason: String| LakeError::Schema { table: table.to_owned(), reason };
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    match fields.iter().find(|field| field.name() == partition_column) {
        None => fields.push(Field::new(partition_column, ArrowType::Date32, true)),
        Some(field) if field.data_type() == &ArrowType::Date32 => {}
        Some(field) => {
            let found = field.data_type();
            return Err(wrong(format!("the partition column {partition_column} must be a DATE, it is {found}")));
        }
    }
    (&Schema::new(fields)).try_into_kernel().map_err(|e| wrong(e.to_string()))
}

/// Returns how `wanted` differs from `present`.
pub(super) fn change(present: &StructType, wanted: &StructType) -> SchemaChange {
    let same = |a: &StructField, b: &StructField| {
        a.name() == b.name() && a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable()
    };
    if present.fields().len() == wanted.fields().len() && present.fields().zip(wanted.fields()).all(|(a, b)| same(a, b))
    {
        return SchemaChange::None;
    }
    for old in present.fields() {
        let Some(new) = wanted.field(old.name()) else { continue };
        if new.data_type() != old.data_type() {
            let (old_type, new_type) = (old.data_type(), new.data_type());
            return SchemaChange::Incompatible(format!("column {} was {old_type} and is now {new_type}", old.name()));
        }
    }
    SchemaChange::Compatible
}
