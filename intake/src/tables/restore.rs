//! Rebuilds the current rows of tables at a start, from the changes that the log no longer has: the archive holds each with its
//! offset.

use std::fs::File;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use lake::Lake;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::ids::Partition;
use shared::stream::{Stream, system_columns};

use crate::entities::restore::each_archived_file;
use crate::entities::{ReadError, fitted};
use crate::partition::{CurrentRows, PartitionLog};
use crate::streams::Intake;

/// Rows decoded at once.
const READ_ROWS: usize = 16 * 1024;

/// Reads the changes that only the archive has into the rows of all tables. Call it before the logs accept events.
///
/// # Errors
/// A file of the archive cannot be read: changes would retract other rows than were asserted.
pub async fn restore(intake: &Intake, lake: &Lake) -> Result<(), ReadError> {
    for log in intake.streams().filter(|log| log.stream().table.is_some()) {
        let stream = log.stream();
        let names: Vec<String> = stream.archive_schema().fields().iter().map(|field| field.name().clone()).collect();
        let of_file = std::sync::Arc::clone(stream);
        let rows_of = |_: Partition, partition: &PartitionLog| partition.rows().cloned();
        each_archived_file(log, lake, &names, rows_of, move |path, rows| restore_file(path, &of_file, rows)).await?;
    }
    Ok(())
}

fn restore_file(path: &str, stream: &Stream, rows: &CurrentRows) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let reader = builder.with_batch_size(READ_ROWS).build().map_err(|error| error.to_string())?;
    for batch in reader {
        let restored = batch.and_then(|batch| {
            let offsets = batch.column_by_name(system_columns::OFFSET);
            let offsets = offsets.ok_or_else(|| {
                arrow::error::ArrowError::SchemaError(format!("there is no column {}", system_columns::OFFSET))
            })?;
            let offsets = cast(offsets, &DataType::Int64)?;
            let offsets = offsets.as_primitive::<Int64Type>();
            rows.restore(fitted(&batch, stream)?.columns(), |row| offsets.value(row))
        });
        restored.map_err(|error| error.to_string())?;
    }
    Ok(())
}
