//! Tests figures at the ends of their ranges: order, splits, storage and precision do not change a result.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{Decimal128Type, Float64Type};
use proptest::prelude::*;

use super::*;
use crate::partial::codec::{decode_states, encode};
use crate::partial::finish::finish;
use crate::scalar::Scalar;
use crate::view::{Measure, OutputColumn, View};
use crate::window::WindowId;

const M: i128 = 10i128.pow(38) - 1;
const DECIMAL: DataType = DataType::Decimal { precision: 38, scale: 0 };

fn aggregate(function: AggregateFunction, data_type: DataType) -> Aggregate {
    Aggregate { function, argument: Some(Scalar::column(0, data_type)), filter: None, signed: false }
}

fn functions() -> [AggregateFunction; 5] {
    use AggregateFunction::{Avg, Spread, Sum};
    let spread = |sample, root| Spread { sample, root };
    [Sum, Avg, spread(false, false), spread(true, false), spread(false, true)]
}

fn observed(aggregate: &Aggregate, precision: Precision, column: &ArrayRef) -> States {
    let mut states = States::new(aggregate, precision);
    states.grow(1);
    let rows: Vec<u32> = (0..column.len() as u32).collect();
    let selection = Selection { groups: &vec![0; rows.len()], rows: &rows, mask: None };
    let offsets = Offsets::Run { partition: 0, first: 0 };
    states.observe(selection, Some(column), &EventPositions { times: &vec![0; rows.len()], offsets });
    states
}

/// As a view's table gives the states back.
fn stored(aggregate: &Aggregate, states: &States) -> States {
    let view = View {
        measures: vec![Measure { name: "m".to_owned(), expression: Scalar::column(0, aggregate.data_type()) }],
        output: vec![OutputColumn::Measure(0)],
        aggregates: vec![aggregate.clone()],
        ..super::laws::view(Vec::new())
    };
    let table = encode(&view, &[WindowId::ALL_TIME], &[], Vec::new(), std::slice::from_ref(states)).expect("encodes");
    decode_states(&view, &table).expect("decodes").remove(0)
}

/// The value in every way a state can come about: folded at once, merged from two parts of either precision, stored before.
fn in_every_way(aggregate: &Aggregate, column: &ArrayRef, at: usize) -> Vec<(String, ArrayRef)> {
    let at = at.min(column.len());
    let (left, right) = (column.slice(0, at), column.slice(at, column.len() - at));
    let mut all = Vec::new();
    for ours in [Precision::Sketch, Precision::Exact] {
        let whole = observed(aggregate, ours, column);
        all.push((format!("{ours:?}"), finish(aggregate, &whole).column));
        all.push((format!("{ours:?}, stored"), finish(aggregate, &stored(aggregate, &whole)).column));
        for theirs in [Precision::Sketch, Precision::Exact] {
            let other = observed(aggregate, theirs, &right);
            for other in [stored(aggregate, &other), other] {
                let mut merged = observed(aggregate, ours, &left);
                merged.merge(&[0], &other, 0);
                all.push((format!("{ours:?} and {theirs:?}"), finish(aggregate, &merged).column));
                let mut merged = other;
                merged.merge(&[0], &stored(aggregate, &observed(aggregate, ours, &left)), 0);
                all.push((format!("{theirs:?} and {ours:?}, stored"), finish(aggregate, &merged).column));
            }
        }
    }
    all
}

fn doubles(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn decimals(values: &[i128]) -> ArrayRef {
    let column = Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, 0);
    Arc::new(column.expect("38 digits"))
}

#[test]
fn sums_that_overflow_in_between_are_exact() {
    let sum = aggregate(AggregateFunction::Sum, DataType::Double);
    for at in 0..=3 {
        for (how, column) in in_every_way(&sum, &doubles(&[1e308, 1e308, -1e308]), at) {
            assert_eq!(column.as_primitive::<Float64Type>().value(0), 1e308, "{how}, split at {at}");
        }
        let total = aggregate(AggregateFunction::Sum, DECIMAL);
        for (how, column) in in_every_way(&total, &decimals(&[M, M, -M]), at) {
            assert_eq!(column.as_primitive::<Decimal128Type>().value(0), M, "{how}, split at {at}");
        }
        for (how, column) in in_every_way(&total, &decimals(&[M, M, M, -M]), at) {
            assert!(column.is_null(0), "{how}, split at {at}");
        }
        let mean = aggregate(AggregateFunction::Avg, DECIMAL);
        for (how, column) in in_every_way(&mean, &decimals(&[M, M, M]), at) {
            assert_eq!(column.as_primitive::<Float64Type>().value(0), 1e38, "{how}, split at {at}");
        }
    }
}

#[test]
fn sums_of_earlier_versions_that_had_overflowed_stay_null() {
    let total = aggregate(AggregateFunction::Sum, DECIMAL);
    let sums = [None].into_iter().collect();
    let states = States::Integers { sums, counts: vec![2] };
    for mut states in [stored(&total, &states), states] {
        states.merge(&[0], &observed(&total, Precision::Sketch, &decimals(&[-M])), 0);
        let finished = finish(&total, &states);
        assert!(finished.column.is_null(0));
        assert!(finished.overflowed.expect("it did").value(0));
    }
}

fn double() -> impl Strategy<Value = f64> {
    let ends = [1e308, -1e308, f64::MAX, f64::MIN, 1e200, -3e160, 1e150, 1e-200, 5e-324, f64::MIN_POSITIVE, 0.1];
    let special = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    prop_oneof![
        4 => -1e3..1e3f64,
        2 => any::<f64>(),
        4 => prop::sample::select(ends.to_vec()),
        1 => prop::sample::select(special.to_vec()),
    ]
}

/// The value by exact sums of all values at once.
fn truth(aggregate: &Aggregate, values: &[f64]) -> Option<f64> {
    let states = observed(aggregate, Precision::Exact, &doubles(values));
    let column = finish(aggregate, &states).column;
    let column = column.as_primitive::<Float64Type>();
    column.is_valid(0).then(|| column.value(0))
}

/// The largest absolute error of a sum, or of a mean, whose digits are further apart than those of two DOUBLEs, or which
/// does not fit a DOUBLE and is stored with the digits of one. Variances have no absolute error.
fn slack(function: AggregateFunction, values: &[f64]) -> f64 {
    if matches!(function, AggregateFunction::Spread { .. }) {
        return f64::MIN_POSITIVE;
    }
    let finite = || values.iter().filter(|value| value.is_finite()).map(|value| value.abs());
    let (largest, weight) = (finite().fold(0.0, f64::max), finite().map(|value| value / 1e10).sum::<f64>());
    f64::MIN_POSITIVE + if weight > 1e298 { weight / 2f64.powi(15) } else { largest / 2f64.powi(90) }
}

/// Returns whether `a` is `b` but for rounding. An infinity equals only itself, unless rounding decides whether the value
/// fits a DOUBLE.
fn is_near(function: AggregateFunction, values: &[f64], a: f64, b: f64) -> bool {
    if a.to_bits() == b.to_bits() {
        return true;
    }
    match a.is_finite() && b.is_finite() {
        true => (a - b).abs() <= 1e-9 * b.abs() + slack(function, values),
        false => values.iter().all(|value| value.is_finite()) && is_at_the_end(function, values),
    }
}

/// Returns whether the value is next to the largest DOUBLE: a power of two smaller, it fits.
fn is_at_the_end(function: AggregateFunction, values: &[f64]) -> bool {
    let smaller = 2f64.powi(-60);
    // A variance grows with the square.
    let factor =
        if matches!(function, AggregateFunction::Spread { root: false, .. }) { smaller.sqrt() } else { smaller };
    let scaled: Vec<f64> = values.iter().map(|value| value * factor).collect();
    let Some(value) = truth(&aggregate(function, DataType::Double), &scaled) else { return false };
    let end = f64::MAX * smaller;
    (value.abs() - end).abs() <= 1e-9 * end + slack(function, values) * smaller
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sums_and_variances_of_doubles_of_any_size_agree(values in prop::collection::vec(double(), 0..20), at in 0usize..20) {
        let mut shuffled = values.clone();
        shuffled.reverse();
        for function in functions() {
            let aggregate = aggregate(function, DataType::Double);
            let expected = truth(&aggregate, &values);
            for values in [&values, &shuffled] {
                for (how, column) in in_every_way(&aggregate, &doubles(values), at) {
                    let column = column.as_primitive::<Float64Type>();
                    let found = column.is_valid(0).then(|| column.value(0));
                    let same = match (found, expected) {
                        (Some(a), Some(b)) => is_near(function, values, a, b),
                        (a, b) => a == b,
                    };
                    prop_assert!(same, "{function:?}, {how}: {found:?} is not {expected:?} for {values:?}");
                }
            }
        }
    }

    #[test]
    fn sums_of_decimals_and_integers_of_any_size_are_exact(
        values in prop::collection::vec(prop_oneof![Just(M), Just(-M), Just(1), -M..=M], 0..12),
        longs in prop::collection::vec(prop_oneof![Just(i64::MAX), Just(i64::MIN), any::<i64>()], 0..12),
        at in 0usize..12,
    ) {
        let longs: ArrayRef = Arc::new(Int64Array::from(longs));
        for function in functions() {
            for (data_type, column) in [(DECIMAL, decimals(&values)), (DataType::BigInt, Arc::clone(&longs))] {
                let aggregate = aggregate(function, data_type);
                let all = in_every_way(&aggregate, &column, at);
                for (how, found) in &all[1..] {
                    let expected = &all[0].1;
                    if let (Some(a), Some(b)) = (found.as_primitive_opt::<Float64Type>(), expected.as_primitive_opt::<Float64Type>()) {
                        let close = a.is_null(0) == b.is_null(0)
                            && (a.is_null(0) || (a.value(0) - b.value(0)).abs() <= 1e-9 * b.value(0).abs());
                        prop_assert!(close, "{:?} {}: {:?} is not {:?}", function, how, a, b);
                    } else {
                        prop_assert_eq!(found, expected, "{:?} {}", function, how);
                    }
                }
            }
        }
    }
}
