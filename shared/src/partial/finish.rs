//! Finishes states into columns: aggregates, then measures over them, each with an interval if it is not exact.

mod bounds;
mod counted;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{Field, Schema, i256};

pub use self::bounds::Bounds;
use crate::double::canonical_column;
use crate::evaluate::EvaluateError;
use crate::evaluate::pieces::{NullableColumn, evaluate_or_null};
use crate::limits::MEASURES_BYTES_MAX;
use crate::partial::query_budget::QueryBudget;
use crate::partial::sketch::Width;
use crate::partial::sketch::listing::Listed;
use crate::partial::sketch::percentile::{Estimate, Percentile, Point, Quantity, Wanted};
use crate::partial::states::double_sums::DoubleSum;
use crate::partial::states::first_last::{EdgeValues, FirstLastStates};
use crate::partial::states::integer_sums::IntegerSums;
use crate::partial::states::sketches::{Groups, Sketches};
use crate::partial::states::{DoubleDouble, States};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, View};

/// The largest unscaled DECIMAL(38, _).
const DECIMAL_MAX: i128 = 10i128.pow(38) - 1;

/// A finished column, the rows whose value did not fit its type (their value is NULL), and the 95 % interval around
/// values that are not exact. `bounds` is `None` if all rows are exact.
#[derive(Debug, Clone)]
pub struct MeasureColumn {
    pub column: ArrayRef,
    pub overflowed: Option<BooleanBuffer>,
    pub bounds: Option<Bounds>,
}

impl MeasureColumn {
    fn exact(column: ArrayRef) -> MeasureColumn {
        MeasureColumn { column: canonical_column(column), overflowed: None, bounds: None }
    }
}

/// Finishes every measure of `view`: one column each, with a row per group. `states` has one entry per aggregate.
pub fn finish_measures(view: &View, states: &[States]) -> Result<Vec<MeasureColumn>, EvaluateError> {
    finish_measures_within(view, states, &QueryBudget { bytes_max: MEASURES_BYTES_MAX, ..QueryBudget::unlimited() })
}

/// Finishes every measure of `view` on behalf of a query.
pub fn finish_measures_within(
    view: &View,
    states: &[States],
    query: &QueryBudget,
) -> Result<Vec<MeasureColumn>, EvaluateError> {
    let rows = states.first().map_or(0, States::len);
    let aggregates: Vec<MeasureColumn> = view.aggregates.iter().zip(states).map(|(a, s)| finish(a, s)).collect();
    let composed: Vec<_> = view.measures.iter().map(|m| &m.expression).filter(|e| e.as_column().is_none()).collect();
    let mut computed = if composed.is_empty() {
        Vec::new()
    } else {
        let field = |(i, a): (usize, &Aggregate)| Field::new(format!("aggregate_{i}"), a.data_type().arrow(), true);
        let schema = Schema::new(view.aggregates.iter().enumerate().map(field).collect::<Vec<_>>());
        let columns = aggregates.iter().map(|f| Arc::clone(&f.column)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        evaluate_or_null(&composed, &RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?, query, 0)?
    }
    .into_iter();
    let measures = view.measures.iter().map(|measure| match measure.expression.as_column() {
        Some(index) => Ok(aggregates[index].clone()),
        None => {
            let mut overflowed: Option<BooleanBuffer> = None;
            measure.expression.for_each_column(&mut |index| {
                if let Some(theirs) = &aggregates[index].overflowed {
                    overflowed = Some(overflowed.as_ref().map_or_else(|| theirs.clone(), |ours| ours | theirs));
                }
            });
            let NullableColumn { column, failed } = computed.next().expect("one column per composed measure");
            if let Some(failed) = failed {
                overflowed = Some(overflowed.map_or_else(|| failed.rows.clone(), |ours| &ours | &failed.rows));
            }
            let column = canonical_column(column);
            let bounds = bounds::of_composed(view, states, &aggregates, (&measure.expression, &column), query)?;
            Ok(MeasureColumn { column, overflowed, bounds })
        }
    });
    measures.collect()
}

/// Finishes one aggregate.
pub fn finish(aggregate: &Aggregate, states: &States) -> MeasureColumn {
    finish_within(aggregate, states, Width::Two)
}

fn finish_within(aggregate: &Aggregate, states: &States, width: Width) -> MeasureColumn {
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    let rounded = states.rounded();
    let column: ArrayRef = match rounded.as_ref().unwrap_or(states) {
        States::ExactDoubles { .. } | States::ExactSpread(_) => unreachable!("sums are rounded first"),
        States::Count(counts) => Arc::new(Int64Array::from(counts.clone())),
        States::Integers { sums, counts } if aggregate.function == AggregateFunction::Avg => {
            let unit = match argument {
                DataType::Decimal { scale, .. } => 10f64.powi(i32::from(scale)),
                _ => 1.0,
            };
            let average = |(sum, count): (Option<i256>, &i64)| {
                sum.filter(|_| *count > 0).map(|sum| nearest(sum) / unit / *count as f64)
            };
            let column: Float64Array = sums.iter().zip(counts).map(average).collect();
            return MeasureColumn { column: Arc::new(column), overflowed: flags(sums, |_| true), bounds: None };
        }
        States::Integers { sums, counts } => {
            return match argument {
                DataType::Decimal { scale, .. } => {
                    let value = |(sum, count): (Option<i256>, &i64)| sum.and_then(decimal).filter(|_| *count > 0);
                    let column: Decimal128Array = sums.iter().zip(counts).map(value).collect();
                    let typed = column.with_precision_and_scale(38, scale).expect("checked to have 38 digits at most");
                    MeasureColumn {
                        column: Arc::new(typed),
                        overflowed: flags(sums, |sum| decimal(sum).is_some()),
                        bounds: None,
                    }
                }
                _ => {
                    let long = |sum: i256| sum.to_i128().and_then(|sum| i64::try_from(sum).ok());
                    let value = |(sum, count): (Option<i256>, &i64)| sum.and_then(long).filter(|_| *count > 0);
                    let column: Int64Array = sums.iter().zip(counts).map(value).collect();
                    let overflowed = flags(sums, |sum| long(sum).is_some());
                    MeasureColumn { column: Arc::new(column), overflowed, bounds: None }
                }
            };
        }
        States::Doubles { sums, counts } => {
            let average = aggregate.function == AggregateFunction::Avg;
            let value = |(sum, count): (DoubleSum<'_>, &i64)| {
                let divisor = if average { count.unsigned_abs() } else { 1 };
                (*count > 0).then(|| sum.over(divisor))
            };
            Arc::new(sums.iter().zip(counts).map(value).collect::<Float64Array>())
        }
        States::Ordered { values, seen, .. } => ordered_column(argument, values, seen),
        States::Decimals { values, seen, .. } => decimal_column(argument, values, seen),
        States::Floats { values, seen, .. } => Arc::new(Float64Array::new(values.clone().into(), Some(valid(seen)))),
        States::Texts { values, .. } => Arc::new(values.iter().map(|t| t.as_deref()).collect::<StringViewArray>()),
        States::Spread(groups) => {
            let unit = match argument {
                DataType::Decimal { scale, .. } => 10f64.powi(i32::from(scale)),
                _ => 1.0,
            };
            let (sample, root) = match aggregate.function {
                AggregateFunction::Spread { sample, root } => (sample, root),
                _ => (false, false),
            };
            let value = |spread: f64| if root { spread / unit } else { spread / unit / unit };
            Arc::new(groups.variances(sample, root).map(|spread| spread.map(value)).collect::<Float64Array>())
        }
        States::FirstLast(edges) => edge_column(argument, edges),
        States::Sketches(sketches) => return finish_sketches(argument, sketches, width),
        States::Counted(values) => return counted::finish_counted(aggregate, values),
        States::Timed(values) => counted::edge_column(aggregate.function, argument, values),
    };
    MeasureColumn::exact(column)
}

fn edge_column(argument: DataType, edges: &FirstLastStates) -> ArrayRef {
    let seen = edges.seen();
    match &edges.values {
        EdgeValues::Longs(values) => ordered_column(argument, values, &seen),
        EdgeValues::Decimals(values) => decimal_column(argument, values, &seen),
        EdgeValues::Doubles(values) => Arc::new(Float64Array::new(values.clone().into(), Some(valid(&seen)))),
        EdgeValues::Texts(values) => {
            let texts = values.iter().zip(&seen).map(|(text, seen)| seen.then_some(text.as_str()));
            Arc::new(texts.collect::<StringViewArray>())
        }
    }
}

fn finish_sketches(argument: DataType, sketches: &Sketches, width: Width) -> MeasureColumn {
    match &sketches.groups {
        Groups::Distinct(groups) => {
            let counts: Vec<_> = groups.iter().map(|group| group.estimate(width)).collect();
            let column = |of: &dyn Fn(&(u64, u64)) -> u64| -> ArrayRef {
                let bound = counts.iter().map(|c| c.range.as_ref().map(|range| long(of(range))));
                Arc::new(bound.collect::<Int64Array>())
            };
            let is_exact = counts.iter().all(|c| c.range.is_none());
            let bounds = (!is_exact).then(|| Bounds { low: column(&|r| r.0), high: column(&|r| r.1) });
            let column = Arc::new(counts.iter().map(|c| Some(long(c.count))).collect::<Int64Array>());
            MeasureColumn { column, overflowed: None, bounds }
        }
        Groups::Longs(wanted, groups) => {
            percentiles(&estimates(groups, *wanted, width), *wanted, |values| longs_column(argument, values))
        }
        Groups::Doubles(wanted, groups) => percentiles(&estimates(groups, *wanted, width), *wanted, doubles_column),
        Groups::LongItems(listing, groups) => listed(groups.iter().map(|group| listing.of_longs(group)).collect()),
        Groups::TextItems(listing, groups) => listed(groups.iter().map(|group| listing.of_texts(group)).collect()),
    }
}

fn longs_column(data_type: DataType, values: &[Option<i64>]) -> ArrayRef {
    let seen: Vec<bool> = values.iter().map(Option::is_some).collect();
    let values: Vec<i64> = values.iter().map(|value| value.unwrap_or_default()).collect();
    ordered_column(data_type, &values, &seen)
}

fn doubles_column<T: Quantity>(values: &[Option<T>]) -> ArrayRef {
    Arc::new(values.iter().map(|value| value.map(Quantity::as_double)).collect::<Float64Array>())
}

fn estimates<T: Quantity>(groups: &[Percentile<T>], wanted: Wanted, width: Width) -> Vec<Option<Estimate<T>>> {
    groups.iter().map(|group| group.estimate(wanted, width)).collect()
}

fn percentiles<T: Quantity>(
    found: &[Option<Estimate<T>>],
    wanted: Wanted,
    discrete: impl Fn(&[Option<T>]) -> ArrayRef,
) -> MeasureColumn {
    let column = |points: Vec<Option<Point<T>>>| -> ArrayRef {
        if wanted.continuous {
            return Arc::new(points.into_iter().map(|p| p.map(Point::as_double)).collect::<Float64Array>());
        }
        let values: Vec<Option<T>> = points.into_iter().map(|p| p.and_then(Point::value)).collect();
        discrete(&values)
    };
    let bound = |of: &dyn Fn((T, T)) -> T| {
        column(found.iter().map(|f| f.as_ref().and_then(|f| f.range).map(|range| Point::Value(of(range)))).collect())
    };
    let is_exact = found.iter().flatten().all(|f| f.range.is_none());
    let bounds = (!is_exact).then(|| Bounds { low: bound(&|r| r.0), high: bound(&|r| r.1) });
    let column = canonical_column(column(found.iter().map(|f| f.as_ref().map(|f| f.point)).collect()));
    MeasureColumn { column, overflowed: None, bounds }
}

fn listed(lists: Vec<Option<Listed>>) -> MeasureColumn {
    let bound = |of: &dyn Fn(&(String, String)) -> String| -> ArrayRef {
        let texts = lists.iter().map(|list| list.as_ref().and_then(|l| l.range.as_ref()).map(of));
        Arc::new(texts.collect::<StringViewArray>())
    };
    let is_exact = lists.iter().flatten().all(|list| list.range.is_none());
    let bounds = (!is_exact).then(|| Bounds { low: bound(&|r| r.0.clone()), high: bound(&|r| r.1.clone()) });
    let column: StringViewArray = lists.iter().map(|list| list.as_ref().map(|l| &*l.text)).collect();
    MeasureColumn { column: Arc::new(column), overflowed: None, bounds }
}

fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn decimal_column(data_type: DataType, values: &[i128], seen: &[bool]) -> ArrayRef {
    let (precision, scale) = match data_type {
        DataType::Decimal { precision, scale } => (precision, scale),
        _ => (38, 0),
    };
    let column = Decimal128Array::new(values.to_vec().into(), Some(valid(seen)));
    Arc::new(column.with_precision_and_scale(precision, scale).expect("values came from this type"))
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

/// The sums that are not known or do not fit; `None`: all do.
fn flags(sums: &IntegerSums, fits: impl Fn(i256) -> bool) -> Option<BooleanBuffer> {
    let overflows = |sum: Option<i256>| !sum.is_some_and(&fits);
    sums.iter().any(overflows).then(|| sums.iter().map(overflows).collect())
}

/// The unscaled value of a DECIMAL(38, _), if it fits.
fn decimal(sum: i256) -> Option<i128> {
    sum.to_i128().filter(|sum| sum.unsigned_abs() <= DECIMAL_MAX as u128)
}

/// The nearest DOUBLE, or beyond 128 bits one of its neighbours.
fn nearest(sum: i256) -> f64 {
    match sum.to_i128() {
        Some(sum) => sum as f64,
        None => {
            let (low, high) = sum.to_parts();
            let half = |part: u128| DoubleDouble::of_integer((part >> 1) as i128);
            let high = DoubleDouble::of_integer(high).scaled(2f64.powi(128));
            high.plus(half(low).scaled(2.0)).plus_one((low & 1) as f64).nearest()
        }
    }
}
