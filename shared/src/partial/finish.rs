//! What does a state show? Finished columns: first the aggregates, then the measures over them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{Field, Schema};

use crate::evaluate::{EvaluateError, evaluate};
use crate::partial::states::{SUM_OVERFLOW, States};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, View};

/// The largest unscaled DECIMAL(38, _).
const DECIMAL_MAX: i128 = 10i128.pow(38) - 1;

/// A finished column, and the rows whose value did not fit its type (their value is NULL).
#[derive(Debug)]
pub struct Finished {
    pub column: ArrayRef,
    pub overflowed: Option<BooleanBuffer>,
    pub bounds: Option<Bounds>,
}

/// stub
#[derive(Debug, Clone)]
pub struct Bounds {
    pub low: ArrayRef,
    pub high: ArrayRef,
}

/// Finishes every measure of `view`: one column each, with a row per group. `states` has one entry per aggregate.
pub fn finish_measures(view: &View, states: &[States]) -> Result<Vec<Finished>, EvaluateError> {
    let rows = states.first().map_or(0, States::len);
    let aggregates: Vec<Finished> = view.aggregates.iter().zip(states).map(|(a, s)| finish(a, s)).collect();
    let composed: Vec<_> = view.measures.iter().map(|m| &m.expression).filter(|e| e.as_column().is_none()).collect();
    let mut computed = if composed.is_empty() {
        Vec::new()
    } else {
        let field = |(i, a): (usize, &Aggregate)| Field::new(format!("aggregate_{i}"), a.data_type().arrow(), true);
        let schema = Schema::new(view.aggregates.iter().enumerate().map(field).collect::<Vec<_>>());
        let columns = aggregates.iter().map(|f| Arc::clone(&f.column)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        evaluate(&composed, &RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)?
    }
    .into_iter();
    let measures = view.measures.iter().map(|measure| match measure.expression.as_column() {
        Some(index) => Finished {
            column: Arc::clone(&aggregates[index].column),
            overflowed: aggregates[index].overflowed.clone(),
            bounds: None,
        },
        None => {
            let mut overflowed: Option<BooleanBuffer> = None;
            measure.expression.for_each_column(&mut |index| {
                if let Some(theirs) = &aggregates[index].overflowed {
                    overflowed = Some(overflowed.as_ref().map_or_else(|| theirs.clone(), |ours| ours | theirs));
                }
            });
            Finished { column: computed.next().expect("one column per composed measure"), overflowed, bounds: None }
        }
    });
    Ok(measures.collect())
}

/// Finishes one aggregate.
pub fn finish(aggregate: &Aggregate, states: &States) -> Finished {
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    let column: ArrayRef = match states {
        States::Count(counts) => Arc::new(Int64Array::from(counts.clone())),
        States::Integers { sums, counts } if aggregate.function == AggregateFunction::Avg => {
            let unit = match argument {
                DataType::Decimal { scale, .. } => 10f64.powi(i32::from(scale)),
                _ => 1.0,
            };
            let average = |(sum, count): (&i128, &i64)| {
                (*count > 0 && *sum != SUM_OVERFLOW).then(|| *sum as f64 / unit / *count as f64)
            };
            let column: Float64Array = sums.iter().zip(counts).map(average).collect();
            return Finished {
                column: Arc::new(column),
                overflowed: flags(sums, |sum| sum == SUM_OVERFLOW),
                bounds: None,
            };
        }
        States::Integers { sums, counts } => {
            return match argument {
                DataType::Decimal { scale, .. } => {
                    let fits = |sum: i128| sum.unsigned_abs() <= DECIMAL_MAX as u128;
                    let value = |(sum, count): (&i128, &i64)| (*count > 0 && fits(*sum)).then_some(*sum);
                    let column: Decimal128Array = sums.iter().zip(counts).map(value).collect();
                    let typed = column.with_precision_and_scale(38, scale).expect("checked to have 38 digits at most");
                    Finished { column: Arc::new(typed), overflowed: flags(sums, |sum| !fits(sum)), bounds: None }
                }
                _ => {
                    let value = |(sum, count): (&i128, &i64)| i64::try_from(*sum).ok().filter(|_| *count > 0);
                    let column: Int64Array = sums.iter().zip(counts).map(value).collect();
                    Finished {
                        column: Arc::new(column),
                        overflowed: flags(sums, |sum| i64::try_from(sum).is_err()),
                        bounds: None,
                    }
                }
            };
        }
        States::Doubles { sums, corrections, counts } => {
            let average = aggregate.function == AggregateFunction::Avg;
            let value = |((sum, correction), count): ((&f64, &f64), &i64)| {
                let total = if sum.is_finite() { sum + correction } else { *sum } + 0.0;
                (*count > 0).then(|| if average { total / *count as f64 } else { total })
            };
            Arc::new(sums.iter().zip(corrections).zip(counts).map(value).collect::<Float64Array>())
        }
        States::Ordered { values, seen, .. } => ordered_column(argument, values, seen),
        States::Decimals { values, seen, .. } => {
            let (precision, scale) = match argument {
                DataType::Decimal { precision, scale } => (precision, scale),
                _ => (38, 0),
            };
            let column = Decimal128Array::new(values.clone().into(), Some(valid(seen)));
            Arc::new(column.with_precision_and_scale(precision, scale).expect("values came from this type"))
        }
        States::Floats { values, seen, .. } => Arc::new(Float64Array::new(values.clone().into(), Some(valid(seen)))),
        States::Texts { values, .. } => Arc::new(values.iter().map(|t| t.as_deref()).collect::<StringViewArray>()),
    };
    Finished { column, overflowed: None, bounds: None }
}

/// Values of BOOLEAN, INT, BIGINT, DATE or TIMESTAMP from the i64 that sorts like them.
fn ordered_column(data_type: DataType, values: &[i64], seen: &[bool]) -> ArrayRef {
    let nulls = Some(valid(seen));
    let narrow = || values.iter().map(|v| *v as i32).collect::<Vec<_>>();
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::new(values.iter().map(|v| *v != 0).collect(), nulls)),
        DataType::Int => Arc::new(Int32Array::new(narrow().into(), nulls)),
        DataType::Date => Arc::new(Date32Array::new(narrow().into(), nulls)),
        DataType::Timestamp => {
            Arc::new(TimestampMicrosecondArray::new(values.to_vec().into(), nulls).with_timezone("UTC"))
        }
        _ => Arc::new(Int64Array::new(values.to_vec().into(), nulls)),
    }
}

fn valid(seen: &[bool]) -> NullBuffer {
    NullBuffer::from(seen.to_vec())
}

fn flags(sums: &[i128], overflows: impl Fn(i128) -> bool) -> Option<BooleanBuffer> {
    sums.iter().any(|s| overflows(*s)).then(|| sums.iter().map(|s| overflows(*s)).collect())
}
