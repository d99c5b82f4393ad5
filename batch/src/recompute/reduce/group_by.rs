//! Computes states per window and group of some archive files with one Polars query, for views whose windows have one length
//! and that need only sums, counts and extremes. All other views are folded: see [`crate::recompute::fold`].

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, Schema, i256};
use polars::prelude::{
    DataFrame, DataType as PolarsType, Expr, LazyFrame, PolarsResult, Series, SortMultipleOptions, col, lit,
};
use shared::double::canonical_column;
use shared::evaluate::events::EventExpressions;
use shared::evaluate::{from_polars, to_polars};
use shared::lookup::definition::joined_column;
use shared::lookup::table::Lookups;
use shared::partial::codec::{WINDOW_START, integer_sum_columns, state_fields};
use shared::partial::states::integer_sums::IntegerSums;
use shared::stream::system_columns;
use shared::types::{DataType, timestamp_type};
use shared::view::{Aggregate, Precision, View};
use shared::window::{Grid, Window, WindowId};

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::duplicates;
use crate::recompute::frozen_sessions::FrozenSessions;
use crate::recompute::reduce::column_stats::column_facts;
use crate::recompute::reduce::reductions::{HALF, IntegerSum, Reductions, StateSource, is_reduced};
use crate::recompute::scan::{ArchiveSource, collect, with_positions};
use crate::recompute::verdicts::SpeedVerdicts;
use crate::watch::Watch;

const WINDOW: &str = "__window";

/// A view over the archive of its stream.
#[derive(Debug, Clone)]
pub struct ArchiveQuery {
    pub source: ArchiveSource,
    pub view: Arc<View>,
    /// The frozen sessions that reach into the dates to read, if any: their events are excluded.
    pub frozen: Option<Arc<FrozenSessions>>,
    /// The events that the speed layer excludes, if the archive is to be folded as that layer does; `None`: exactly.
    pub verdicts: Option<Arc<SpeedVerdicts>>,
    /// The tables that the view is joined with; `None`: with none.
    pub lookups: Option<Arc<Lookups>>,
}

/// The rows of the files that a query reads.
#[derive(Debug, Clone, Copy)]
pub enum RowSelection<'a> {
    All,
    /// All but these positions.
    Without(&'a DataFrame),
    /// Only these positions.
    Only(&'a DataFrame),
}

impl ArchiveQuery {
    /// Returns whether Polars can compute the whole view.
    pub fn is_reducible(&self) -> bool {
        let by_polars = matches!(self.view.window, Window::All | Window::Tumble(Grid::Fixed { .. }));
        // Polars cannot exclude the events for which an expression fails.
        let is_reduced = by_polars && self.view.aggregates.iter().all(is_reduced);
        // It does not know the tables either.
        self.verdicts.is_none()
            && self.view.joins.is_empty()
            && is_reduced
            && !EventExpressions::new(&self.view).may_outgrow()
    }

    /// Returns how much of the values the states keep.
    pub fn precision(&self) -> Precision {
        if self.verdicts.is_some() { Precision::Sketch } else { Precision::Exact }
    }

    /// Returns all rows but those at the positions of duplicates. The speed layer has these too.
    pub fn without<'a>(&self, duplicates: Option<&'a DataFrame>) -> RowSelection<'a> {
        match duplicates.filter(|_| self.verdicts.is_none()) {
            Some(positions) => RowSelection::Without(positions),
            None => RowSelection::All,
        }
    }

    /// Returns states per window and group, sorted by window, then group: the columns `window_start` (not for a window over
    /// all time), the dimensions, and those of `state_fields`. Counts the rows it reads. Blocking.
    pub fn states(
        &self,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
    ) -> Result<RecordBatch, RunFailure> {
        let names = self.names();
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = column_facts(files, &columns);
        let total = files.iter().map(|f| f.tags.rows).sum();
        let reductions = Reductions::new(&self.view, total, &|column| known[column]);
        let mut inputs = self.keys();
        inputs.extend(reductions.inputs(&names));
        let keys = self.key_names();
        let (scanned, _held) = self.source.scan(files, self.columns(rows), watch)?;
        let scanned = watch.counting(scanned);
        // A view without windows, dimensions and arguments has no column to select.
        let selected = self.chosen(scanned, rows);
        let selected = if inputs.is_empty() { selected } else { selected.select(inputs) };
        let frame = if keys.is_empty() {
            collect(selected.select(reductions.expressions()))?
        } else {
            let by: Vec<Expr> = keys.iter().map(col).collect();
            let grouped = selected.group_by(by.clone()).agg(reductions.expressions());
            collect(grouped.sort_by_exprs(by, SortMultipleOptions::default()))?
        };
        self.batch(&frame, &reductions)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.source.stream.columns.iter().map(|c| c.name.clone()).collect()
    }

    /// Returns the archive's columns that the query needs.
    pub(crate) fn columns(&self, rows: RowSelection<'_>) -> Vec<String> {
        let mut needed = BTreeSet::from([self.source.stream.event_time]);
        let mut need = |index: usize| needed.extend(joined_column(index).is_none().then_some(index));
        let view = &self.view;
        let of_aggregates = view.aggregates.iter().flat_map(|a| a.argument.iter().chain(&a.filter));
        let all = view.filter.iter().chain(view.dimensions.iter().map(|d| &d.expression)).chain(of_aggregates);
        all.for_each(|scalar| scalar.for_each_column(&mut need));
        view.joins.iter().for_each(|join| need(join.on));
        let mut columns: Vec<String> =
            needed.into_iter().map(|index| self.source.stream.columns[index].name.clone()).collect();
        match rows {
            RowSelection::All => {}
            RowSelection::Without(_) | RowSelection::Only(_) => {
                columns.push(system_columns::PARTITION.to_owned());
                columns.push(system_columns::OFFSET.to_owned());
            }
        }
        columns
    }

    /// Returns all columns that a run reads of a file, including those that identify duplicates.
    pub fn columns_read(&self, dedup: bool) -> Vec<String> {
        let mut columns = if self.is_reducible() { self.columns(RowSelection::All) } else { self.event_columns() };
        if dedup {
            let stream = &self.source.stream;
            let identity = stream.primary_key.into_iter().chain(stream.entity);
            columns.extend(identity.map(|column| stream.columns[column].name.clone()));
            columns.extend([system_columns::PARTITION.to_owned(), system_columns::OFFSET.to_owned()]);
        }
        columns.sort();
        columns.dedup();
        columns
    }

    /// Returns the selected rows.
    pub(crate) fn selected(&self, scanned: LazyFrame, rows: RowSelection<'_>) -> LazyFrame {
        match rows {
            RowSelection::All => scanned,
            RowSelection::Without(positions) => duplicates::without(with_positions(scanned), positions),
            RowSelection::Only(positions) => duplicates::only(with_positions(scanned), positions),
        }
    }

    /// Returns the selected rows that pass the view's WHERE.
    pub(crate) fn chosen(&self, scanned: LazyFrame, rows: RowSelection<'_>) -> LazyFrame {
        let rows = self.selected(scanned, rows);
        match &self.view.filter {
            Some(filter) => rows.filter(to_polars(filter, &self.names())),
            None => rows,
        }
    }

    fn window_start(&self, size: i64, offset: i64) -> Expr {
        let time = self.source.event_time();
        // `%` of Polars takes the sign of the divisor, which is what windows before 1970 need.
        time.clone() - (time - lit(offset)) % lit(size)
    }

    fn keys(&self) -> Vec<Expr> {
        let names = self.names();
        let window = match self.view.window {
            Window::Tumble(Grid::Fixed { size, offset }) => Some(self.window_start(size, offset).alias(WINDOW)),
            // Polars does not group by other windows.
            _ => None,
        };
        let dimension = |(number, dimension): (usize, &shared::view::Dimension)| {
            to_polars(&dimension.expression, &names).alias(dimension_name(number))
        };
        window.into_iter().chain(self.view.dimensions.iter().enumerate().map(dimension)).collect()
    }

    fn key_names(&self) -> Vec<String> {
        let window = (self.view.window != Window::All).then(|| WINDOW.to_owned());
        window.into_iter().chain((0..self.view.dimensions.len()).map(dimension_name)).collect()
    }

    fn group_columns(&self, frame: &DataFrame) -> Result<(Vec<Field>, Vec<ArrayRef>), RunFailure> {
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.view.window != Window::All {
            let starts = longs(frame, WINDOW)?;
            fields.push(Field::new(WINDOW_START, timestamp_type(), false));
            columns.push(Arc::new(TimestampMicrosecondArray::from(starts).with_timezone("UTC")));
        }
        for (number, dimension) in self.view.dimensions.iter().enumerate() {
            let data_type = dimension.expression.data_type;
            fields.push(Field::new(&dimension.name, data_type.arrow(), true));
            columns.push(canonical_column(from_polars(series(frame, &dimension_name(number))?, data_type)?));
        }
        Ok((fields, columns))
    }

    fn batch(&self, frame: &DataFrame, reductions: &Reductions<'_>) -> Result<RecordBatch, RunFailure> {
        let (mut fields, mut columns) = self.group_columns(frame)?;
        fields.extend(state_fields(&self.view));
        for (aggregate, source) in self.view.aggregates.iter().zip(&reductions.sources) {
            columns.extend(state_columns(frame, aggregate, *source)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(frame.height()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        // Without groups, Polars returns one row even for no events.
        let rows = reductions.rows().map(|number| longs(frame, &Reductions::name(number))).transpose()?;
        let of_nothing = self.key_names().is_empty() && rows.is_some_and(|rows| rows == [0]);
        Ok(if of_nothing { batch.slice(0, 0) } else { batch })
    }
}

/// Returns the windows of a batch of [`ArchiveQuery::states`].
pub fn windows_of(batch: &RecordBatch) -> Vec<WindowId> {
    use arrow::datatypes::TimestampMicrosecondType;
    match batch.column_by_name(WINDOW_START).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()) {
        Some(starts) => starts.values().iter().copied().map(WindowId).collect(),
        None => vec![WindowId::ALL_TIME; batch.num_rows()],
    }
}

fn dimension_name(number: usize) -> String {
    format!("__k{number}")
}

fn state_columns(frame: &DataFrame, aggregate: &Aggregate, source: StateSource) -> Result<Vec<ArrayRef>, RunFailure> {
    let counts = |number: usize| -> PolarsResult<ArrayRef> {
        Ok(Arc::new(Int64Array::from(longs(frame, &Reductions::name(number))?)))
    };
    Ok(match source {
        StateSource::Count(count) => vec![counts(count)?],
        StateSource::Integers { sum, count } => {
            let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |argument| argument.data_type);
            integer_sum_columns(argument, &integer_sums(frame, sum)?, &longs(frame, &Reductions::name(count))?)
        }
        StateSource::Extreme { value, data_type } => {
            vec![canonical_column(from_polars(series(frame, &Reductions::name(value))?, data_type)?)]
        }
        StateSource::LargestDouble { value, has_nan } => {
            let values = from_polars(series(frame, &Reductions::name(value))?, DataType::Double)?;
            let has_nan = from_polars(series(frame, &Reductions::name(has_nan))?, DataType::Boolean)?;
            let is_nan = has_nan.as_boolean().iter();
            let pairs = values.as_primitive::<Float64Type>().iter().zip(is_nan);
            let largest = pairs.map(|(value, nan)| if nan == Some(true) { Some(f64::NAN) } else { value });
            vec![canonical_column(Arc::new(largest.collect::<Float64Array>()))]
        }
    })
}

/// Returns the sums as the speed layer keeps them, which cannot overflow either.
fn integer_sums(frame: &DataFrame, sum: IntegerSum) -> PolarsResult<IntegerSums> {
    Ok(match sum {
        IntegerSum::Whole(number) => {
            wides(frame, &Reductions::name(number))?.into_iter().map(|sum| Some(i256::from_i128(sum))).collect()
        }
        IntegerSum::Halves { upper, lower } => {
            let upper = wides(frame, &Reductions::name(upper))?.into_iter();
            let lower = wides(frame, &Reductions::name(lower))?;
            let half = i256::from_i128(HALF);
            let whole = |(u, l): (i128, i128)| i256::from_i128(u).wrapping_mul(half).wrapping_add(i256::from_i128(l));
            upper.zip(lower).map(|halves| Some(whole(halves))).collect()
        }
    })
}

fn series<'a>(frame: &'a DataFrame, name: &str) -> PolarsResult<&'a Series> {
    Ok(frame.column(name)?.as_materialized_series())
}

fn longs(frame: &DataFrame, name: &str) -> PolarsResult<Vec<i64>> {
    let column = frame.column(name)?.cast(&PolarsType::Int64)?;
    Ok(column.i64()?.iter().map(|value| value.unwrap_or(0)).collect())
}

fn wides(frame: &DataFrame, name: &str) -> PolarsResult<Vec<i128>> {
    let column = frame.column(name)?;
    if let Ok(longs) = column.i64() {
        return Ok(longs.iter().map(|value| i128::from(value.unwrap_or(0))).collect());
    }
    Ok(column.i128()?.iter().map(|value| value.unwrap_or(0)).collect())
}
