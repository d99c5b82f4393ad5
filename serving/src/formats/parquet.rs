//! Writes results as Parquet files: the columns in their own types, then `_layer` and `_finality` as text.

use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use shared::partial::query_budget::{Exceeded, QueryBudget};

use super::flat;
use crate::execute::QueryResult;

/// The reason why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Columns(#[from] ArrowError),
    #[error(transparent)]
    File(#[from] ParquetError),
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
}

/// Writes the result as one file, compressed with zstd, within the memory of its query.
pub fn write(result: &QueryResult, budget: &QueryBudget) -> Result<Vec<u8>, WriteError> {
    let batch = flat::batch(result, budget)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}
