//! What is the Parquet file of an answer? Its columns in their own types, then `_layer` and `_finality` as text.

use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

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
    let batch = flat::batch(answer)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}
