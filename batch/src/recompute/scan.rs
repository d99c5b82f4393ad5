//! How does a run read the archive? Exactly the files of the plan, only the columns needed, counted as they pass by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lake::{DataFile, Held, Table};
use polars::io::HiveOptions;
use polars::prelude::{
    AllowedOptimizations, DataFrame, DataType as PolarsType, Engine, Expr, LazyFrame, PlRefPath, PolarsResult,
    ScanArgsParquet, Schema, col, lit, polars_err, when,
};
use shared::evaluate::{column, polars_type};
use shared::limits::PARTITIONS_MAX;
use shared::stream::{Stream, system_columns};
use shared::types::DataType;
use tokio::runtime::Handle;

use crate::failure::RunFailure;
use crate::plan::planner::ArchiveFile;
use crate::watch::Cancel;

/// The column of [`with_positions`].
pub const POSITION: &str = "__position";
/// Bits of a position that hold the offset; the partition is above. 2^54 events per partition are never reached.
const OFFSET_BITS: u32 = 54;

/// The archive of a stream, to read files of.
#[derive(Debug, Clone)]
pub struct Source {
    pub table: Table,
    pub stream: Arc<Stream>,
}

impl Source {
    /// The named columns of `files`. A column that a file does not have yet is null. The frame can be read as long as the
    /// files are held; what of them is not on this machine yet is brought here. Blocking.
    pub fn scan(
        &self,
        files: &[ArchiveFile],
        columns: impl IntoIterator<Item = String>,
        watch: &Watch,
    ) -> Result<(LazyFrame, Held), RunFailure> {
        let columns: Vec<String> = columns.into_iter().collect();
        let files: Vec<DataFile> = files.iter().map(|f| f.file.clone()).collect();
        let held = match self.table.held_in_place(&files, &columns, &watch.bytes) {
            Some(held) => held,
            None => Handle::current().block_on(self.hold(&files, &columns, watch))?,
        };
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

    /// Brings the named columns of `files` to this machine, unless the run is cancelled.
    pub async fn hold(&self, files: &[DataFile], columns: &[String], watch: &Watch) -> Result<Held, RunFailure> {
        tokio::select! {
            held = self.table.hold(files, columns, &watch.bytes) => Ok(held?),
            () = watch.cancel.wait() => Err(RunFailure::Cancelled),
        }
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

    /// The event time in microseconds.
    pub fn event_time(&self) -> Expr {
        column(&self.stream.columns[self.stream.event_time].name).to_physical()
    }
}

/// What a query did, and whether it shall go on.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    pub cancel: Cancel,
    /// Rows read so far, over all queries that are counted.
    pub rows: Arc<AtomicU64>,
    /// Bytes of archive files read so far, by all queries.
    pub bytes: Arc<AtomicU64>,
}

impl Watch {
    /// Counts the rows of `frame` as they are read, and stops it when asked to. Filters stay behind this step, so that
    /// every row is counted.
    pub fn counting(&self, frame: LazyFrame) -> LazyFrame {
        let rows = Arc::clone(&self.rows);
        self.watching(frame, move |seen| {
            rows.fetch_add(seen as u64, Ordering::Relaxed);
        })
    }

    /// Stops `frame` when asked to.
    pub fn stopping(&self, frame: LazyFrame) -> LazyFrame {
        self.watching(frame, |_| {})
    }

    fn watching(&self, frame: LazyFrame, seen: impl Fn(usize) + Send + Sync + 'static) -> LazyFrame {
        let cancel = self.cancel.clone();
        let pass = move |rows: DataFrame| {
            seen(rows.height());
            if cancel.is_set() { Err(polars_err!(ComputeError: "cancelled")) } else { Ok(rows) }
        };
        let allowed = AllowedOptimizations::STREAMING | AllowedOptimizations::PROJECTION_PUSHDOWN;
        frame.map(pass, allowed, None, Some("rows read"))
    }
}

/// Adds the column [`POSITION`]: a number that tells events apart and orders them by partition, then offset.
pub fn with_positions(frame: LazyFrame) -> LazyFrame {
    let partition = col(system_columns::PARTITION).cast(PolarsType::Int64);
    // History has a number too large to stand beside an offset; it comes after all others all the same.
    let is_log = partition.clone().lt(lit(i64::from(PARTITIONS_MAX)));
    let partition = when(is_log).then(partition).otherwise(lit(i64::from(PARTITIONS_MAX)));
    frame.with_column((partition * lit(1i64 << OFFSET_BITS) + col(system_columns::OFFSET)).alias(POSITION))
}

/// Runs a query with the streaming engine. Blocking.
pub fn collect(frame: LazyFrame) -> PolarsResult<DataFrame> {
    Ok(frame.collect_with_engine(Engine::Streaming)?.unwrap_single())
}
