//! Reads the states that Spark has written, date by date, and writes the rows that they make.
//!
//! Spark leaves the files of a date in the folder `__date=DAYS`. Every row of a window and group is in one of them, once. Where the
//! states of a date do not fit in memory, they are read in passes over buckets of the groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType as ArrowType, Int64Type};
use futures::TryStreamExt;
use lake::{Exchange, ExchangedFile, LakeError};
use polars::prelude::{DataFrame, IntoColumn, NamedFrom, Series};
use shared::date_partition::DatePartition;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::codec::{PartDecoder, gathered};
use shared::partial::keys::KeyLayout;
use shared::time::Day;
use shared::view::{Precision, View};
use shared::window::Window;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::fold::passes::{Duplicates, bytes_text};
use crate::recompute::fold::slices::Slices;
use crate::recompute::on_spark::SparkRun;
use crate::recompute::scan::{POSITION, position};
use crate::recompute::staging::Staging;
use crate::recompute::{Bounds, DatesDone, ExactFiles, Progress, send, write_all};
use crate::step::SparkStep;
use crate::watch::Watch;

/// The folders of an exchange: the states, and the copies among the events.
pub const STATES: &str = "states";
pub const COPIES: &str = "copies";
/// Rows of a batch that is read.
const BATCH_ROWS: usize = 8192;

/// What Spark has written for a run.
pub struct SparkResults {
    exchange: Arc<Exchange>,
    view: Arc<View>,
    staging: Arc<Staging>,
    bounds: Bounds,
    watch: Watch,
    /// The files that Spark read.
    read: Vec<ArchiveFile>,
    dates: u64,
    /// Rows of states.
    rows: u64,
}

impl SparkResults {
    /// Returns the place for the results of a run, without results.
    pub fn new(run: &SparkRun<'_>) -> SparkResults {
        SparkResults {
            exchange: Arc::new(run.staging.table().exchange()),
            view: Arc::clone(run.view()),
            staging: Arc::clone(run.staging),
            bounds: run.bounds,
            watch: run.watch.clone(),
            read: run.files().cloned().collect(),
            dates: run.plan.window_dates.len() as u64,
            rows: 0,
        }
    }

    /// Returns the results after Spark wrote `rows` rows of states.
    pub fn written(self, rows: u64) -> SparkResults {
        SparkResults { rows, ..self }
    }

    /// Returns where Spark writes.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Writes the rows of the version.
    pub async fn collect(self, dates_done: DatesDone<'_>) -> Result<ExactFiles, RunFailure> {
        SparkStep::Collect.reach();
        let collected = self.collected(dates_done).await;
        self.discard().await;
        collected
    }

    /// Deletes everything that was exchanged.
    pub async fn discard(&self) {
        SparkStep::Discard.reach();
        if let Err(error) = self.exchange.delete().await {
            tracing::warn!(view = %self.view.name, %error, "could not delete what Spark wrote; vacuum will");
        }
    }

    async fn collected(&self, dates_done: DatesDone<'_>) -> Result<ExactFiles, RunFailure> {
        let files = self.exchange.parquet_files(STATES).await?;
        self.check_rows(&files).await?;
        let duplicates = self.duplicates().await?;
        let types = self.view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
        let (sender, progress) = mpsc::channel(1);
        let reading = StateReader {
            exchange: Arc::clone(&self.exchange),
            view: Arc::clone(&self.view),
            layout: Arc::new(KeyLayout::new(types)?),
            files: by_date(self.view.window, files)?,
            bounds: self.bounds,
            watch: self.watch.clone(),
            dates: self.dates,
        };
        let read = blocking(move || reading.run(&sender));
        let (read, written) = tokio::join!(read, write_all(progress, self.bounds, &self.staging, dates_done));
        if self.watch.cancel.is_set() {
            return Err(RunFailure::Cancelled);
        }
        written?;
        read?;
        // Spark has read them all, and reports only bytes meanwhile.
        self.watch.rows.fetch_add(self.read.iter().map(|file| file.tags.rows).sum(), Ordering::Relaxed);
        Ok(ExactFiles {
            files: self.staging.files(),
            longest_session_us: self.staging.longest_session_us(),
            duplicates,
            dropped_sessions_end: None,
            failed: self.watch.failed.lock().take(),
        })
    }

    /// Checks that the files hold as many rows as Spark wrote.
    async fn check_rows(&self, files: &[ExchangedFile]) -> Result<(), RunFailure> {
        let mut found = 0;
        for file in files {
            let footer = self.exchange.open(file).await?;
            found += u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        }
        if found == self.rows {
            return Ok(());
        }
        Err(RunFailure::SparkRows { url: self.exchange.url_of(STATES), written: self.rows, found })
    }

    /// Returns the positions of the copies among the events.
    async fn duplicates(&self) -> Result<Duplicates, RunFailure> {
        let mut positions: Vec<i64> = Vec::new();
        for file in self.exchange.parquet_files(COPIES).await? {
            let mut batches = self.exchange.open(&file).await?.build().map_err(LakeError::from)?;
            while let Some(batch) = batches.try_next().await.map_err(LakeError::from)? {
                let column = |name: &str| -> Result<Vec<i64>, RunFailure> {
                    let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
                    Ok(cast(column, &ArrowType::Int64)?.as_primitive::<Int64Type>().values().to_vec())
                };
                let (partitions, offsets) = (column("__p")?, column("__o")?);
                positions.extend(partitions.into_iter().zip(offsets).map(|(p, o)| position(p, o)));
            }
        }
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let positions = Series::new(POSITION.into(), positions).into_column();
        Ok(vec![(self.read.clone(), DataFrame::new_infer_height(vec![positions])?)])
    }
}

fn missing(name: &str) -> RunFailure {
    shared::partial::codec::CodecError::MissingColumn(name.to_owned()).into()
}

/// Sorts files by the date in their path.
fn by_date(
    window: Window,
    files: Vec<ExchangedFile>,
) -> Result<BTreeMap<DatePartition, Vec<ExchangedFile>>, RunFailure> {
    let mut dates: BTreeMap<DatePartition, Vec<ExchangedFile>> = BTreeMap::new();
    for file in files {
        let folder = file.path.split('/').find_map(|part| part.strip_prefix(spark::DATE)?.strip_prefix('='));
        let day: i64 = folder.and_then(|day| day.parse().ok()).ok_or_else(|| missing(spark::DATE))?;
        let date = match window {
            Window::All => DatePartition::AllTime,
            _ => i32::try_from(day).map_or(DatePartition::Undated, |day| DatePartition::of_day(Day(day))),
        };
        dates.entry(date).or_default().push(file);
    }
    Ok(dates)
}

/// The work of the thread that reads states.
struct StateReader {
    exchange: Arc<Exchange>,
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    files: BTreeMap<DatePartition, Vec<ExchangedFile>>,
    bounds: Bounds,
    watch: Watch,
    /// Window dates of the plan.
    dates: u64,
}

impl StateReader {
    /// Emits the rows of all dates. Blocking.
    fn run(self, progress: &mpsc::Sender<Progress>) -> Result<(), RunFailure> {
        let budget = self.bounds.budget;
        let (view, layout, slice_bytes) = (&*self.view, &self.layout, budget.slice_bytes());
        // As stored: every group has one row, so nothing is merged that would have to be exact.
        let slices = Slices { view, layout, precision: Precision::Sketch, slice_bytes };
        let mut emit = |date| send(progress, Progress::Finished(date));
        for (date, files) in &self.files {
            let mut waiting = vec![Bucket::ALL];
            while let Some(bucket) = waiting.pop() {
                match self.read(files, bucket, budget.states_bytes())? {
                    Some(part) => slices.finish(*date, &[part], bucket, &mut emit)?,
                    None => {
                        let (limit, date) = (bytes_text(budget.limit_bytes), date.to_string());
                        let halves = bucket.halves().ok_or(RunFailure::MemoryLimit { limit, date })?;
                        waiting.extend(halves);
                    }
                }
            }
            send(progress, Progress::Done(1))?;
        }
        // No event is left for the others.
        send(progress, Progress::Done(self.dates.saturating_sub(self.files.len() as u64)))
    }

    /// Reads the states of the groups in `bucket`; `None`: they do not fit in `bytes_max`.
    fn read(&self, files: &[ExchangedFile], bucket: Bucket, bytes_max: usize) -> Result<Option<Part>, RunFailure> {
        let mut decoder = PartDecoder::new(&self.view, &self.layout);
        let mut bytes = 0;
        for file in files {
            let opened = Handle::current().block_on(self.exchange.open(file))?.with_batch_size(BATCH_ROWS);
            let mut batches = opened.build().map_err(LakeError::from)?;
            while let Some(batch) = Handle::current().block_on(batches.try_next()).map_err(LakeError::from)? {
                if self.watch.cancel.is_set() {
                    return Err(RunFailure::Cancelled);
                }
                let batch = self.of_bucket(gathered(&self.view, &batch)?, bucket)?;
                bytes += batch.get_array_memory_size();
                if bytes > bytes_max && bucket.halves().is_some() && !self.view.dimensions.is_empty() {
                    return Ok(None);
                }
                decoder.add(&batch)?;
            }
        }
        Ok(Some(decoder.finish()))
    }

    fn of_bucket(&self, batch: RecordBatch, bucket: Bucket) -> Result<RecordBatch, RunFailure> {
        if bucket == Bucket::ALL {
            return Ok(batch);
        }
        let columns: Option<Vec<_>> =
            self.view.dimensions.iter().map(|dimension| batch.column_by_name(&dimension.name).cloned()).collect();
        let keys = self.layout.encode(&columns.unwrap_or_default())?;
        let kept: BooleanArray = keys.iter().map(|key| Some(bucket.holds(key.as_ref()))).collect();
        Ok(filter_record_batch(&batch, &kept)?)
    }
}
