//! Finishes fetched rows: their measures, the bounds of their windows, their dimensions, and whether HAVING shows them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use shared::evaluate::EvaluateError;
use shared::evaluate::pieces::evaluate_or_null;
use shared::partial::codec::window_bounds;
use shared::partial::finish::{MeasureColumn, finish, finish_measures};
use shared::partial::query_budget::QueryBudget;
use shared::scalar::Scalar;
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;

use crate::fetch::FetchedRows;

/// The columns of fetched rows, each with a value per row.
#[derive(Debug)]
pub struct FinishedRows {
    /// One per measure of the view.
    pub measures: Vec<MeasureColumn>,
    /// Start and end of the windows, in microseconds; `None`: there is none.
    pub bounds: Vec<(Option<i64>, Option<i64>)>,
    /// One per dimension of the view.
    pub dimensions: Vec<ArrayRef>,
    /// Which rows satisfy HAVING; `None`: all do.
    pub shown: Option<ArrayRef>,
}

/// The reason why rows could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    #[error("cannot compute the measures: {0}")]
    Evaluate(#[from] EvaluateError),
    #[error("cannot read the columns: {0}")]
    Columns(#[from] ArrowError),
}

impl FinishedRows {
    /// Finishes `rows` of `view`.
    pub fn new(view: &View, rows: &FetchedRows) -> Result<FinishedRows, FinishError> {
        let merged = &rows.merged;
        let bounds = match (view.window, rows.instant) {
            (Window::Slide { size, .. }, Some(instant)) => {
                vec![(Some(instant.saturating_sub(size)), Some(instant)); merged.len()]
            }
            _ => {
                let of = |(start, end): (Micros, Option<Micros>)| {
                    ((view.window != Window::All).then_some(start.0), end.map(|end| end.0))
                };
                window_bounds(view, &merged.windows, &merged.lasts).into_iter().map(of).collect()
            }
        };
        Ok(FinishedRows {
            measures: finish_measures(view, &merged.states)?,
            bounds,
            dimensions: if view.dimensions.is_empty() { Vec::new() } else { merged.dimension_columns()? },
            shown: view.having.as_ref().map(|having| shown(view, rows, having)).transpose()?,
        })
    }

    /// Returns whether a query shows the row.
    pub fn is_shown(&self, row: usize) -> bool {
        self.shown.as_ref().is_none_or(|shown| is_true(shown, row))
    }
}

/// Returns whether a BOOLEAN column is true in a row. NULL counts as false.
pub(crate) fn is_true(column: &ArrayRef, row: usize) -> bool {
    column.is_valid(row) && column.as_any().downcast_ref::<BooleanArray>().is_some_and(|column| column.value(row))
}

/// Returns columns as a table.
pub(crate) fn table(columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let fields =
        columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns, &options)
}

/// Returns which rows satisfy the HAVING of the view.
fn shown(view: &View, rows: &FetchedRows, having: &Scalar) -> Result<ArrayRef, FinishError> {
    let finished = view.aggregates.iter().zip(&rows.merged.states);
    let columns = finished.map(|(aggregate, states)| finish(aggregate, states).column).collect();
    let table = table(columns, rows.merged.len())?;
    Ok(evaluate_or_null(&[having], &table, &QueryBudget::unlimited(), 0)?.remove(0).column)
}
