//! Reads the events of one entity from files of the archive: the columns that decide first, the others of matching rows only.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{and, cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use futures::{StreamExt, stream};
use lake::{DataFile, Table};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter};
use parquet::file::metadata::PageIndexPolicy;
use shared::entity::EntityId;
use shared::entity_reader::EventSelection;
use shared::ids::Offset;
use shared::stream::{Stream, system_columns};
use shared::types::timestamp_type;

use super::collected::Collected;
use super::{ReadError, pages};
use crate::log::MatchingRows;

/// Rows decoded at once.
const READ_ROWS: usize = 16 * 1024;
/// Files read at the same time.
const FILES_AT_ONCE: usize = 4;

/// The events that are looked for.
#[derive(Debug, Clone)]
pub(super) struct EntityFilter {
    pub stream: Arc<Stream>,
    pub id: EntityId,
    pub selection: EventSelection,
}

impl EntityFilter {
    /// Whether events of the entity are selected, by their sequences and times of acceptance.
    fn selects(&self, sequence: i64, accepted_at: i64) -> bool {
        let EventSelection { from_sequence, to_sequence, accepted_from, accepted_before, .. } = self.selection;
        let sequence = sequence.max(0) as u64;
        (from_sequence..=to_sequence).contains(&sequence) && (accepted_from.0..accepted_before.0).contains(&accepted_at)
    }
}

/// The selected events among rows of the log that are of the entity, with the columns of the archive.
pub(super) fn matching_rows(filter: &EntityFilter, found: MatchingRows) -> Result<RecordBatch, ArrowError> {
    let MatchingRows { partition, arrived_at, rows, offsets } = found;
    let count = rows.num_rows();
    let (own, watermark) = rows.columns().split_at(rows.num_columns() - 1);
    let mut columns: Vec<ArrayRef> = own.to_vec();
    columns.push(Arc::new(Int32Array::from_value(partition.0 as i32, count)));
    columns.push(Arc::new(Int64Array::from_iter_values(offsets.iter().map(|offset| offset.0 as i64))));
    columns.push(Arc::new(TimestampMicrosecondArray::from_value(arrived_at.0, count).with_timezone("UTC")));
    columns.extend_from_slice(watermark);
    let rows = RecordBatch::try_new(filter.stream.archive_schema(), columns)?;
    let sequences = rows.column(filter.stream.sequence().unwrap_or_default()).as_primitive::<Int64Type>();
    let selected: BooleanArray =
        sequences.values().iter().map(|sequence| Some(filter.selects(*sequence, arrived_at.0))).collect();
    filter_record_batch(&rows, &selected)
}

/// Reads the selected events before `end` from `files` into `collected`.
pub(super) async fn read(
    table: &Table,
    files: Vec<DataFile>,
    filter: &EntityFilter,
    end: Offset,
    collected: &mut Collected,
) -> Result<(), ReadError> {
    let names: Vec<String> = filter.stream.archive_schema().fields().iter().map(|field| field.name().clone()).collect();
    let bytes = AtomicU64::new(0);
    let reads = files.into_iter().map(|file| {
        let (filter, names, bytes) = (filter.clone(), &names, &bytes);
        async move {
            // A file of a remote lake has only these columns here, without the index of its pages.
            let (held, is_whole) = match table.held_in_place(std::slice::from_ref(&file), names, bytes) {
                Some(held) => (held?, true),
                None => (table.hold(std::slice::from_ref(&file), names, bytes).await?, false),
            };
            let path = held.path(&file).unwrap_or_default().to_owned();
            let read = move || {
                // Held until it is read.
                let _held = held;
                rows_of_file(&path, is_whole, &filter, end).map_err(|reason| ReadError::File { path, reason })
            };
            tokio::task::spawn_blocking(read).await?
        }
    });
    let mut found = stream::iter(reads).buffer_unordered(FILES_AT_ONCE);
    while let Some(of_file) = found.next().await {
        collected.absorb(of_file?)?;
    }
    Ok(())
}

/// The first selected events of one file; `is_whole`: all of its bytes are there. Blocking.
fn rows_of_file(path: &str, is_whole: bool, filter: &EntityFilter, end: Offset) -> Result<Collected, String> {
    let mut collected = Collected::new(&filter.stream, filter.selection.limit);
    let file = File::open(path).map_err(|error| error.to_string())?;
    let index = if is_whole { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let options = ArrowReaderOptions::new().with_page_index_policy(index);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|error| error.to_string())?;
    let schema = filter.stream.archive_schema();
    let root = |name: &str| builder.parquet_schema().root_schema().get_fields().iter().position(|f| f.name() == name);
    let entity_name = &filter.stream.columns[filter.stream.entity.unwrap_or_default()].name;
    let deciding = [entity_name.as_str(), system_columns::SEQUENCE, system_columns::OFFSET, system_columns::ARRIVED_AT];
    let places: Option<Vec<usize>> = deciding.iter().map(|name| root(name)).collect();
    // A file without sequences is not one of this stream's log.
    let Some(places) = places else { return Ok(collected) };
    let (id, selection) = (filter.id.clone(), filter.clone());
    let of_entity = ArrowPredicateFn::new(ProjectionMask::roots(builder.parquet_schema(), [places[0]]), move |batch| {
        Ok(id.matches(batch.column(0)))
    });
    let in_range = ArrowPredicateFn::new(
        ProjectionMask::roots(builder.parquet_schema(), places[1..].iter().copied()),
        move |batch| selected(&batch, &selection, end),
    );
    let wanted: Vec<usize> = schema.fields().iter().filter_map(|field| root(field.name())).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let candidates = pages::candidates(builder.metadata(), places[0], &filter.id);
    let builder = match candidates {
        Some(rows) if !rows.selects_any() => return Ok(collected),
        Some(rows) => builder.with_row_selection(rows),
        None => builder,
    };
    let reader = builder
        .with_projection(mask)
        .with_batch_size(READ_ROWS)
        .with_row_filter(RowFilter::new(vec![Box::new(of_entity), Box::new(in_range)]))
        .build()
        .map_err(|error| error.to_string())?;
    for batch in reader {
        let rows = batch.and_then(|batch| fitted(&batch, &filter.stream));
        rows.and_then(|rows| collected.add(rows)).map_err(|error| error.to_string())?;
    }
    Ok(collected)
}

fn selected(batch: &RecordBatch, filter: &EntityFilter, end: Offset) -> Result<BooleanArray, ArrowError> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("the file has no column {name}")))
    };
    let sequences = cast(column(system_columns::SEQUENCE)?, &DataType::Int64)?;
    let offsets = cast(column(system_columns::OFFSET)?, &DataType::Int64)?;
    let accepted = cast(column(system_columns::ARRIVED_AT)?, &timestamp_type())?;
    let (sequences, offsets) = (sequences.as_primitive::<Int64Type>(), offsets.as_primitive::<Int64Type>());
    let accepted = accepted.as_primitive::<TimestampMicrosecondType>();
    let before_end: BooleanArray = offsets.values().iter().map(|offset| Some(*offset < end.0 as i64)).collect();
    let is_selected = |row: usize| sequences.is_valid(row) && filter.selects(sequences.value(row), accepted.value(row));
    let selected: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_selected(row))).collect();
    and(&before_end, &selected)
}

/// The rows with the columns of the archive; those that the file lacks are null.
pub(crate) fn fitted(rows: &RecordBatch, stream: &Stream) -> Result<RecordBatch, ArrowError> {
    let schema = stream.archive_schema();
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}
