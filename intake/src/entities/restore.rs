//! Rebuilds the last sequences of entities at a start, for events that the log no longer has: the archive holds each event
//! with its sequence.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::{StreamExt, stream};
use lake::columns::columns_named;
use lake::{ArchiveTags, DataFile, Lake, TablePath};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::ids::Partition;
use shared::stream::system_columns;

use super::ReadError;
use crate::partition::{EntityTable, PartitionLog, stored_sequences};
use crate::streams::{Intake, StreamLog};

/// Rows decoded at once.
const READ_ROWS: usize = 64 * 1024;
/// Files read at the same time.
const FILES_AT_ONCE: usize = 4;

/// Reads the sequences of the events that only the archive has into the tables of all streams with an entity. Call it
/// before the logs accept events.
///
/// # Errors
/// A file of the archive cannot be read: sequences would be assigned a second time.
pub async fn restore(intake: &Intake, lake: &Lake) -> Result<(), ReadError> {
    for log in intake.streams().filter(|log| log.stream().entity.is_some()) {
        restore_stream(log, lake).await?;
    }
    Ok(())
}

async fn restore_stream(log: &StreamLog, lake: &Lake) -> Result<(), ReadError> {
    let stream = log.stream();
    let entity = stream.columns[stream.entity.unwrap_or_default()].name.clone();
    let names = [entity.clone(), system_columns::SEQUENCE.to_owned()];
    let table_of = |_: Partition, partition: &PartitionLog| partition.entities().cloned();
    each_archived_file(log, lake, &names, table_of, move |path, table| restore_file(path, &entity, table)).await
}

/// Reads each file of the archive with events that the log of their partition no longer has, some at the same time. `target` is what
/// `read` restores of a partition; `names` are the columns that it needs.
pub(crate) async fn each_archived_file<T: Send + Sync + 'static>(
    log: &StreamLog,
    lake: &Lake,
    names: &[String],
    target: impl Fn(Partition, &PartitionLog) -> Option<Arc<T>>,
    read: impl Fn(&str, &T) -> Result<(), String> + Send + Sync + 'static,
) -> Result<(), ReadError> {
    let stream = log.stream();
    let Some(table) = lake.open_table(&TablePath::events(&stream.name)).await? else { return Ok(()) };
    let (snapshot, _lease) = table.held_snapshot().await?;
    let bytes = AtomicU64::new(0);
    let mut reads = Vec::new();
    for file in &snapshot.files {
        let Ok(tags) = ArchiveTags::from_tags(&file.tags) else { continue };
        let Some(partition) = log.partition(tags.partition) else { continue };
        // Events that the log still has were restored from it.
        let (Some(target), true) = (target(tags.partition, partition), tags.from < partition.range().0) else {
            continue;
        };
        reads.push((file.clone(), target));
    }
    let read = Arc::new(read);
    let reads = reads.into_iter().map(|(file, target): (DataFile, Arc<T>)| {
        let (table, bytes, read) = (&table, &bytes, Arc::clone(&read));
        async move {
            let held = table.hold(std::slice::from_ref(&file), names, bytes).await?;
            let path = held.path(&file).unwrap_or_default().to_owned();
            let work = move || {
                let _held = held;
                read(&path, &target).map_err(|reason| ReadError::File { path, reason })
            };
            tokio::task::spawn_blocking(work).await?
        }
    });
    let mut done = stream::iter(reads).buffer_unordered(FILES_AT_ONCE);
    while let Some(file) = done.next().await {
        file?;
    }
    Ok(())
}

fn restore_file(path: &str, entity: &str, table: &EntityTable) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let mask = columns_named(builder.parquet_schema(), &[entity, system_columns::SEQUENCE]);
    let reader = builder.with_projection(mask).with_batch_size(READ_ROWS).build().map_err(|error| error.to_string())?;
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"));
        let entities = match column(entity)? {
            text if *text.data_type() == DataType::Utf8 => {
                cast(text, &DataType::Utf8View).map_err(|error| error.to_string())?
            }
            number => number.clone(),
        };
        table.restore(stored_sequences(&entities, column(system_columns::SEQUENCE)?));
    }
    Ok(())
}
