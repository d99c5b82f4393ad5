//! What do the rows of a merged table show, as far as a query asks before a page is cut? Aggregates finished when needed.
//!
//! A page is finished as a whole ([`shared::partial::finish::finish_measures`]); but filters and orders look at every row,
//! and should not pay for measures they do not name.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use shared::evaluate::{EvaluateError, evaluate};
use shared::partial::finish::finish;
use shared::partial::merge::Merged;
use shared::scalar::Scalar;
use shared::view::View;

/// Why the rows could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    #[error("the measures could not be computed: {0}")]
    Measures(#[from] EvaluateError),
    #[error("the columns could not be read: {0}")]
    Columns(#[from] ArrowError),
}

/// The figures of every row of a merged table.
pub struct Figures<'a> {
    view: &'a View,
    merged: &'a Merged,
    aggregates: Vec<OnceCell<ArrayRef>>,
}

impl<'a> Figures<'a> {
    /// Nothing is finished yet.
    pub fn new(view: &'a View, merged: &'a Merged) -> Figures<'a> {
        Figures { view, merged, aggregates: vec![OnceCell::new(); view.aggregates.len()] }
    }

    /// The measure with this index, for every row.
    pub fn measure(&self, measure: usize) -> Result<ArrayRef, FiguresError> {
        let expression = &self.view.measures[measure].expression;
        match expression.as_column() {
            Some(aggregate) => Ok(Arc::clone(self.aggregate(aggregate))),
            None => self.over_aggregates(expression),
        }
    }

    /// The rows that the view's HAVING lets pass.
    pub fn having(&self, rows: Vec<u32>) -> Result<Vec<u32>, FiguresError> {
        match &self.view.having {
            Some(having) => Ok(true_rows(rows, &self.over_aggregates(having)?)),
            None => Ok(rows),
        }
    }

    /// The rows at which `condition` is true: over the view's dimensions, and behind them its measures. `grouped` are the
    /// dimensions that the table has.
    pub fn passing(&self, rows: Vec<u32>, condition: &Scalar, grouped: &[usize]) -> Result<Vec<u32>, FiguresError> {
        let dimensions = &self.view.dimensions;
        let mut reads = vec![false; dimensions.len() + self.view.measures.len()];
        condition.for_each_column(&mut |column| reads[column] = true);
        let decoded =
            if reads[..dimensions.len()].contains(&true) { self.merged.dimension_columns()? } else { Vec::new() };
        let column = |at: usize| match at.checked_sub(dimensions.len()) {
            Some(measure) => self.measure(measure),
            None => {
                let place = grouped.iter().position(|dimension| *dimension == at);
                Ok(Arc::clone(&decoded[place.expect("a condition over rows names only dimensions they have")]))
            }
        };
        let data_type = |at: usize| match at.checked_sub(dimensions.len()) {
            Some(measure) => self.view.measures[measure].expression.data_type.arrow(),
            None => dimensions[at].expression.data_type.arrow(),
        };
        let columns = (0..reads.len()).map(|at| match reads[at] {
            true => column(at),
            false => Ok(new_null_array(&data_type(at), self.merged.len())),
        });
        let value = self.evaluated(condition, columns.collect::<Result<_, _>>()?)?;
        Ok(true_rows(rows, &value))
    }

    fn aggregate(&self, index: usize) -> &ArrayRef {
        self.aggregates[index].get_or_init(|| finish(&self.view.aggregates[index], &self.merged.states[index]).column)
    }

    fn over_aggregates(&self, expression: &Scalar) -> Result<ArrayRef, FiguresError> {
        let mut reads = vec![false; self.aggregates.len()];
        expression.for_each_column(&mut |index| reads[index] = true);
        let column = |(index, read): (usize, &bool)| match read {
            true => Arc::clone(self.aggregate(index)),
            false => new_null_array(&self.view.aggregates[index].data_type().arrow(), self.merged.len()),
        };
        self.evaluated(expression, reads.iter().enumerate().map(column).collect())
    }

    fn evaluated(&self, expression: &Scalar, columns: Vec<ArrayRef>) -> Result<ArrayRef, FiguresError> {
        let fields = columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(self.merged.len()));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(evaluate(&[expression], &rows)?.remove(0))
    }
}

/// Those of `rows` at which the BOOLEAN column is true.
fn true_rows(mut rows: Vec<u32>, condition: &ArrayRef) -> Vec<u32> {
    let condition = BooleanArray::from(condition.to_data());
    rows.retain(|row| condition.is_valid(*row as usize) && condition.value(*row as usize));
    rows
}
