//! Builds Arrow columns from rows: one builder per column, filled row by row.

use std::sync::Arc;

use arrow::array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::array::{ArrayRef, RecordBatch};
use shared::stream::Stream;
use shared::types::DataType;

use super::row::{Cell, Row};

/// The columns of a stream while they are being filled.
pub(super) struct Columns(Vec<Builder>);

/// A column of one type while it is being filled.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    // Long strings are copied next to each other: views into the body would make every column of the log's frame carry
    // the whole body.
    String(StringViewBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Columns {
    /// Empty columns of `stream`, with room for `rows`.
    pub(super) fn new(stream: &Stream, rows: usize) -> Columns {
        Columns(stream.columns.iter().map(|column| Builder::new(column.data_type, rows)).collect())
    }

    /// Appends the row and empties it.
    pub(super) fn append(&mut self, row: &mut Row<'_>) {
        for (builder, cell) in self.0.iter_mut().zip(&mut row.cells) {
            builder.append(cell, &row.unescaped);
            *cell = Cell::Missing;
        }
        row.unescaped.clear();
        row.unknown_fields = 0;
        row.entered.fill(false);
    }

    /// The rows appended so far, as a batch of `stream`'s schema.
    pub(super) fn finish(self, stream: &Stream) -> RecordBatch {
        let arrays = self.0.into_iter().map(Builder::finish).collect();
        RecordBatch::try_new(stream.schema(), arrays).expect("the builders were made from the same columns")
    }
}

impl Builder {
    /// An empty column of the type, with room for `rows`.
    pub(super) fn new(data_type: DataType, rows: usize) -> Builder {
        match data_type {
            DataType::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int => Builder::Int(Int32Builder::with_capacity(rows)),
            DataType::BigInt => Builder::BigInt(Int64Builder::with_capacity(rows)),
            DataType::Double => Builder::Double(Float64Builder::with_capacity(rows)),
            DataType::Decimal { .. } => {
                Builder::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(data_type.arrow()))
            }
            DataType::String | DataType::Json => Builder::String(StringViewBuilder::with_capacity(rows)),
            DataType::Date => Builder::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp => {
                Builder::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type.arrow()))
            }
        }
    }

    /// Appends a value; one that the type cannot hold is NULL.
    #[inline]
    pub(super) fn append(&mut self, cell: &Cell<'_>, unescaped: &str) {
        match (self, cell) {
            (Builder::Boolean(b), Cell::Boolean(value)) => b.append_value(*value),
            (Builder::Int(b), Cell::Integer(value)) => b.append_value(*value as i32),
            (Builder::BigInt(b), Cell::Integer(value)) => b.append_value(*value),
            (Builder::Double(b), Cell::Double(value)) => b.append_value(*value),
            (Builder::Decimal(b), Cell::Decimal(value)) => b.append_value(*value),
            (Builder::String(b), Cell::Text(text)) => b.append_value(text),
            (Builder::String(b), Cell::Unescaped { start, end }) => b.append_value(&unescaped[*start..*end]),
            (Builder::Date(b), Cell::Integer(value)) => b.append_value(*value as i32),
            (Builder::Timestamp(b), Cell::Integer(value)) => b.append_value(*value),
            (builder, _) => builder.append_null(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Builder::Boolean(b) => b.append_null(),
            Builder::Int(b) => b.append_null(),
            Builder::BigInt(b) => b.append_null(),
            Builder::Double(b) => b.append_null(),
            Builder::Decimal(b) => b.append_null(),
            Builder::String(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Timestamp(b) => b.append_null(),
        }
    }

    /// The column.
    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Builder::Boolean(mut b) => Arc::new(b.finish()),
            Builder::Int(mut b) => Arc::new(b.finish()),
            Builder::BigInt(mut b) => Arc::new(b.finish()),
            Builder::Double(mut b) => Arc::new(b.finish()),
            Builder::Decimal(mut b) => Arc::new(b.finish()),
            Builder::String(mut b) => Arc::new(b.finish()),
            Builder::Date(mut b) => Arc::new(b.finish()),
            Builder::Timestamp(mut b) => Arc::new(b.finish()),
        }
    }
}
