//! Reads the versions of the rows of tables at a start, for views that are joined with them: those of events that the log no longer has from
//! the archive, the others from the log. Live figures are right only if all changes that were acknowledged are among them.

use std::fs::File;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use lake::Lake;
use lake::columns::columns_named;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::handoff::LogReplay;
use shared::ids::{Offset, Partition};
use shared::lookup::table::{LookupTable, Lookups, TableEvents};
use shared::stream::system_columns;

use crate::entities::restore::each_archived_file;
use crate::entities::{ReadError, fitted};
use crate::partition::PartitionLog;
use crate::streams::{Intake, StreamLog};

/// Rows decoded at once.
const READ_ROWS: usize = 16 * 1024;

/// The events of a partition that only the archive has.
struct Archived {
    table: Arc<LookupTable>,
    before: Offset,
}

/// Reads the versions of all tables of `lookups`. Call it before the logs accept events.
///
/// # Errors
/// The log or a file of the archive cannot be read: events would see other rows than there are.
pub async fn restore(intake: &Intake, lake: &Lake, lookups: &Lookups) -> Result<(), ReadError> {
    for table in lookups.tables() {
        let Some(log) = intake.stream(&table.table().name) else { continue };
        let names = columns_read(table);
        let archived = |_: Partition, partition: &PartitionLog| {
            Some(Arc::new(Archived { table: Arc::clone(table), before: partition.range().0 }))
        };
        each_archived_file(log, lake, &names, archived, restore_file).await?;
        let (log, table) = (Arc::clone(log), Arc::clone(table));
        tokio::task::spawn_blocking(move || restore_log(&log, &table)).await??;
    }
    Ok(())
}

/// The columns of the archive that versions consist of.
fn columns_read(table: &LookupTable) -> Vec<String> {
    let stream = table.table();
    let key = stream.table.map_or_else(Vec::new, |rows| rows.key.to_vec());
    let own =
        key.into_iter().chain([stream.event_time]).chain(stream.retracted()).chain(table.columns().iter().copied());
    let own = own.map(|index| stream.columns[index].name.clone());
    let system = [system_columns::PARTITION, system_columns::OFFSET, system_columns::ARRIVED_AT];
    own.chain(system.map(str::to_owned)).collect()
}

/// Reads what the log has, and puts everything in its order.
fn restore_log(log: &StreamLog, table: &LookupTable) -> Result<(), ReadError> {
    let mut failed = Ok(());
    for partition in (0..log.stream().partitions).map(Partition) {
        let (start, head) = log.range(partition);
        let replayed = log.replay(partition, start, head, &mut |batch| {
            if failed.is_ok() {
                failed = table.restore_batch(&batch);
            }
        });
        replayed.map_err(|error| ReadError::Other(error.to_string()))?;
    }
    failed?;
    table.settle()?;
    Ok(())
}

fn restore_file(path: &str, archived: &Archived) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let names = columns_read(&archived.table);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mask = columns_named(builder.parquet_schema(), &names);
    let reader = builder.with_projection(mask).with_batch_size(READ_ROWS).build().map_err(|error| error.to_string())?;
    for batch in reader {
        let restored = batch.and_then(|batch| restore_rows(&fitted(&batch, archived.table.table())?, archived));
        restored.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Restores rows with the columns of the archive; those that were not read are NULL.
fn restore_rows(rows: &arrow::array::RecordBatch, archived: &Archived) -> Result<(), ArrowError> {
    let own = archived.table.table().columns.len();
    let before = i64::try_from(archived.before.0).unwrap_or(i64::MAX);
    let is_archived = rows.column(own + 1).as_primitive::<Int64Type>().iter().map(|offset| Some(offset < Some(before)));
    let rows = filter_record_batch(rows, &is_archived.collect())?;
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let (columns, system) = rows.columns().split_at(own);
    let partition = system[0].as_primitive::<Int32Type>().value(0);
    let offsets = system[1].as_primitive::<Int64Type>();
    let accepted = system[2].as_primitive::<TimestampMicrosecondType>();
    archived.table.restore(&TableEvents {
        partition: Partition(partition.unsigned_abs()),
        columns,
        offsets: &|row| offsets.value(row).unsigned_abs(),
        accepted_at: &|row| accepted.value(row),
    })
}
