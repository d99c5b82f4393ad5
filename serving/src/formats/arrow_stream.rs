//! Writes results as Arrow IPC streams: schema, one batch, end of stream.

use arrow::ipc::writer::StreamWriter;
use shared::partial::query_budget::QueryBudget;

use super::flat;
use super::parquet::WriteError;
use crate::execute::QueryResult;

/// Writes the result as one IPC stream, uncompressed, within the memory of its query.
pub fn write(result: &QueryResult, budget: &QueryBudget) -> Result<Vec<u8>, WriteError> {
    let batch = flat::batch(result, budget)?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema().as_ref())?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}
