//! Cuts the tables that a view is joined with, and reads the versions of their rows before the cut.
//!
//! A table is cut twice. The first cut comes before that of the stream: every event since then was folded with the changes before it, so
//! only later changes can explain a difference of the next run. The second comes once the speed layer has closed its generations: it
//! has no change that the run does not have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType as ArrowType, Field, Int64Type, Schema, TimestampMicrosecondType};
use lake::{ArchiveTags, LostEvents, Table, TablePath, TableSnapshot, VersionLease};
use polars::prelude::DataFrame;
use shared::evaluate::from_polars;
use shared::ids::{Partition, StreamName};
use shared::lookup::table::{LookupTable, Lookups, TableEvents};
use shared::seam::Cut;
use shared::stream::{Stream, system_columns};
use shared::types::DataType;
use shared::version::LookupCut;

use crate::blocking::blocking;
use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::plan::planner::PlanError;
use crate::recompute::scan::{ArchiveSource, collect};
use crate::run::Attempt;
use crate::run::served::generations;
use crate::watch::Watch;

/// Rows read with one query.
const QUERY_ROWS: u64 = 1_000_000;

/// A table at the cuts of a run, with the archive that has the changes before them.
pub struct TableCut {
    stream: Arc<Stream>,
    pub cut: LookupCut,
    table: Table,
    archive: Arc<TableSnapshot>,
    /// I10: keeps the files of the snapshot.
    _lease: VersionLease,
}

/// The tables of a run, each with its first cut.
pub struct FirstCuts(Vec<(Arc<Stream>, Cut)>);

/// The versions that a run joins events with.
#[derive(Debug, Default)]
pub struct RunLookups {
    /// `None`: the view has no joins.
    pub tables: Option<Arc<Lookups>>,
    /// The spans of event time, half-open, in which events may see other versions than in the active version of the view.
    pub changed: Vec<(i64, i64)>,
    /// The same for what was served: live figures, and the active version.
    pub changed_since_served: Vec<(i64, i64)>,
}

/// Cuts the tables before the stream is cut.
pub async fn cut_before(attempt: &Attempt<'_>) -> Result<FirstCuts, RunFailure> {
    let (layers, view) = (&attempt.executor.layers, &attempt.job.view);
    let mut cuts: Vec<(Arc<Stream>, Cut)> = Vec::new();
    for join in &view.joins {
        let name = &join.table.name;
        if cuts.iter().any(|(stream, _)| stream.name == *name) {
            continue;
        }
        let stream = layers.streams.iter().find(|stream| stream.name == *name);
        let stream = stream.ok_or_else(|| RunFailure::NoTable(name.clone()))?;
        cuts.push((Arc::clone(stream), cut(attempt, name).await?));
    }
    Ok(FirstCuts(cuts))
}

async fn cut(attempt: &Attempt<'_>, table: &StreamName) -> Result<Cut, RunFailure> {
    let cutting = attempt.executor.layers.cutter.cut(table, &attempt.job.view.name);
    attempt.cancel().or_cancelled(cutting).await?.map_err(RunFailure::Cut)
}

/// Cuts the tables once the speed layer has reached `stream_cut`, and waits until the archive has all changes before.
pub async fn cut_after(attempt: &Attempt<'_>, first: FirstCuts, stream_cut: &Cut) -> Result<Vec<TableCut>, RunFailure> {
    if first.0.is_empty() {
        return Ok(Vec::new());
    }
    let active = attempt.active;
    attempt.cancel().or_cancelled(generations(attempt, active, &active.seam, stream_cut)).await??;
    let layers = &attempt.executor.layers;
    let mut cuts = Vec::with_capacity(first.0.len());
    for (stream, known) in first.0 {
        let read = cut(attempt, &stream.name).await?;
        let archived = layers.archive.archived(&stream.name, &read);
        attempt.cancel().or_cancelled(archived).await?.map_err(RunFailure::Archive)?;
        let path = TablePath::events(&stream.name);
        let table = layers.lake.table(&path, stream.archive_schema(), system_columns::EVENT_DATE).await?;
        let (archive, lease) = table.held_snapshot().await?;
        cuts.push(TableCut { stream, cut: LookupCut { known, read }, table, archive, _lease: lease });
    }
    Ok(cuts)
}

/// Reads the versions before the cuts.
pub async fn read(attempt: &Attempt<'_>, cuts: &[TableCut]) -> Result<RunLookups, RunFailure> {
    if cuts.is_empty() {
        return Ok(RunLookups::default());
    }
    let streams: Vec<Arc<Stream>> = cuts.iter().map(|cut| Arc::clone(&cut.stream)).collect();
    let view = attempt.job.view.as_ref();
    let may_be_on_spark = attempt.executor.settings.engines.spark_for(&view.name, u64::MAX).is_some();
    // Nothing is forgotten: a run that needs more than the limit fails.
    let lookups = Arc::new(match may_be_on_spark {
        true => Lookups::with_keys(&streams, [view], usize::MAX),
        false => Lookups::of(&streams, [view], usize::MAX),
    });
    let bytes_max = attempt.executor.settings.lookup_bytes_max;
    let (mut changed, mut changed_since_served) = (Vec::new(), Vec::new());
    for cut in cuts {
        let name = &cut.stream.name;
        let Some(table) = lookups.get(name).cloned() else { continue };
        table.noting_changes();
        let files = cut.files()?;
        let source = ArchiveSource { table: cut.table.clone(), stream: Arc::clone(&cut.stream) };
        let lost = cut.archive.lost.as_ref().map_or(0, |lost: &LostEvents| lost.ledger().events);
        let (read, watch, of_table) = (cut.cut.read.clone(), attempt.entry.watch.clone(), Arc::clone(&table));
        blocking(move || read_versions(&source, &files, (&read, lost), &of_table, bytes_max, &watch)).await?;
        // I5: what the active version has seen differently is recomputed.
        let before = attempt.previous().and_then(|version| version.lookups.get(name));
        changed.extend(table.changed_since(&before.map(|before| before.read.clone()).unwrap_or_default()));
        let served = attempt.active.version.as_ref().and_then(|version| version.lookups.get(name));
        let has_forgotten = attempt.executor.layers.lookups.get(name).is_some_and(|t| t.status().forgotten > 0);
        match has_forgotten {
            true => changed_since_served.push((i64::MIN, i64::MAX)),
            false => changed_since_served
                .extend(table.changed_since(&served.map(|served| served.known.clone()).unwrap_or_default())),
        }
    }
    Ok(RunLookups { tables: Some(lookups), changed, changed_since_served })
}

impl TableCut {
    /// Returns the cuts by table.
    pub fn by_table(cuts: &[TableCut]) -> BTreeMap<StreamName, LookupCut> {
        cuts.iter().map(|cut| (cut.stream.name.clone(), cut.cut.clone())).collect()
    }

    /// Returns the files with changes before the cut, those of a partition one after the other.
    fn files(&self) -> Result<Vec<ArchiveFile>, RunFailure> {
        let mut files = Vec::new();
        for file in &self.archive.files {
            let tags = ArchiveTags::from_tags(&file.tags);
            let tags = tags.map_err(|error| PlanError::Tags { path: file.path.clone(), reason: error.to_string() })?;
            if tags.from < self.cut.read.offset(tags.partition) {
                files.push(ArchiveFile { file: file.clone(), tags });
            }
        }
        files.sort_by_key(|file| (file.tags.partition, file.tags.from));
        Ok(files)
    }
}

/// Reads the changes of `files` before `cut` into `table`. All must be there, but for those that are known to be lost.
fn read_versions(
    source: &ArchiveSource,
    files: &[ArchiveFile],
    (cut, lost): (&Cut, u64),
    table: &LookupTable,
    bytes_max: usize,
    watch: &Watch,
) -> Result<(), RunFailure> {
    let stream = &source.stream;
    let mut rest = files;
    while let Some(first) = rest.first() {
        let partition = first.tags.partition;
        let mut rows = 0;
        let fits = |file: &&ArchiveFile| {
            rows += file.tags.rows;
            file.tags.partition == partition && (rows == file.tags.rows || rows <= QUERY_ROWS)
        };
        let count = rest.iter().take_while(fits).count();
        let (some, others) = rest.split_at(count);
        rest = others;
        let reads = ColumnsRead::of(stream, table);
        let (frame, _held) = source.scan(some, reads.names(stream), watch)?;
        let frame = collect(watch.stopping(frame))?;
        let rows = before_cut(&reads.batch(stream, &frame)?, cut.offset(partition).0)?;
        add(stream, table, partition, (&reads, &rows))?;
        if table.status().bytes > bytes_max as u64 {
            return Err(RunFailure::LookupTooLarge { table: stream.name.clone(), bytes_max });
        }
    }
    let (found, accepted) = (table.settle()?, cut.accepted().events.saturating_sub(lost));
    // I2: events are joined with all changes before the cut.
    if found != accepted {
        return Err(RunFailure::ChangesMissing { table: stream.name.clone(), found, accepted });
    }
    Ok(())
}

/// The columns of a table that are read, by index and in their order; offsets and times of acceptance follow.
struct ColumnsRead(Vec<usize>);

impl ColumnsRead {
    fn of(stream: &Stream, table: &LookupTable) -> ColumnsRead {
        let key = stream.table.map(|rows| rows.key.first());
        let mut columns: Vec<usize> = table.columns().to_vec();
        columns.extend(key.into_iter().chain([stream.event_time]).chain(stream.retracted()));
        columns.sort_unstable();
        columns.dedup();
        ColumnsRead(columns)
    }

    fn typed(&self, stream: &Stream) -> Vec<(String, DataType)> {
        let own = self.0.iter().map(|index| {
            let column = &stream.columns[*index];
            (column.name.clone(), column.data_type)
        });
        let system = [(system_columns::OFFSET, DataType::BigInt), (system_columns::ARRIVED_AT, DataType::Timestamp)];
        own.chain(system.map(|(name, data_type)| (name.to_owned(), data_type))).collect()
    }

    fn names(&self, stream: &Stream) -> Vec<String> {
        self.typed(stream).into_iter().map(|(name, _)| name).collect()
    }

    fn batch(&self, stream: &Stream, frame: &DataFrame) -> Result<RecordBatch, RunFailure> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (name, data_type) in self.typed(stream) {
            let column = from_polars(frame.column(&name)?.as_materialized_series(), data_type)?;
            fields.push(Field::new(name, data_type.arrow(), true));
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(frame.height()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

/// Returns the rows with offsets before `end`. A compacted file may have later ones.
fn before_cut(rows: &RecordBatch, end: u64) -> Result<RecordBatch, RunFailure> {
    let offsets = rows.column(rows.num_columns() - 2).as_primitive::<Int64Type>();
    let is_before: BooleanArray = offsets.values().iter().map(|offset| Some(offset.unsigned_abs() < end)).collect();
    Ok(filter_record_batch(rows, &is_before)?)
}

fn add(
    stream: &Stream,
    table: &LookupTable,
    partition: Partition,
    (reads, rows): (&ColumnsRead, &RecordBatch),
) -> Result<(), RunFailure> {
    let own = reads.0.len();
    // Columns that are not read have no values.
    let mut columns: Vec<ArrayRef> = vec![new_null_array(&ArrowType::Null, rows.num_rows()); stream.columns.len()];
    for (index, column) in reads.0.iter().zip(rows.columns()) {
        columns[*index] = Arc::clone(column);
    }
    let offsets = rows.column(own).as_primitive::<Int64Type>();
    let accepted = rows.column(own + 1).as_primitive::<TimestampMicrosecondType>();
    Ok(table.restore(&TableEvents {
        partition,
        columns: &columns,
        offsets: &|row| offsets.value(row).unsigned_abs(),
        accepted_at: &|row| accepted.value(row),
    })?)
}
