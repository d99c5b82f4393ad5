//! Compares a served column with the exact one, value by value: equal, rounded, or different with a cause.
//!
//! Values are equal if both are NULL, both are NaN, or they are the same number. A DOUBLE is rounded if both numbers are finite
//! and |served - exact| <= max(1e-9 max(|served|, |exact|), 1e-12 max over the column of |exact|). Every other difference has
//! a cause: a NaN or an infinity on one side is never rounding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::DataType as ArrowType;
use shared::compare::{Cause, MeasureDrift};
use shared::double::canonical_column;
use shared::json_cell::number;

use crate::failure::RunFailure;
use crate::reconcile::causes::ServedKind;

/// Share of a value by which float sums in different orders may differ.
const ROUNDING_OF_VALUE: f64 = 1e-9;
/// Share of the column's largest value: where terms cancel, few digits of a sum are left.
const ROUNDING_OF_COLUMN: f64 = 1e-12;

/// The drift of one measure over the values counted so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriftSum {
    drift: MeasureDrift,
    /// Sum of the relative errors of `values` values.
    relative: f64,
    values: u64,
    /// Estimates that differ for no other reason than being estimates.
    estimates: u64,
    /// Those of them whose interval holds the exact value.
    inside: u64,
    /// Rows compared.
    compared: u64,
    /// Sum of their errors; see [`MeasureDrift::drift`].
    off: f64,
}

/// A differing value.
#[derive(Debug, Clone, Copy)]
pub struct ValueDifference {
    pub row: usize,
    pub cause: Cause,
    /// The relative error; infinite if one side has no number.
    pub error: f64,
}

/// The intervals of served estimates, null where a value was served as exact.
#[derive(Debug, Clone)]
pub struct Intervals {
    pub low: ArrayRef,
    pub high: ArrayRef,
}

impl Intervals {
    /// Returns what the value served in `row` was said to be; it differs from the exact one.
    fn of(intervals: Option<&Intervals>, exact: &ArrayRef, row: usize) -> ServedKind {
        let Some(Intervals { low, high }) = intervals.filter(|i| i.low.is_valid(row)) else { return ServedKind::Exact };
        match (number(low, row), number(high, row), number(exact, row)) {
            (Some(low), Some(high), Some(exact)) if low <= exact && exact <= high => ServedKind::InsideBounds,
            _ => ServedKind::OutsideBounds,
        }
    }
}

/// Compares two columns value by value and returns which rows are equal. Calls `cause` for differences beyond rounding and
/// `each` for all.
pub fn compare(
    served: &ArrayRef,
    intervals: Option<&Intervals>,
    exact: &ArrayRef,
    sum: &mut DriftSum,
    mut cause: impl FnMut(usize, ServedKind) -> Result<Cause, RunFailure>,
    mut each: impl FnMut(ValueDifference),
) -> Result<BooleanArray, RunFailure> {
    let (served, exact) = (&canonical_column(Arc::clone(served)), &canonical_column(Arc::clone(exact)));
    let equal = not_distinct(served, exact)?;
    sum.drift.equal += equal.true_count() as u64;
    sum.values += equal.true_count() as u64;
    if let Some(Intervals { low, .. }) = intervals {
        let equal_estimates = (0..equal.len()).filter(|row| equal.value(*row) && low.is_valid(*row)).count() as u64;
        sum.estimates += equal_estimates;
        sum.inside += equal_estimates;
    }
    let is_double = exact.data_type() == &ArrowType::Float64;
    let largest = if is_double && equal.false_count() > 0 {
        (0..exact.len()).filter_map(|row| number(exact, row)).filter(|x| x.is_finite()).fold(0.0, |a, x| x.abs().max(a))
    } else {
        0.0f64
    };
    for row in (0..equal.len()).filter(|row| !equal.value(*row)) {
        let error = match (number(served, row), number(exact, row)) {
            (Some(served), Some(exact)) if served.is_finite() && exact.is_finite() => {
                let absolute = (served - exact).abs();
                let size = served.abs().max(exact.abs());
                let relative = if exact == 0.0 { absolute / size } else { absolute / exact.abs() };
                // The quotient of a large and a tiny number may be infinite: nothing to take a mean of.
                if relative.is_finite() {
                    sum.drift.max_abs_error = sum.drift.max_abs_error.max(absolute);
                    sum.drift.max_rel_error = sum.drift.max_rel_error.max(relative);
                    sum.relative += relative;
                    sum.values += 1;
                }
                let tolerance = (ROUNDING_OF_VALUE * size).max(ROUNDING_OF_COLUMN * largest);
                if is_double && absolute <= tolerance {
                    sum.off += if relative.is_finite() { relative } else { 1.0 };
                    each(ValueDifference { row, cause: Cause::Rounding, error: relative });
                    continue;
                }
                if relative.is_finite() { relative } else { f64::INFINITY }
            }
            // Only one side has a value, or it is NaN or infinite: as far off as can be.
            _ => f64::INFINITY,
        };
        let kind = Intervals::of(intervals, exact, row);
        let cause = cause(row, kind)?;
        if cause == Cause::Sketch {
            sum.estimates += 1;
            sum.inside += u64::from(kind == ServedKind::InsideBounds);
        }
        if !matches!(cause, Cause::Definition | Cause::Historical | Cause::Retention | Cause::Erased) {
            sum.off += if error.is_finite() { error } else { 1.0 };
        }
        each(ValueDifference { row, cause, error });
    }
    sum.compared += equal.len() as u64;
    Ok(equal)
}

impl DriftSum {
    /// Returns the drift over all values counted.
    pub fn drift(self) -> MeasureDrift {
        // Finite even where errors of 1e308 add up.
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { (sum / count as f64).min(f64::MAX) };
        let mean_rel_error = mean(self.relative, self.values);
        let inside_bounds = (self.estimates > 0).then(|| self.inside as f64 / self.estimates as f64);
        let drift = mean(self.off, self.compared);
        MeasureDrift { mean_rel_error, drift, estimates: self.estimates, inside_bounds, ..self.drift }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringViewArray};

    use super::*;

    fn compared(served: ArrayRef, exact: ArrayRef) -> (Vec<(usize, Cause)>, MeasureDrift) {
        let mut sum = DriftSum::default();
        let mut all = Vec::new();
        let each = |d: ValueDifference| all.push((d.row, d.cause));
        compare(&served, None, &exact, &mut sum, |_, _| Ok(Cause::Late), each).expect("compares");
        (all, sum.drift())
    }

    #[test]
    fn integers_have_no_tolerance() {
        let served = Arc::new(Int64Array::from(vec![Some(1), Some(49), None, None, Some(0)]));
        let exact = Arc::new(Int64Array::from(vec![Some(1), Some(50), None, Some(3), Some(4)]));
        let (all, drift) = compared(served, exact);
        assert_eq!(all, [(1, Cause::Late), (3, Cause::Late), (4, Cause::Late)]);
        assert_eq!((drift.equal, drift.max_abs_error, drift.max_rel_error), (2, 4.0, 1.0));
        assert!((drift.mean_rel_error - 1.02 / 4.0).abs() < 1e-12);
        assert!((drift.drift - 2.02 / 5.0).abs() < 1e-12, "a row that was not served is off by all of it: {drift:?}");
    }

    #[test]
    fn floats_may_be_rounded() {
        let served = Arc::new(Float64Array::from(vec![1.0, 0.1 + 0.2, f64::NAN, f64::NAN, 1.0, 1e-7, 1e9]));
        let exact = Arc::new(Float64Array::from(vec![1.0, 0.3, f64::NAN, 1.0, 1.1, 0.0, 1e9]));
        let (all, drift) = compared(served, exact);
        assert_eq!(all, [(1, Cause::Rounding), (3, Cause::Late), (4, Cause::Late), (5, Cause::Rounding)]);
        assert_eq!(drift.equal, 3);
    }

    #[test]
    fn nan_equals_nan_and_an_infinity_is_never_rounding() {
        let (nan, inf, max) = (f64::NAN, f64::INFINITY, f64::MAX);
        let served = Arc::new(Float64Array::from(vec![-nan, -0.0, inf, inf, 1.0, -inf, nan, 1e308, max, 1e-300]));
        let exact = Arc::new(Float64Array::from(vec![nan, 0.0, inf, 1.0, inf, inf, inf, -1e308, 5e-324, 5e-324]));
        let (all, drift) = compared(served, exact);
        let late: Vec<_> = (3..9).map(|row| (row, Cause::Late)).collect();
        assert_eq!(all[..6], late);
        assert_eq!(all[6..], [(9, Cause::Rounding)]);
        assert_eq!(drift.equal, 3);
        let MeasureDrift { max_abs_error, max_rel_error, mean_rel_error, drift, .. } = drift;
        assert!([max_abs_error, max_rel_error, mean_rel_error, drift].iter().all(|figure| figure.is_finite()));
    }

    #[test]
    fn texts_have_no_relative_error() {
        let served = Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), None]));
        let exact = Arc::new(StringViewArray::from(vec![Some("a"), Some("c"), Some("")]));
        let (all, drift) = compared(served, exact);
        assert_eq!(all.len(), 2);
        assert_eq!((drift.equal, drift.max_abs_error), (1, 0.0));
    }
}
