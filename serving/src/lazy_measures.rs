//! Finishes aggregates of a merged table on demand, for filters and orders that read every row.
//!
//! The rows of a page are finished together ([`shared::partial::finish::finish_measures`]). Filters and orders run before
//! the page is cut and pay only for the measures they name.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use serde::Serialize;
use shared::evaluate::EvaluateError;
use shared::evaluate::pieces::{NullableColumn, evaluate_or_null, evaluate_within};
use shared::partial::finish::finish;
use shared::partial::merge::Merged;
use shared::partial::query_budget::QueryBudget;
use shared::scalar::Scalar;
use shared::view::View;
use utoipa::ToSchema;

/// The reason why a measure or a condition could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum MeasuresError {
    #[error("cannot compute the measures: {0}")]
    Measures(#[from] EvaluateError),
    #[error("cannot read the columns: {0}")]
    Columns(#[from] ArrowError),
}

/// Rows that are in no result, because the HAVING of the view fails for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedGroups {
    pub count: u64,
    /// The error of the first of them.
    pub reason: String,
}

/// The measures of every row of a merged table; each aggregate is finished once, when first read.
pub struct LazyMeasures<'a> {
    view: &'a View,
    merged: &'a Merged,
    allowance: &'a QueryBudget,
    aggregates: Vec<OnceCell<ArrayRef>>,
}

impl<'a> LazyMeasures<'a> {
    /// Wraps `merged`; finishes nothing yet.
    pub fn new(view: &'a View, merged: &'a Merged, allowance: &'a QueryBudget) -> LazyMeasures<'a> {
        LazyMeasures { view, merged, allowance, aggregates: vec![OnceCell::new(); view.aggregates.len()] }
    }

    /// Returns the measure with this index, for every row.
    pub fn measure(&self, measure: usize) -> Result<ArrayRef, MeasuresError> {
        let expression = &self.view.measures[measure].expression;
        match expression.as_column() {
            Some(aggregate) => Ok(Arc::clone(self.aggregate(aggregate))),
            // As it is shown: NULL where it cannot be computed.
            None => {
                let table = self.aggregates_of(expression)?;
                Ok(evaluate_or_null(&[expression], &table, self.allowance, self.merged.bytes())?.remove(0).column)
            }
        }
    }

    /// Returns the rows that satisfy the view's HAVING, and those for which it cannot be decided: they are excluded, like an
    /// event for which an expression of the view fails.
    pub fn having(&self, rows: Vec<u32>) -> Result<(Vec<u32>, Option<FailedGroups>), MeasuresError> {
        let Some(having) = &self.view.having else { return Ok((rows, None)) };
        let table = self.aggregates_of(having)?;
        let NullableColumn { column, failed } =
            evaluate_or_null(&[having], &table, self.allowance, self.merged.bytes())?.remove(0);
        let failed = failed.map(|failed| {
            let count = rows.iter().filter(|row| failed.rows.value(**row as usize)).count() as u64;
            FailedGroups { count, reason: failed.reason }
        });
        Ok((true_rows(rows, &column), failed.filter(|failed| failed.count > 0)))
    }

    /// Returns the rows at which `condition` is true. Its columns are the view's dimensions, then its measures; `grouped` are
    /// the dimensions that the table has.
    pub fn passing(&self, rows: Vec<u32>, condition: &Scalar, grouped: &[usize]) -> Result<Vec<u32>, MeasuresError> {
        let dimensions = &self.view.dimensions;
        let mut reads = vec![false; dimensions.len() + self.view.measures.len()];
        condition.for_each_column(&mut |column| reads[column] = true);
        let decoded =
            if reads[..dimensions.len()].contains(&true) { self.merged.dimension_columns()? } else { Vec::new() };
        let column = |at: usize| match at.checked_sub(dimensions.len()) {
            Some(measure) => self.measure(measure),
            None => {
                let position = grouped.iter().position(|dimension| *dimension == at);
                Ok(Arc::clone(&decoded[position.expect("a condition over rows names only dimensions that they have")]))
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
        let value = self.evaluated(condition, &self.table(columns.collect::<Result<_, _>>()?)?)?;
        Ok(true_rows(rows, &value))
    }

    fn aggregate(&self, index: usize) -> &ArrayRef {
        self.aggregates[index].get_or_init(|| finish(&self.view.aggregates[index], &self.merged.states[index]).column)
    }

    /// Returns the aggregates that `expression` reads, in a table with NULL in place of the others.
    fn aggregates_of(&self, expression: &Scalar) -> Result<RecordBatch, MeasuresError> {
        let mut reads = vec![false; self.aggregates.len()];
        expression.for_each_column(&mut |index| reads[index] = true);
        let column = |(index, read): (usize, &bool)| match read {
            true => Arc::clone(self.aggregate(index)),
            false => new_null_array(&self.view.aggregates[index].data_type().arrow(), self.merged.len()),
        };
        self.table(reads.iter().enumerate().map(column).collect())
    }

    fn table(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch, MeasuresError> {
        let fields = columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(self.merged.len()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    fn evaluated(&self, expression: &Scalar, rows: &RecordBatch) -> Result<ArrayRef, MeasuresError> {
        Ok(evaluate_within(&[expression], rows, self.allowance, self.merged.bytes())?.remove(0))
    }
}

/// Returns those of `rows` at which the BOOLEAN column is true.
fn true_rows(mut rows: Vec<u32>, condition: &ArrayRef) -> Vec<u32> {
    let condition = BooleanArray::from(condition.to_data());
    rows.retain(|row| condition.is_valid(*row as usize) && condition.value(*row as usize));
    rows
}
