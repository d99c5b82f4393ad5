//! What is the Arrow stream of an answer? The IPC format that Arrow's own libraries read: schema, one batch, end.

use arrow::ipc::writer::StreamWriter;

use super::flat;
use super::parquet::WriteError;
use crate::answer::Answer;

/// Writes the answer as one IPC stream, not compressed.
pub fn write(answer: &Answer) -> Result<Vec<u8>, WriteError> {
    let batch = flat::batch(answer)?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema().as_ref())?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}
