use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::i256;

use super::*;
use crate::scalar::Scalar;

fn aggregate(function: AggregateFunction, data_type: DataType) -> Aggregate {
    Aggregate { function, argument: Some(Scalar::column(0, data_type)), filter: None, signed: false }
}

fn observed(aggregate: &Aggregate, values: &ArrayRef, rows: std::ops::Range<u32>) -> States {
    let mut states = States::new(aggregate, crate::view::Precision::Sketch);
    states.grow(1);
    let rows: Vec<u32> = rows.collect();
    states.observe(
        Selection { groups: &vec![0; rows.len()], rows: &rows, mask: None },
        Some(values),
        &EventPositions { times: &[], offsets: Offsets::Run { partition: 0, first: 0 } },
    );
    states
}

#[test]
fn a_sum_of_integers_may_leave_64_bits_and_return() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MAX), None, Some(i64::MIN)]));
    let States::Integers { sums, counts } =
        observed(&aggregate(AggregateFunction::Sum, DataType::BigInt), &values, 0..4)
    else {
        panic!("integer states")
    };
    assert_eq!((sums.get(0), counts[0]), (Some(i256::from_i128(i128::from(i64::MAX) - 1)), 3));
}

#[test]
fn compensation_keeps_what_plain_addition_loses() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![1e16, 1.0, -1e16, 1.0]));
    let sum = aggregate(AggregateFunction::Sum, DataType::Double);
    for split in 0..=4 {
        let mut left = observed(&sum, &values, 0..split);
        left.merge(&[0], &observed(&sum, &values, split..4), 0);
        let States::Doubles { sums, .. } = left else { panic!("float states") };
        assert_eq!(sums.get(0).over(1), 2.0, "split at {split}");
    }
}

#[test]
fn nan_is_greater_than_every_number() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![2.0, -f64::NAN, 1.0]));
    let States::Floats { values: max, .. } =
        observed(&aggregate(AggregateFunction::Max, DataType::Double), &values, 0..3)
    else {
        panic!("float states")
    };
    assert!(max[0].is_nan());
    let States::Floats { values: min, .. } =
        observed(&aggregate(AggregateFunction::Min, DataType::Double), &values, 0..3)
    else {
        panic!("float states")
    };
    assert_eq!(min[0], 1.0);
}

#[test]
fn texts_compare_by_bytes_and_an_empty_state_is_the_identity() {
    let values: ArrayRef = Arc::new(StringViewArray::from(vec![Some("b"), None, Some("é"), Some("Z")]));
    let max = aggregate(AggregateFunction::Max, DataType::String);
    let mut states = observed(&max, &values, 0..4);
    let mut nothing = States::new(&max, crate::view::Precision::Sketch);
    nothing.grow(1);
    states.merge(&[0], &nothing, 0);
    assert_eq!(states, States::Texts { extreme: Extreme::Max, values: vec![Some("é".into())] });
}

#[test]
fn masked_and_null_rows_are_excluded() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)]));
    let mask = BooleanArray::from(vec![Some(true), None, Some(true), Some(false)]);
    let mut states =
        States::new(&aggregate(AggregateFunction::Count, DataType::BigInt), crate::view::Precision::Sketch);
    states.grow(2);
    states.observe(
        Selection { groups: &[0, 0, 1, 1], rows: &[0, 1, 2, 3], mask: Some(&mask) },
        Some(&values),
        &EventPositions { times: &[], offsets: Offsets::Run { partition: 0, first: 0 } },
    );
    assert_eq!(states, States::Count(vec![1, 0]));
}
