//! How do the events of archive files reach our own fold? One batch of columns after another: Polars reads and evaluates
//! on its threads, the caller takes what is ready on this one.

use std::sync::mpsc::{SyncSender, sync_channel};

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use polars::prelude::{
    DataFrame, DataType as PolarsType, Engine, Expr, LazyFrame, PlanCallback, PolarsResult, Series, col,
};
use shared::evaluate::{from_polars, to_polars};
use shared::scalar::Scalar;
use shared::stream::system_columns;
use shared::types::DataType;

use crate::failure::RunFailure;
use crate::plan::planner::ArchiveFile;
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;

/// Batches that may wait for the caller; more would only take memory.
const BATCHES_AHEAD: usize = 4;

const TIME: &str = "__time";
const MARK: &str = "__mark";

/// Some events, evaluated for one view. All columns have the same number of rows.
#[derive(Debug)]
pub struct EventBatch {
    /// Event times, in microseconds.
    pub times: Vec<i64>,
    /// The watermark just before each event, in microseconds; `None`: there was none.
    pub watermarks: Vec<Option<i64>>,
    pub partitions: Vec<i64>,
    pub offsets: Vec<i64>,
    /// The view's dimensions.
    pub dimensions: Vec<ArrayRef>,
    /// One per aggregate, unless only groups were asked for: its argument, and its FILTER.
    pub arguments: Vec<Option<ArrayRef>>,
    pub masks: Vec<Option<BooleanArray>>,
}

impl Query {
    /// Hands the events of `files` to `each`, batch by batch in no particular order, until it fails. Without the values
    /// only times, places and groups are read, and what is read is not counted. Blocking.
    pub fn for_each_batch(
        &self,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
        values: bool,
        each: &mut dyn FnMut(EventBatch) -> Result<(), RunFailure>,
    ) -> Result<(), RunFailure> {
        if files.is_empty() {
            return Ok(());
        }
        let (scanned, _held) = self.source.scan(files, self.event_columns(), watch)?;
        let scanned = if values { watch.counting(scanned) } else { watch.stopping(scanned) };
        let frame = self.chosen(scanned, rows).select(self.evaluated(values));
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || read(frame, sender));
            // Dropping the receiver, by an error, tells the reader to stop.
            let taken = receiver.into_iter().try_for_each(|rows| each(self.event_batch(&rows, values)?));
            let read = reading.join().unwrap_or_else(|panic| Err(RunFailure::of_panic(panic.as_ref())));
            taken.and(read)
        })
    }

    pub(crate) fn event_columns(&self) -> Vec<String> {
        let mut columns = self.columns(Rows::All);
        columns.push(system_columns::WATERMARK.to_owned());
        columns.push(system_columns::PARTITION.to_owned());
        columns.push(system_columns::OFFSET.to_owned());
        columns
    }

    fn evaluated(&self, values: bool) -> Vec<Expr> {
        let names = self.names();
        let long = |name: &str| col(name).cast(PolarsType::Int64);
        let mut columns = vec![
            self.source.event_time().alias(TIME),
            col(system_columns::WATERMARK).to_physical().alias(MARK),
            long(system_columns::PARTITION),
            long(system_columns::OFFSET),
        ];
        let dimensions = self.view.dimensions.iter().enumerate();
        columns.extend(dimensions.map(|(n, d)| to_polars(&d.expression, &names).alias(dimension(n))));
        for (number, aggregate) in self.view.aggregates.iter().enumerate().filter(|_| values) {
            let column = |scalar: &Scalar, name: String| to_polars(scalar, &names).alias(name);
            columns.extend(aggregate.argument.as_ref().map(|scalar| column(scalar, argument(number))));
            columns.extend(aggregate.filter.as_ref().map(|scalar| column(scalar, mask(number))));
        }
        columns
    }

    fn event_batch(&self, rows: &DataFrame, values: bool) -> Result<EventBatch, RunFailure> {
        let column = |name: &str, data_type: DataType| -> Result<ArrayRef, RunFailure> {
            Ok(from_polars(series(rows, name)?, data_type)?)
        };
        let mut batch = EventBatch {
            times: longs(rows, TIME)?,
            watermarks: series(rows, MARK)?.i64()?.iter().collect(),
            partitions: longs(rows, system_columns::PARTITION)?,
            offsets: longs(rows, system_columns::OFFSET)?,
            dimensions: Vec::new(),
            arguments: Vec::new(),
            masks: Vec::new(),
        };
        for (number, of_view) in self.view.dimensions.iter().enumerate() {
            batch.dimensions.push(column(&dimension(number), of_view.expression.data_type)?);
        }
        for (number, aggregate) in self.view.aggregates.iter().enumerate().filter(|_| values) {
            let values = aggregate.argument.as_ref().map(|scalar| column(&argument(number), scalar.data_type));
            batch.arguments.push(values.transpose()?);
            let filter = aggregate.filter.as_ref().map(|_| column(&mask(number), DataType::Boolean)).transpose()?;
            batch.masks.push(filter.map(|filter| filter.as_boolean().clone()));
        }
        Ok(batch)
    }
}

/// Sends the rows of `frame` as they come. Blocking.
fn read(frame: LazyFrame, sender: SyncSender<DataFrame>) -> Result<(), RunFailure> {
    // Polars asks that the callback be `Sync`; the channel's end is, and each call only borrows it.
    let send = move |rows: DataFrame| Ok(sender.send(rows).is_err());
    frame.sink_batches(PlanCallback::new(send), false, None)?.collect_with_engine(Engine::Streaming)?;
    Ok(())
}

fn dimension(number: usize) -> String {
    format!("__k{number}")
}

fn argument(number: usize) -> String {
    format!("__a{number}")
}

fn mask(number: usize) -> String {
    format!("__m{number}")
}

fn series<'a>(frame: &'a DataFrame, name: &str) -> PolarsResult<&'a Series> {
    Ok(frame.column(name)?.as_materialized_series())
}

fn longs(frame: &DataFrame, name: &str) -> PolarsResult<Vec<i64>> {
    Ok(series(frame, name)?.i64()?.iter().map(|value| value.unwrap_or(0)).collect())
}
