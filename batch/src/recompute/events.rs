//! Hands the events of archive files to the caller, one batch of columns at a time: Polars reads and evaluates on its
//! threads, the caller receives on its own. Expressions whose texts may outgrow the events, or that read joined columns, are evaluated on the
//! caller's thread, in pieces and with the rule of the speed layer: events that fail are noted and excluded.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use polars::prelude::{
    DataFrame, DataType as PolarsType, Engine, Expr, LazyFrame, PlanCallback, PolarsResult, Series, col,
};
use shared::evaluate::events::{EvaluatedEvents, EventExpressions, Needed};
use shared::evaluate::pieces::FailedRow;
use shared::evaluate::{column, from_polars, to_polars};
use shared::failed_events::FailedEvent;
use shared::ids::{Offset, Partition};
use shared::lookup::definition::joined_column;
use shared::lookup::join::{EventJoin, SharedLookups};
use shared::lookup::table::Lookups;
use shared::scalar::Scalar;
use shared::stream::system_columns;
use shared::time::Micros;
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
        let bounded = self.bounded()?;
        let frame = match &bounded {
            Some(bounded) => self.selected(scanned, rows).select(self.raw(&bounded.columns)),
            None => self.chosen(scanned, rows).select(self.evaluated(values)),
        };
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || read(frame, sender));
            let received = match &bounded {
                Some(bounded) => self.receive_bounded(receiver, bounded, (values, watch), each),
                None => self.receive(receiver, values, each),
            };
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

    /// Evaluates raw batches and hands the events that pass to `each`.
    fn receive_bounded(
        &self,
        receiver: Receiver<DataFrame>,
        bounded: &BoundedExpressions,
        (values, watch): (bool, &Watch),
        each: &mut dyn FnMut(EventBatch) -> Result<ControlFlow<()>, RunFailure>,
    ) -> Result<ControlFlow<()>, RunFailure> {
        let needed = if values { Needed::All } else { Needed::Groups };
        for frame in receiver {
            let places = EventBatch::places(&frame)?;
            let columns = bounded.columns.iter().map(|index| {
                let column = &self.source.stream.columns[*index];
                Ok((column.name.as_str(), from_polars(series(&frame, &column.name)?, column.data_type)?))
            });
            let rows = record_batch(columns.collect::<Result<Vec<_>, RunFailure>>()?, frame.height())?;
            let rows = match &bounded.join {
                Some(join) => join.extend(&rows, &places.times, &mut SharedLookups::default())?,
                None => rows,
            };
            let mut flow = ControlFlow::Continue(());
            bounded.expressions.for_each_piece::<RunFailure>(&rows, needed, &mut |events| {
                for failed in &events.failed {
                    watch.failed.lock().add(places.failed_event(failed));
                }
                if flow.is_continue() {
                    flow = each(places.with(events)?)?;
                }
                Ok(())
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the expressions of the view and the stream columns that they read, if they are not evaluated by Polars: their texts
    /// may outgrow the events, or they read joined columns.
    fn bounded(&self) -> Result<Option<BoundedExpressions>, RunFailure> {
        let mut expressions = EventExpressions::new(&self.view);
        if !expressions.may_outgrow() && self.view.joins.is_empty() {
            return Ok(None);
        }
        let mut columns = BTreeSet::new();
        let mut add = |index: usize| columns.extend(joined_column(index).is_none().then_some(index));
        expressions.renumber(&mut |index| add(*index));
        self.view.joins.iter().for_each(|join| add(join.on));
        let columns: Vec<usize> = columns.into_iter().collect();
        let place = |index: usize| columns.binary_search(&index).expect("collected above");
        let none = Lookups::default();
        let lookups = self.lookups.as_deref().unwrap_or(&none);
        let join = EventJoin::new(&self.view, lookups, columns.len(), &place)?;
        expressions.renumber(&mut |index| {
            let joined = join.as_ref().and_then(|join| join.place(*index));
            *index = joined.unwrap_or_else(|| place(*index));
        });
        Ok(Some(BoundedExpressions { expressions, columns, join }))
    }

    pub(crate) fn event_columns(&self) -> Vec<String> {
        let mut columns = self.columns(RowSelection::All);
        columns.push(system_columns::WATERMARK.to_owned());
        columns.push(system_columns::PARTITION.to_owned());
        columns.push(system_columns::OFFSET.to_owned());
        columns
    }

    /// Returns the columns that every batch has.
    fn places(&self) -> Vec<Expr> {
        let long = |name: &str| col(name).cast(PolarsType::Int64);
        vec![
            self.source.event_time().alias(TIME),
            col(system_columns::WATERMARK).to_physical().alias(MARK),
            long(system_columns::PARTITION),
            long(system_columns::OFFSET),
        ]
    }

    /// Returns the columns of a batch that is evaluated later.
    fn raw(&self, columns: &[usize]) -> Vec<Expr> {
        let mut raw = self.places();
        raw.extend(columns.iter().map(|index| column(&self.source.stream.columns[*index].name)));
        raw
    }

    fn evaluated(&self, values: bool) -> Vec<Expr> {
        let names = self.names();
        let mut columns = self.places();
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
        let mut batch = EventBatch::places(rows)?;
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

/// The expressions of a view that are evaluated as the speed layer does.
struct BoundedExpressions {
    /// Over `columns`, and the joined ones behind them.
    expressions: EventExpressions,
    /// Indices into the stream's columns.
    columns: Vec<usize>,
    join: Option<EventJoin>,
}

impl EventBatch {
    /// Returns the times and positions of events.
    fn places(rows: &DataFrame) -> Result<EventBatch, RunFailure> {
        Ok(EventBatch {
            times: longs(rows, TIME)?,
            watermarks: series(rows, MARK)?.i64()?.iter().collect(),
            partitions: longs(rows, system_columns::PARTITION)?,
            offsets: longs(rows, system_columns::OFFSET)?,
            dimensions: Vec::new(),
            arguments: Vec::new(),
            masks: Vec::new(),
        })
    }

    /// Returns the selected ones of `events`, of which this batch has the times and positions.
    fn with(&self, events: EvaluatedEvents) -> Result<EventBatch, RunFailure> {
        let EvaluatedEvents { rows, selected, dimensions, arguments, masks, .. } = events;
        fn of<T: Copy>(all: &[T], first: usize, selected: &[u32]) -> Vec<T> {
            selected.iter().map(|row| all[first + *row as usize]).collect()
        }
        let chosen = UInt32Array::from(selected.clone());
        let chosen_of = |column: &ArrayRef| match selected.len() == rows.len() {
            true => Ok(Arc::clone(column)),
            false => take(column, &chosen, None),
        };
        let mask_of = |mask: &Option<BooleanArray>| {
            let mask = mask.as_ref().map(|mask| take(mask, &chosen, None)).transpose()?;
            Ok(mask.map(|mask| mask.as_boolean().clone()))
        };
        Ok(EventBatch {
            times: of(&self.times, rows.start, &selected),
            watermarks: of(&self.watermarks, rows.start, &selected),
            partitions: of(&self.partitions, rows.start, &selected),
            offsets: of(&self.offsets, rows.start, &selected),
            dimensions: dimensions.iter().map(chosen_of).collect::<Result<_, ArrowError>>()?,
            arguments: arguments.iter().map(|a| a.as_ref().map(chosen_of).transpose()).collect::<Result<_, _>>()?,
            masks: masks.iter().map(mask_of).collect::<Result<_, ArrowError>>()?,
        })
    }

    fn failed_event(&self, failed: &FailedRow) -> FailedEvent {
        FailedEvent {
            partition: Partition(u32::try_from(self.partitions[failed.row]).unwrap_or(u32::MAX)),
            offset: Offset(self.offsets[failed.row].cast_unsigned()),
            event_time: Some(Micros(self.times[failed.row])),
            reason: failed.reason.to_string(),
        }
    }
}

fn record_batch(columns: Vec<(&str, ArrayRef)>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
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
