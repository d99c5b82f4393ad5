//! Tests every measure over every type: results do not depend on splits, order or precision while groups are small.
//!
//! States are also read back from their columns. The columns are full of NULLs, NaN, -0.0, empty texts and the ends of ranges.

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices};
use arrow::datatypes::{DataType as ArrowType, Field, Float64Type};
use proptest::prelude::*;

use super::*;
use crate::double::canonical_column;
use crate::partial::codec::{decode_states, encode};
use crate::partial::finish::{MeasureColumn, finish, finish_measures};
use crate::scalar::Scalar;
use crate::view::{Measure, OutputColumn, View};
use crate::window::Window;
use crate::window::WindowId;

const GROUPS: usize = 3;
const TYPES: [DataType; 8] = [
    DataType::Boolean,
    DataType::Int,
    DataType::BigInt,
    DataType::Double,
    DataType::Decimal { precision: 20, scale: 2 },
    DataType::String,
    DataType::Date,
    DataType::Timestamp,
];

#[derive(Debug, Clone)]
struct Event {
    time: i64,
    partition: i64,
    group: u32,
    value: Option<i64>,
    double: f64,
    is_wanted: Option<bool>,
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let value = prop::option::weighted(0.8, prop_oneof![8 => -4i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]);
    let double = prop_oneof![
        4 => -2.0..2.0f64,
        1 => prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 1e-300, 7.25e15]),
    ];
    let event = (-3i64..3, 0i64..2, 0..GROUPS as u32, value, double, any::<Option<bool>>());
    let event = event.prop_map(|(time, partition, group, value, double, is_wanted)| Event {
        time,
        partition,
        group,
        value,
        double,
        is_wanted,
    });
    prop::collection::vec(event, 0..most)
}

fn column(events: &[Event], data_type: DataType) -> ArrayRef {
    let values = || events.iter().map(|e| e.value);
    match data_type {
        DataType::Boolean => Arc::new(values().map(|v| v.map(|v| v % 2 == 0)).collect::<BooleanArray>()),
        DataType::Int => Arc::new(values().map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
        DataType::Date => Arc::new(values().map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
        DataType::Double => Arc::new(events.iter().map(|e| e.value.map(|_| e.double)).collect::<Float64Array>()),
        DataType::Decimal { precision, scale } => {
            let column: Decimal128Array = values().map(|v| v.map(i128::from)).collect();
            Arc::new(column.with_precision_and_scale(precision, scale).expect("fits"))
        }
        DataType::String | DataType::Json => {
            let text = |v: i64| if v == 0 { String::new() } else { format!("text number {v}") };
            Arc::new(values().map(|v| v.map(text)).collect::<StringViewArray>())
        }
        DataType::Timestamp => Arc::new(values().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        DataType::BigInt => Arc::new(values().collect::<Int64Array>()),
    }
}

fn aggregates() -> Vec<Aggregate> {
    let mut all = vec![Aggregate { function: AggregateFunction::Count, argument: None, filter: None, signed: false }];
    for data_type in TYPES {
        let numeric = data_type.is_numeric();
        let ranked = numeric || matches!(data_type, DataType::Date | DataType::Timestamp);
        let mut functions = vec![
            AggregateFunction::Count,
            AggregateFunction::Min,
            AggregateFunction::Max,
            AggregateFunction::CountDistinct,
            AggregateFunction::TopK { k: 3 },
            AggregateFunction::First,
            AggregateFunction::Last,
        ];
        if numeric {
            functions.extend([AggregateFunction::Sum, AggregateFunction::Avg]);
            functions.push(AggregateFunction::Spread { sample: true, root: true });
            functions.push(AggregateFunction::Spread { sample: false, root: false });
            functions.push(AggregateFunction::Percentile { fraction: 0.5, continuous: true, descending: false });
        }
        if ranked {
            let descending = data_type == DataType::BigInt;
            functions.push(AggregateFunction::Percentile { fraction: 0.95, continuous: false, descending });
        }
        let argument = Some(Scalar::column(0, data_type));
        for function in functions {
            use AggregateFunction::{Avg, Count, Sum};
            let of_events = Aggregate { function, argument: argument.clone(), filter: None, signed: false };
            let of_rows = Aggregate { signed: true, ..of_events.clone() };
            all.push(of_events);
            all.extend((!matches!(function, Count | Sum | Avg)).then_some(of_rows));
        }
    }
    all
}

fn type_of(aggregate: &Aggregate) -> DataType {
    aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type)
}

/// The events by time, then value, in one partition.
fn in_order(events: &[Event], data_type: DataType) -> Vec<Event> {
    let times: ArrayRef = Arc::new(events.iter().map(|event| event.time).collect::<Int64Array>());
    let columns = [times, canonical_column(column(events, data_type))]
        .map(|values| SortColumn { values, options: Some(SortOptions { descending: false, nulls_first: true }) });
    let order = lexsort_to_indices(&columns, None).expect("they are ordered");
    order.values().iter().map(|row| Event { partition: 0, ..events[*row as usize].clone() }).collect()
}

/// The states of these rows; `places` as one run of a partition or listed one by one.
fn observed(aggregate: &Aggregate, precision: Precision, events: &[Event], rows: &[u32]) -> States {
    let mut states = States::new(aggregate, precision);
    states.grow(GROUPS);
    let argument = aggregate.argument.as_ref().map(|a| column(events, a.data_type));
    let mask: BooleanArray = events.iter().map(|e| e.is_wanted).collect();
    let times: Vec<i64> = events.iter().map(|e| e.time).collect();
    let offsets: Vec<i64> = (0..events.len() as i64).map(|row| row / 2).collect();
    let partitions: Vec<i64> = events.iter().enumerate().map(|(row, e)| e.partition * 2 + row as i64 % 2).collect();
    let offsets = Offsets::Listed { partitions: &partitions, offsets: &offsets };
    let groups: Vec<u32> = rows.iter().map(|row| events[*row as usize].group).collect();
    let selection = Selection { groups: &groups, rows, mask: Some(&mask) };
    states.observe(selection, argument.as_ref(), &EventPositions { times: &times, offsets });
    states
}

pub(super) fn view(aggregates: Vec<Aggregate>) -> View {
    let measure =
        |(i, a): (usize, &Aggregate)| Measure { name: format!("m{i}"), expression: Scalar::column(i, a.data_type()) };
    let (measures, output) = (
        aggregates.iter().enumerate().map(measure).collect::<Vec<_>>(),
        (0..aggregates.len()).map(OutputColumn::Measure).collect(),
    );
    View {
        name: "v".parse().expect("a name"),
        stream: "s".parse().expect("a name"),
        joins: Vec::new(),
        window: Window::All,
        zone: crate::calendar::Zone::UTC,
        filter: None,
        dimensions: Vec::new(),
        measures,
        output,
        aggregates,
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

/// Equal values; of DOUBLE up to rounding.
fn assert_same(aggregate: &Aggregate, found: &MeasureColumn, expected: &MeasureColumn) {
    assert!(found.bounds.is_none() && expected.bounds.is_none(), "{aggregate:?} is exact");
    if aggregate.data_type() != DataType::Double {
        assert_eq!(&found.column, &expected.column, "{aggregate:?}");
        return;
    }
    let pairs = found.column.as_primitive::<Float64Type>().iter().zip(expected.column.as_primitive::<Float64Type>());
    for (found, expected) in pairs {
        let same = match (found, expected) {
            (Some(a), Some(b)) => a.is_nan() && b.is_nan() || a == b || (a - b).abs() <= 1e-9 * b.abs(),
            (a, b) => a.is_none() && b.is_none(),
        };
        assert!(same, "{aggregate:?}: {found:?} is not {expected:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn small_groups_do_not_depend_on_splits_order_or_precision(
        (events, side) in events(60).prop_flat_map(|events| {
            let sides = prop::collection::vec(any::<bool>(), events.len());
            (Just(events), sides)
        }),
        exact in any::<(bool, bool)>(),
    ) {
        let precision = |exact| if exact { Precision::Exact } else { Precision::Sketch };
        let all: Vec<u32> = (0..events.len() as u32).collect();
        let (left, right): (Vec<u32>, Vec<u32>) = all.iter().partition(|row| side[**row as usize]);
        for aggregate in aggregates() {
            let expected = finish(&aggregate, &observed(&aggregate, Precision::Sketch, &events, &all));
            let left = observed(&aggregate, precision(exact.0), &events, &left);
            let right = observed(&aggregate, precision(exact.1), &events, &right);
            let groups: Vec<u32> = (0..GROUPS as u32).collect();
            let mut one = left.clone();
            one.merge(&groups, &right, 0);
            assert_same(&aggregate, &finish(&aggregate, &one), &expected);
            let mut other = States::new(&aggregate, Precision::Sketch);
            other.grow(GROUPS);
            other.merge(&groups, &right, 0);
            other.merge(&groups, &left, 0);
            assert_same(&aggregate, &finish(&aggregate, &other), &expected);
            let mut shifted = States::new(&aggregate, Precision::Sketch);
            shifted.grow(GROUPS);
            // Row 1 of both into group 2, the others nowhere.
            shifted.merge(&[NO_GROUP, 2, NO_GROUP], &right, 0);
            shifted.merge(&[2], &left, 1);
            let at = |column: &ArrayRef, row| MeasureColumn { column: column.slice(row, 1), overflowed: None, bounds: None };
            let shifted = finish(&aggregate, &shifted);
            assert_same(&aggregate, &at(&shifted.column, 2), &at(&expected.column, 1));
            prop_assert_eq!(one.len(), GROUPS);
            prop_assert_eq!(one.bytes() > 0, true);
        }
    }

    #[test]
    fn retracted_values_leave_no_trace(events in events(60), is_retracted in prop::collection::vec(any::<bool>(), 60)) {
        let asserted = events.iter().map(|event| Event { is_wanted: Some(true), ..event.clone() });
        let mut changes: Vec<Event> = asserted.collect();
        let kept: Vec<Event> =
            changes.iter().zip(&is_retracted).filter(|(_, is_retracted)| !**is_retracted).map(|(e, _)| e.clone()).collect();
        let rows: Vec<u32> = (0..kept.len() as u32).collect();
        let retracted = changes.iter().zip(&is_retracted).filter(|(_, is_retracted)| **is_retracted);
        let mut retracted: Vec<Event> =
            retracted.map(|(event, _)| Event { is_wanted: Some(false), ..event.clone() }).collect();
        changes.append(&mut retracted);
        let all: Vec<u32> = (0..changes.len() as u32).rev().collect();
        for of_rows in aggregates().into_iter().filter(|aggregate| aggregate.signed) {
            let of_events = Aggregate { signed: false, ..of_rows.clone() };
            // Of equal times the value decides, which an earlier event with the lesser value shows.
            let kept = in_order(&kept, type_of(&of_rows));
            let expected = finish(&of_events, &observed(&of_events, Precision::Exact, &kept, &rows));
            let found = finish(&of_rows, &observed(&of_rows, Precision::Sketch, &changes, &all));
            assert_same(&of_rows, &found, &expected);
        }
    }

    #[test]
    fn states_round_trip_through_their_columns(events in events(60), is_exact in any::<bool>()) {
        let view = view(aggregates());
        let precision = if is_exact { Precision::Exact } else { Precision::Sketch };
        let all: Vec<u32> = (0..events.len() as u32).collect();
        let states: Vec<States> =
            view.aggregates.iter().map(|aggregate| observed(aggregate, precision, &events, &all)).collect();
        let table = encode(&view, &[WindowId::ALL_TIME; GROUPS], &[], Vec::new(), &states).expect("encodes");
        let stored = decode_states(&view, &table).expect("decodes");
        let measures = finish_measures(&view, &stored).expect("finishes");
        for (index, aggregate) in view.aggregates.iter().enumerate() {
            let expected = finish(aggregate, &states[index]);
            assert_same(aggregate, &finish(aggregate, &stored[index]), &expected);
            assert_same(aggregate, &measures[index], &expected);
        }
        let again = encode(&view, &[WindowId::ALL_TIME; GROUPS], &[], Vec::new(), &stored).expect("encodes");
        prop_assert_eq!(without_rounded(&again), without_rounded(&table));
        // DOUBLEs come back to the bit.
        for (field, (again, first)) in table.schema().fields().iter().zip(again.columns().iter().zip(table.columns())) {
            let Some(again) = again.as_primitive_opt::<Float64Type>() else { continue };
            for (again, first) in again.iter().zip(first.as_primitive::<Float64Type>()) {
                let same = match (again, first) {
                    (Some(again), Some(first)) => again.to_bits() == first.to_bits(),
                    (again, first) => again.is_none() && first.is_none(),
                };
                prop_assert!(same, "{field}: {again:?} is not {first:?}");
            }
        }
    }

    #[test]
    fn variance_agrees_with_two_passes(
        values in prop::collection::vec(-1.0..1.0f64, 1..200),
        mean in prop::sample::select(vec![0.0, 1.0, -1e9, 1e9, 1e12, 1e15]),
        split in 0usize..200,
        sample in any::<bool>(),
    ) {
        let values: Vec<f64> = values.iter().map(|v| v + mean).collect();
        let aggregate = Aggregate {
            function: AggregateFunction::Spread { sample, root: true },
            argument: Some(Scalar::column(0, DataType::Double)),
            filter: None,
            signed: false,
        };
        let column: ArrayRef = Arc::new(Float64Array::from(values.clone()));
        let n = values.len();
        let fold = |rows: std::ops::Range<usize>| {
            let mut states = States::new(&aggregate, Precision::Sketch);
            states.grow(1);
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            let selection = Selection { groups: &vec![0; rows.len()], rows: &rows, mask: None };
            let offsets = Offsets::Run { partition: 0, first: 0 };
            states.observe(selection, Some(&column), &EventPositions { times: &vec![0; n], offsets });
            states
        };
        let mut states = fold(split.min(n)..n);
        states.merge(&[0], &fold(0..split.min(n)), 0);
        let found = finish(&aggregate, &states).column;
        let found = found.as_primitive::<Float64Type>();
        if sample && n == 1 {
            prop_assert!(found.is_null(0));
            return Ok(());
        }
        // Deviations from the first value are exact; the mean of those is small.
        let deviations: Vec<f64> = values.iter().map(|v| v - values[0]).collect();
        let center = deviations.iter().sum::<f64>() / n as f64;
        let squares: f64 = deviations.iter().map(|d| (d - center) * (d - center)).sum();
        let expected = (squares / (n as f64 - f64::from(u8::from(sample)))).sqrt();
        prop_assert!((found.value(0) - expected).abs() <= 1e-9 * expected, "{} is not {expected}", found.value(0));
    }
}

/// Returns the columns whose bits do not depend on rounding or on the order of values: sketches of percentiles keep their
/// values in the order they came, and DOUBLEs are compared on their own.
fn without_rounded(table: &RecordBatch) -> RecordBatch {
    let schema = table.schema();
    let is_kept = |field: &Field| !field.name().ends_with("_kll") && *field.data_type() != ArrowType::Float64;
    let keep: Vec<usize> = (0..table.num_columns()).filter(|i| is_kept(schema.field(*i))).collect();
    table.project(&keep).expect("columns exist")
}

#[test]
fn large_groups_from_batch_are_exact_until_an_event_is_added() {
    let values: Vec<i64> = (0..30_000).map(|i| i * i % 7_919).collect();
    let events: Vec<Event> = values
        .iter()
        .map(|v| Event {
            time: 0,
            partition: 0,
            group: 1,
            value: Some(*v),
            double: *v as f64 / 8.0,
            is_wanted: Some(true),
        })
        .collect();
    let all: Vec<u32> = (0..events.len() as u32).collect();
    let sketched = |a: &Aggregate| a.is_estimated() && type_of(a) != DataType::Boolean;
    let view = view(aggregates().into_iter().filter(sketched).collect());
    let batch: Vec<States> = view.aggregates.iter().map(|a| observed(a, Precision::Exact, &events, &all)).collect();
    let speed: Vec<States> = view.aggregates.iter().map(|a| observed(a, Precision::Sketch, &events, &all)).collect();
    let table = encode(&view, &[WindowId::ALL_TIME; GROUPS], &[], Vec::new(), &batch).expect("encodes");
    let stored = decode_states(&view, &table).expect("decodes");
    let live = encode(&view, &[WindowId::ALL_TIME; GROUPS], &[], Vec::new(), &speed).expect("encodes");
    let relived = decode_states(&view, &live).expect("decodes");
    for (index, aggregate) in view.aggregates.iter().enumerate() {
        let exact = finish(aggregate, &batch[index]);
        assert!(exact.bounds.is_none());
        assert_same(aggregate, &finish(aggregate, &stored[index]), &exact);
        let mut gathered = States::new(aggregate, Precision::Sketch);
        gathered.grow(GROUPS);
        gathered.merge(&[0, 1, 2], &stored[index], 0);
        assert_same(aggregate, &finish(aggregate, &gathered), &exact);
        let mut moved = States::new(aggregate, Precision::Sketch);
        moved.grow(GROUPS);
        moved.merge(&[0, 1, 2], &batch[index], 0);
        assert_same(aggregate, &finish(aggregate, &moved), &exact);
        for states in [&speed[index], &relived[index]] {
            let bounds = finish(aggregate, states).bounds.expect("not exact");
            assert_eq!((bounds.low.is_null(0), bounds.low.is_null(1), bounds.high.is_null(1)), (true, false, false));
            assert_eq!(bounds.low.data_type(), exact.column.data_type());
            let mut both = gathered.clone();
            both.merge(&[0, 1, 2], states, 0);
            assert!(finish(aggregate, &both).bounds.is_some(), "{aggregate:?} has become a sketch");
        }
    }
}

#[test]
fn equal_values_have_variance_zero_and_non_finite_ones_nan() {
    let of = |values: Vec<f64>| {
        let aggregate = Aggregate {
            function: AggregateFunction::Spread { sample: false, root: false },
            argument: Some(Scalar::column(0, DataType::Double)),
            filter: None,
            signed: false,
        };
        let mut states = States::new(&aggregate, Precision::Sketch);
        states.grow(1);
        let rows: Vec<u32> = (0..values.len() as u32).collect();
        let selection = Selection { groups: &vec![0; rows.len()], rows: &rows, mask: None };
        let offsets = Offsets::Run { partition: 0, first: 0 };
        let times = vec![0; values.len()];
        let column: ArrayRef = Arc::new(Float64Array::from(values));
        states.observe(selection, Some(&column), &EventPositions { times: &times, offsets });
        finish(&aggregate, &states).column.as_primitive::<Float64Type>().value(0)
    };
    for value in [0.0, 0.1, 1.0 / 3.0, 1e9 + 0.1, -7e250, 1e-200, f64::MIN_POSITIVE] {
        for n in [1, 2, 3, 1_000, 100_000] {
            assert_eq!(of(vec![value; n]), 0.0, "{n} times {value}");
        }
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(of(vec![1.0, value, 2.0]).is_nan());
    }
    assert_eq!(of(vec![1e9, 1e9 + 2.0]), 1.0);
}

#[test]
fn the_first_value_is_that_of_the_earliest_time_then_offset_then_partition() {
    let argument = Some(Scalar::column(0, DataType::String));
    let column: ArrayRef = Arc::new(StringViewArray::from(vec![None, Some("b"), Some("c"), Some("d"), Some("e")]));
    let of = |function, places: &EventPositions<'_>| {
        let aggregate = Aggregate { function, argument: argument.clone(), filter: None, signed: false };
        let mut states = States::new(&aggregate, Precision::Sketch);
        states.grow(1);
        let rows = [0, 1, 2, 3, 4];
        states.observe(Selection { groups: &[0; 5], rows: &rows, mask: None }, Some(&column), places);
        finish(&aggregate, &states).column.as_string_view().value(0).to_owned()
    };
    let (first, last) = (AggregateFunction::First, AggregateFunction::Last);
    let run = EventPositions { times: &[0, 1, 1, 2, 2], offsets: Offsets::Run { partition: 0, first: 10 } };
    assert_eq!((of(first, &run).as_str(), of(last, &run).as_str()), ("b", "e"));
    let offsets = Offsets::Listed { partitions: &[0, 1, 0, 5, 4], offsets: &[0, 3, 3, 9, 9] };
    let listed = EventPositions { times: &[0, 1, 1, 2, 2], offsets };
    assert_eq!((of(first, &listed).as_str(), of(last, &listed).as_str()), ("c", "d"));
}
