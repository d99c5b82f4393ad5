//! Tests the intervals of measures that are composed of estimates, at their corners.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};

use super::*;
use crate::partial::states::{EventPositions, Offsets, Selection};
use crate::scalar::{ArithmeticOp, Node, Scalar};
use crate::view::{Measure, Precision};
use crate::window::Window;

/// COUNT(*), COUNT(DISTINCT x) and the median of x; and `measures` over them.
fn view(measures: Vec<Scalar>) -> View {
    let argument = Some(Scalar::column(0, DataType::BigInt));
    let aggregate = |function, argument| Aggregate { function, argument, filter: None, signed: false };
    let name = |(i, expression)| Measure { name: format!("m{i}"), expression };
    View {
        name: "v".parse().expect("a name"),
        stream: "s".parse().expect("a name"),
        joins: Vec::new(),
        window: Window::All,
        zone: crate::calendar::Zone::UTC,
        filter: None,
        dimensions: Vec::new(),
        aggregates: vec![
            aggregate(AggregateFunction::Count, None),
            aggregate(AggregateFunction::CountDistinct, argument.clone()),
            aggregate(AggregateFunction::Percentile { fraction: 0.5, continuous: true, descending: false }, argument),
        ],
        measures: measures.into_iter().enumerate().map(name).collect(),
        output: Vec::new(),
        having: None,
        layers: Default::default(),
        schedule: None,
        checkpoint_schedule: None,
        max_drift: None,
        reads: Default::default(),
        versions_kept: crate::limits::VERSIONS_KEPT,
        engine: None,
        connection: None,
        retention: None,
        schedule_zone: crate::calendar::Zone::UTC,
        sql: String::new(),
    }
}

/// Group 0 has seen 5 different values, group 1 ten thousand, group 2 nothing.
fn states(view: &View) -> Vec<States> {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_005));
    let rows: Vec<u32> = (0..10_005).collect();
    let groups: Vec<u32> = rows.iter().map(|row| u32::from(*row >= 5)).collect();
    let state = |aggregate: &Aggregate| {
        let mut states = States::new(aggregate, Precision::Sketch);
        states.grow(3);
        let places = EventPositions { times: &vec![0; rows.len()], offsets: Offsets::Run { partition: 0, first: 0 } };
        for _ in 0..2 {
            let selection = Selection { groups: &groups, rows: &rows, mask: None };
            states.observe(selection, aggregate.argument.as_ref().map(|_| &values), &places);
        }
        states
    };
    view.aggregates.iter().map(state).collect()
}

fn arithmetic(op: ArithmeticOp, left: Scalar, right: Scalar, data_type: DataType) -> Scalar {
    Scalar { node: Node::Arithmetic(op, Box::new(left), Box::new(right)), data_type }
}

fn double(scalar: Scalar) -> Scalar {
    Scalar { node: Node::Cast(Box::new(scalar)), data_type: DataType::Double }
}

#[test]
fn a_plain_measure_has_the_interval_of_its_aggregate() {
    let view = view(vec![Scalar::column(1, DataType::BigInt), Scalar::column(0, DataType::BigInt)]);
    let measures = finish_measures(&view, &states(&view)).expect("finishes");
    let bounds = measures[0].bounds.as_ref().expect("not exact");
    let [value, low, high] = [&measures[0].column, &bounds.low, &bounds.high].map(|c| c.as_primitive::<Int64Type>());
    assert_eq!((value.value(0), low.is_null(0), high.is_null(0)), (5, true, true));
    assert!(low.value(1) <= value.value(1) && value.value(1) <= high.value(1) && low.value(1) < high.value(1));
    assert_eq!((value.value(2), low.is_null(2)), (0, true));
    assert!(measures[1].bounds.is_none());
}

#[test]
fn a_composed_measure_lies_between_the_corners() {
    let (count, distinct, median) =
        (Scalar::column(0, DataType::BigInt), Scalar::column(1, DataType::BigInt), Scalar::column(2, DataType::Double));
    let share = arithmetic(ArithmeticOp::Divide, double(count.clone()), double(distinct.clone()), DataType::Double);
    let doubled = arithmetic(ArithmeticOp::Multiply, count.clone(), count, DataType::BigInt);
    let both = arithmetic(ArithmeticOp::Subtract, double(distinct), median, DataType::Double);
    let view = view(vec![share, doubled, both]);
    let states = states(&view);
    let measures = finish_measures(&view, &states).expect("finishes");
    assert!(measures[1].bounds.is_none(), "nothing it reads is approximate");

    let finished = finish(&view.aggregates[1], &states[1]).bounds.expect("not exact");
    let long = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(1) as f64;
    let at = |column: &ArrayRef, row: usize| {
        let column = column.as_primitive::<Float64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let bounds = measures[0].bounds.as_ref().expect("not exact");
    // The count over the greatest number is the least share.
    assert_eq!(at(&bounds.low, 1), Some(20_000.0 / long(&finished.high)));
    assert_eq!(at(&bounds.high, 1), Some(20_000.0 / long(&finished.low)));
    assert_eq!((at(&bounds.low, 0), at(&bounds.high, 0)), (None, None), "an exact row");
    assert_eq!(at(&bounds.low, 2), None, "nothing by nothing is no number");

    let wide =
        |index: usize| finish_within(&view.aggregates[index], &states[index], Width::Three).bounds.expect("not exact");
    let (distinct, median) = (wide(1), wide(2));
    let bounds = measures[2].bounds.as_ref().expect("not exact");
    assert_eq!(at(&bounds.low, 1), Some(long(&distinct.low) - at(&median.high, 1).expect("a median")));
    assert_eq!(at(&bounds.high, 1), Some(long(&distinct.high) - at(&median.low, 1).expect("a median")));
    assert_eq!(at(&bounds.low, 0), None);
}

#[test]
fn a_corner_that_is_nan_gives_no_interval() {
    // The reciprocal of the difference to a value inside the interval.
    let distinct = double(Scalar::column(1, DataType::BigInt));
    let view = view(vec![distinct.clone()]);
    let low = finish(&view.aggregates[1], &states(&view)[1]).bounds.expect("not exact").low;
    let low = low.as_primitive::<Int64Type>().value(1) as f64;
    let constant =
        |value| Scalar { node: Node::Literal(crate::scalar::Literal::Double(value)), data_type: DataType::Double };
    let difference = arithmetic(ArithmeticOp::Subtract, distinct, constant(low), DataType::Double);
    let view = View {
        measures: vec![Measure {
            name: "m".to_owned(),
            expression: arithmetic(ArithmeticOp::Divide, constant(1.0), difference, DataType::Double),
        }],
        ..view
    };
    let measures = finish_measures(&view, &states(&view)).expect("finishes");
    assert!(measures[0].bounds.as_ref().is_none_or(|bounds| bounds.low.is_null(1)));
}
