//! Hands the events of archive files to the caller, one batch of columns at a time: Polars reads and evaluates on its
//! threads, the caller receives on its own.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use polars::prelude::{
    DataFrame, DataType as PolarsType, Engine, Expr, LazyFrame, PlanCallback, PolarsResult, Series, col,
};
use shared::evaluate::{from_polars, to_polars};
use shared::scalar::Scalar;
use shared::stream::system_columns;
use shared::types::DataType;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// Batches that may wait for the caller; more would only use memory.
const BATCHES_AHEAD: usize = 4;

const TIME: &str = "__time";
const MARK: &str = "__mark";

/// Events, evaluated for one view. All columns have the same number of rows.
#[derive(Debug)]
pub struct EventBatch {
    /// Event times, in microseconds.
    pub times: Vec<i64>,
    /// The watermark just before each event, in microseconds; `None`: the stream had none yet.
    pub watermarks: Vec<Option<i64>>,
    pub partitions: Vec<i64>,
    pub offsets: Vec<i64>,
    /// The view's dimensions.
    pub dimensions: Vec<ArrayRef>,
    /// The argument of each aggregate, unless only groups were requested.
    pub arguments: Vec<Option<ArrayRef>>,
    /// The FILTER of each aggregate, unless only groups were requested.
    pub masks: Vec<Option<BooleanArray>>,
}

impl ArchiveQuery {
    /// Hands the events of `files` to `each`, batch by batch in no particular order, until it fails or breaks. Without
    /// `values` only times, positions and groups are read, and the rows are not counted. Blocking.
    pub fn for_each_batch(
        &self,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
        values: bool,
        each: &mut dyn FnMut(EventBatch) -> Result<ControlFlow<()>, RunFailure>,
    ) -> Result<ControlFlow<()>, RunFailure> {
        if files.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let (scanned, _held) = self.source.scan(files, self.event_columns(), watch)?;
        let scanned = if values { watch.counting(scanned) } else { watch.stopping(scanned) };
        let frame = self.chosen(scanned, rows).select(self.evaluated(values));
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || read(frame, sender));
            let received = self.receive(receiver, values, each);
            let read = reading.join().unwrap_or_else(|panic| Err(RunFailure::of_panic(panic.as_ref())));
            let flow = received?;
            read.map(|()| flow)
        })
    }

    /// Hands batches to `each`. Dropping the receiver early stops the reader.
    fn receive(
        &self,
        receiver: Receiver<DataFrame>,
        values: bool,
        each: &mut dyn FnMut(EventBatch) -> Result<ControlFlow<()>, RunFailure>,
    ) -> Result<ControlFlow<()>, RunFailure> {
        for rows in receiver {
            if each(self.event_batch(&rows, values)?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(crate) fn event_columns(&self) -> Vec<String> {
        let mut columns = self.columns(RowSelection::All);
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

/// Sends the rows of `frame` as they are read, until the receiver is dropped. Blocking.
fn read(frame: LazyFrame, sender: SyncSender<DataFrame>) -> Result<(), RunFailure> {
    // Polars requires a `Sync` callback; the sender is one, and each call only borrows it.
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
