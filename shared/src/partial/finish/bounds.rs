//! Computes the intervals of composed measures whose aggregates are estimates.
//!
//! A composed measure lies between its values at the corners of the intervals of the aggregates it reads. If it reads
//! several, each interval is taken wide enough (99.7 %) that all of them hold together 95 % of the time; by the union
//! bound that is certain up to 16 of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{and, is_not_null, is_null, nullif};
use arrow::datatypes::{DataType as ArrowType, Field, Float64Type, Schema};
use arrow::error::ArrowError;

use super::{MeasureColumn, finish_within};
use crate::evaluate::EvaluateError;
use crate::evaluate::pieces::evaluate_or_null;
use crate::partial::query_budget::QueryBudget;
use crate::partial::sketch::Width;
use crate::partial::states::States;
use crate::scalar::Scalar;
use crate::view::View;

/// Aggregates of one measure whose intervals are varied: 2^8 corners. Of more, the rest stay at their estimates.
const VARIED_MAX: usize = 8;

/// The interval around each value of a column, of the column's type; NULL where the value is exact. For TOP_K: JSON
/// arrays with a count per listed value.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub low: ArrayRef,
    pub high: ArrayRef,
}

/// The bounds of a composed measure whose values are `column`. NULL where all it reads is exact, and where a corner is
/// NULL or not finite.
pub(super) fn of_composed(
    view: &View,
    states: &[States],
    aggregates: &[MeasureColumn],
    (expression, column): (&Scalar, &ArrayRef),
    query: &QueryBudget,
) -> Result<Option<Bounds>, EvaluateError> {
    let mut varied = BTreeSet::new();
    expression.for_each_column(&mut |index| {
        if aggregates[index].bounds.is_some() {
            varied.insert(index);
        }
    });
    if varied.is_empty() {
        return Ok(None);
    }
    let width = if varied.len() > 1 { Width::Three } else { Width::Two };
    let mut approximate = BooleanArray::from(vec![false; column.len()]);
    let mut ends = Vec::new();
    for index in varied.into_iter().take(VARIED_MAX) {
        let finished = finish_within(&view.aggregates[index], &states[index], width);
        let Some(bounds) = &finished.bounds else { continue };
        let known = is_not_null(&bounds.low)?;
        let end = |bound: &ArrayRef| zip(&known, bound, &finished.column);
        ends.push((index, [end(&bounds.low)?, end(&bounds.high)?]));
        approximate = arrow::compute::or(&approximate, &known)?;
    }
    let fields: Vec<Field> = view
        .aggregates
        .iter()
        .enumerate()
        .map(|(i, a)| Field::new(format!("aggregate_{i}"), a.data_type().arrow(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let (mut low, mut high) = (Arc::clone(column), Arc::clone(column));
    let mut bounded = approximate;
    for corner in 0..1usize << ends.len() {
        let mut columns: Vec<ArrayRef> = aggregates.iter().map(|f| Arc::clone(&f.column)).collect();
        for (bit, (index, ends)) in ends.iter().enumerate() {
            columns[*index] = Arc::clone(&ends[corner >> bit & 1]);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(column.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        let value = evaluate_or_null(&[expression], &batch, query, 0)?.remove(0).column;
        bounded = and(&bounded, &is_finite(&value)?)?;
        // Where a side is NULL nothing is chosen; such rows have no bounds anyway.
        low = zip(&lt(&value, &low)?, &value, &low)?;
        high = zip(&gt(&value, &high)?, &value, &high)?;
    }
    let unbounded = arrow::compute::not(&bounded)?;
    let missing = is_null(column)?;
    let without = arrow::compute::or(&unbounded, &missing)?;
    if without.true_count() == without.len() {
        return Ok(None);
    }
    Ok(Some(Bounds { low: nullif(&low, &without)?, high: nullif(&high, &without)? }))
}

/// Returns which rows have a finite value.
fn is_finite(column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    if *column.data_type() != ArrowType::Float64 {
        return is_not_null(column);
    }
    let values = column.as_primitive::<Float64Type>();
    Ok(values.iter().map(|value| Some(value.is_some_and(f64::is_finite))).collect())
}
