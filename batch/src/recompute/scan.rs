//! Reads the archive for a run: exactly the files of the plan, and only the columns needed.

use std::sync::Arc;

use lake::{DataFile, LocalFiles, Table};
use polars::io::HiveOptions;
use polars::prelude::{
    DataFrame, DataType as PolarsType, Engine, Expr, LazyFrame, PlRefPath, PolarsResult, ScanArgsParquet, Schema, col,
    lit, when,
};
use shared::evaluate::{column, polars_type};
use shared::limits::PARTITIONS_MAX;
use shared::stream::{Stream, system_columns};
use shared::types::DataType;
use tokio::runtime::Handle;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::watch::Watch;

/// The column of [`with_positions`].
pub const POSITION: &str = "__position";
/// Bits of a position that hold the offset; the bits above hold the partition. No partition reaches 2^54 events.
const OFFSET_BITS: u32 = 54;

/// The archive of a stream.
#[derive(Debug, Clone)]
pub struct ArchiveSource {
    pub table: Table,
    pub stream: Arc<Stream>,
}

impl ArchiveSource {
    /// Scans the named columns of `files`. A column that a file does not have is null. The frame can be read as long as the
    /// files are held; files that are not on this machine are fetched. Blocking.
    pub fn scan(
        &self,
        files: &[ArchiveFile],
        columns: impl IntoIterator<Item = String>,
        watch: &Watch,
    ) -> Result<(LazyFrame, LocalFiles), RunFailure> {
        let columns: Vec<String> = columns.into_iter().collect();
        let tagged = files;
        let files: Vec<DataFile> = tagged.iter().map(|f| f.file.clone()).collect();
        let held = match self.table.held_in_place(&files, &columns, &watch.bytes) {
            Some(held) => held?,
            None => Handle::current().block_on(self.hold(&files, &columns, watch))?,
        };
        check_rows(tagged, &held)?;
        let path = |file: &DataFile| PlRefPath::new(held.path(file).expect("every file is held"));
        let paths: Vec<PlRefPath> = files.iter().map(path).collect();
        let arguments = ScanArgsParquet {
            schema: Some(Arc::new(self.schema())),
            hive_options: HiveOptions::new_disabled(),
            cache: false,
            glob: false,
            allow_missing_columns: true,
            ..ScanArgsParquet::default()
        };
        let columns: Vec<Expr> = columns.iter().map(|name| column(name)).collect();
        Ok((LazyFrame::scan_parquet_files(paths.into(), arguments)?.select(columns), held))
    }

    /// Fetches the named columns of `files` to this machine, unless the run is cancelled.
    pub async fn hold(&self, files: &[DataFile], columns: &[String], watch: &Watch) -> Result<LocalFiles, RunFailure> {
        Ok(watch.cancel.or_cancelled(self.table.hold(files, columns, &watch.bytes)).await??)
    }

    fn schema(&self) -> Schema {
        let system = [
            (system_columns::PARTITION, DataType::Int),
            (system_columns::OFFSET, DataType::BigInt),
            (system_columns::ARRIVED_AT, DataType::Timestamp),
            (system_columns::WATERMARK, DataType::Timestamp),
        ];
        let own = self.stream.columns.iter().map(|c| (c.name.as_str(), c.data_type));
        own.chain(system).map(|(name, data_type)| (name.into(), polars_type(data_type))).collect()
    }

    /// Returns the event time in microseconds.
    pub fn event_time(&self) -> Expr {
        column(&self.stream.columns[self.stream.event_time].name).to_physical()
    }
}

/// Checks that files have as many rows as the archive notes, before they are read: another program may have written them.
fn check_rows(files: &[ArchiveFile], held: &LocalFiles) -> Result<(), RunFailure> {
    for ArchiveFile { file, tags } in files {
        if let Some(found) = held.rows(file).filter(|found| *found != tags.rows) {
            let (path, date, expected) = (file.path.clone(), file.partition.to_string(), tags.rows);
            return Err(RunFailure::RowsOfFile { path, date, expected, found });
        }
    }
    Ok(())
}

/// Returns the position of an event: see [`with_positions`].
pub fn position(partition: i64, offset: i64) -> i64 {
    (partition.min(i64::from(PARTITIONS_MAX)) << OFFSET_BITS) + offset
}

/// Adds the column [`POSITION`]: a number that identifies an event and orders events by partition, then offset.
pub fn with_positions(frame: LazyFrame) -> LazyFrame {
    let partition = col(system_columns::PARTITION).cast(PolarsType::Int64);
    // The number of the historical partition is too large for a position; it sorts after all others in any case.
    let is_log = partition.clone().lt(lit(i64::from(PARTITIONS_MAX)));
    let partition = when(is_log).then(partition).otherwise(lit(i64::from(PARTITIONS_MAX)));
    frame.with_column((partition * lit(1i64 << OFFSET_BITS) + col(system_columns::OFFSET)).alias(POSITION))
}

/// Runs a query with the streaming engine. Blocking.
pub fn collect(frame: LazyFrame) -> PolarsResult<DataFrame> {
    Ok(frame.collect_with_engine(Engine::Streaming)?.unwrap_single())
}
