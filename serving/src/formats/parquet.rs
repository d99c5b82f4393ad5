//! What is the Parquet file of an answer? Its columns in their own types, then `_layer` and `_finality` as text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use shared::types::DataType;

use super::flat;
use crate::answer::Answer;

/// Why no file could be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Columns(#[from] ArrowError),
    #[error(transparent)]
    File(#[from] ParquetError),
}

/// Writes the answer as one file, compressed with zstd.
pub fn write(answer: &Answer) -> Result<Vec<u8>, WriteError> {
    let batch = batch(answer)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

fn batch(answer: &Answer) -> Result<RecordBatch, ArrowError> {
    let layers: StringViewArray = answer.layers.iter().map(|l| Some(l.name())).collect();
    let finality: StringViewArray = answer.finality.iter().map(|f| Some(f.name())).collect();
    let flat = flat::columns(answer);
    let mut columns: Vec<ArrayRef> = flat.iter().map(|c| Arc::clone(&c.values)).collect();
    columns.extend([Arc::new(layers) as ArrayRef, Arc::new(finality)]);
    let mut fields: Vec<Field> =
        flat.iter().map(|c| Field::new(c.name.as_ref(), c.values.data_type().clone(), true)).collect();
    fields.extend(["_layer", "_finality"].map(|name| Field::new(name, DataType::String.arrow(), false)));
    let options = RecordBatchOptions::new().with_row_count(Some(answer.rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}
