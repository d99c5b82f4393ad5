//! How do the states of one aggregate look as columns? `_state_<i>_<part>`, and back.
//!
//! | aggregate | parts |
//! |---|---|
//! | COUNT | `count` |
//! | SUM, AVG | `sum`, `count`; of DOUBLE also `correction` |
//! | MIN, MAX | `value` |
//! | variance, standard deviation | `count`, `sum` + `sum_low`, `squares` + `squares_low` (deviations from the mean) |
//! | FIRST_VALUE, LAST_VALUE | `time`, `offset`, `partition`, `value` |
//! | COUNT(DISTINCT) | `hll` (DataSketches HLL_8), `small` (the hashes of few values, 16 bytes each), `exact` |
//! | percentiles | `kll` (DataSketches KLL of doubles or longs), `exact` |
//! | TOP_K | `items` (DataSketches frequent items of longs or strings), `exact` |
//!
//! `exact` is what the measure shows, NULL where it is not exact. The images are NULL where nothing was seen.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow::compute::{cast, is_not_null, is_null, nullif};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Field, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};

use super::CodecError;
use crate::partial::finish::finish;
use crate::partial::sketch::SketchError;
use crate::partial::sketch::distinct::Distinct;
use crate::partial::sketch::percentile::{Percentile, Point, Quantity, double};
use crate::partial::sketch::top_k::{Item, TopK};
use crate::partial::states::first_last::{EdgeValues, Edges};
use crate::partial::states::sketches::{Groups, Sketches};
use crate::partial::states::variance::Spread;
use crate::partial::states::{DoubleDouble, SUM_OVERFLOW, States};
use crate::types::{DataType, timestamp_type};
use crate::view::{Aggregate, Precision, View};

/// The state columns of all aggregates, in order.
pub fn state_fields(view: &View) -> Vec<Field> {
    view.aggregates.iter().enumerate().flat_map(|(i, a)| fields_of(i, a)).collect()
}

fn fields_of(index: usize, aggregate: &Aggregate) -> Vec<Field> {
    let field = |part: &str, data_type: ArrowType, nullable: bool| {
        Field::new(format!("_state_{index}_{part}"), data_type, nullable)
    };
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    match States::new(aggregate, Precision::Sketch) {
        States::ExactDoubles { .. } | States::ExactSpread(_) => unreachable!("only batch sums without rounding"),
        States::Count(_) => vec![field("count", ArrowType::Int64, false)],
        States::Integers { .. } => {
            vec![field("sum", ArrowType::Decimal128(38, 0), true), field("count", ArrowType::Int64, false)]
        }
        States::Doubles { .. } => vec![
            field("sum", ArrowType::Float64, false),
            field("correction", ArrowType::Float64, false),
            field("count", ArrowType::Int64, false),
        ],
        States::Ordered { .. } | States::Decimals { .. } | States::Floats { .. } | States::Texts { .. } => {
            vec![field("value", argument.arrow(), true)]
        }
        States::Spread(_) => {
            let mut fields = vec![field("count", ArrowType::Int64, false)];
            let parts = ["sum", "sum_low", "squares", "squares_low"];
            fields.extend(parts.map(|part| field(part, ArrowType::Float64, false)));
            fields
        }
        States::Edges(_) => vec![
            field("time", timestamp_type(), true),
            field("offset", ArrowType::Int64, true),
            field("partition", ArrowType::Int64, true),
            field("value", argument.arrow(), true),
        ],
        States::Sketches(sketches) => {
            let images: &[&str] = match sketches.groups {
                Groups::Distinct(_) => &["hll", "small"],
                Groups::Longs(..) | Groups::Doubles(..) => &["kll"],
                Groups::LongItems(..) | Groups::TextItems(..) => &["items"],
            };
            let mut fields: Vec<Field> = images.iter().map(|part| field(part, ArrowType::Binary, true)).collect();
            fields.push(field("exact", aggregate.data_type().arrow(), true));
            fields
        }
    }
}

/// The columns of one aggregate's states.
pub(super) fn state_columns(aggregate: &Aggregate, states: &States) -> Result<Vec<ArrayRef>, CodecError> {
    let counts = |counts: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(counts.to_vec())) };
    let rounded = states.rounded();
    let states = rounded.as_ref().unwrap_or(states);
    Ok(match states {
        States::ExactDoubles { .. } | States::ExactSpread(_) => unreachable!("sums are rounded first"),
        States::Count(values) => vec![counts(values)],
        States::Integers { sums, counts: n } => {
            let limit = 10i128.pow(38);
            let sum = |s: &i128| (*s > -limit && *s < limit).then_some(*s);
            let column: Decimal128Array = sums.iter().map(sum).collect();
            let typed = column.with_precision_and_scale(38, 0).expect("checked to have 38 digits at most");
            vec![Arc::new(typed), counts(n)]
        }
        States::Doubles { sums, corrections, counts: n } => vec![
            Arc::new(Float64Array::from(sums.clone())),
            Arc::new(Float64Array::from(corrections.clone())),
            counts(n),
        ],
        States::Ordered { .. } | States::Decimals { .. } | States::Floats { .. } | States::Texts { .. } => {
            vec![finish(aggregate, states).column]
        }
        States::Spread(groups) => {
            let part = |of: fn(&Spread) -> f64| -> ArrayRef {
                Arc::new(groups.iter().map(of).collect::<Vec<_>>().into_iter().collect::<Float64Array>())
            };
            vec![
                Arc::new(
                    groups.iter().map(|group| group.count).collect::<Vec<_>>().into_iter().collect::<Int64Array>(),
                ),
                part(|group| group.sum.high),
                part(|group| group.sum.low),
                part(|group| group.squares.high),
                part(|group| group.squares.low),
            ]
        }
        States::Edges(edges) => {
            let part = |of: fn(&(i64, i64, i64)) -> i64| edges.places.iter().map(move |place| place.as_ref().map(of));
            let times: TimestampMicrosecondArray = part(|place| place.0).collect();
            let offsets: Int64Array = part(|place| place.1).collect();
            let partitions: Int64Array = part(|place| place.2).collect();
            vec![
                Arc::new(times.with_timezone("UTC")),
                Arc::new(offsets),
                Arc::new(partitions),
                finish(aggregate, states).column,
            ]
        }
        States::Sketches(sketches) => {
            let mut columns = match &sketches.groups {
                Groups::Distinct(groups) => {
                    vec![images(groups, Distinct::image), images(groups, Distinct::hashes)]
                }
                Groups::Longs(_, groups) => vec![images(groups, Percentile::image)],
                Groups::Doubles(_, groups) => vec![images(groups, Percentile::image)],
                Groups::LongItems(_, groups) => vec![images(groups, TopK::image)],
                Groups::TextItems(_, groups) => vec![images(groups, TopK::image)],
            };
            let finished = finish(aggregate, states);
            let seen = is_null(&columns[0])?;
            let mut exact = nullif(&finished.column, &seen)?;
            if let Some(bounds) = finished.bounds {
                exact = nullif(&exact, &is_not_null(&bounds.low)?)?;
            }
            columns.push(exact);
            columns
        }
    })
}

fn images<T>(groups: &[T], image: impl Fn(&T) -> Option<Vec<u8>>) -> ArrayRef {
    Arc::new(groups.iter().map(image).collect::<BinaryArray>())
}

/// The states of all aggregates from a batch that has their columns.
pub fn decode_states(view: &View, batch: &RecordBatch) -> Result<Vec<States>, CodecError> {
    let states = view.aggregates.iter().enumerate().map(|(i, aggregate)| {
        let mut columns = Vec::new();
        for field in fields_of(i, aggregate) {
            let column =
                batch.column_by_name(field.name()).ok_or_else(|| CodecError::MissingColumn(field.name().clone()))?;
            columns.push(cast(column, field.data_type())?);
        }
        states_from(aggregate, &columns).map_err(|source| CodecError::Sketch { index: i, source })
    });
    states.collect()
}

fn states_from(aggregate: &Aggregate, columns: &[ArrayRef]) -> Result<States, SketchError> {
    let longs = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
    let doubles = |column: &ArrayRef| column.as_primitive::<Float64Type>().values().to_vec();
    let seen = |column: &ArrayRef| (0..column.len()).map(|row| column.is_valid(row)).collect::<Vec<_>>();
    Ok(match States::new(aggregate, Precision::Sketch) {
        States::ExactDoubles { .. } | States::ExactSpread(_) => unreachable!("only batch sums without rounding"),
        States::Count(_) => States::Count(longs(&columns[0])),
        States::Integers { .. } => {
            let sums = columns[0].as_primitive::<Decimal128Type>();
            let sums = sums.iter().map(|s| s.unwrap_or(SUM_OVERFLOW)).collect();
            States::Integers { sums, counts: longs(&columns[1]) }
        }
        States::Doubles { .. } => States::Doubles {
            sums: doubles(&columns[0]),
            corrections: doubles(&columns[1]),
            counts: longs(&columns[2]),
        },
        States::Ordered { extreme, .. } => {
            States::Ordered { extreme, values: ordered_values(&columns[0]), seen: seen(&columns[0]) }
        }
        States::Decimals { extreme, .. } => {
            let values = columns[0].as_primitive::<Decimal128Type>().values().to_vec();
            States::Decimals { extreme, values, seen: seen(&columns[0]) }
        }
        States::Floats { extreme, .. } => {
            States::Floats { extreme, values: doubles(&columns[0]), seen: seen(&columns[0]) }
        }
        States::Texts { extreme, .. } => {
            let values = columns[0].as_string_view().iter().map(|t| t.map(Box::from)).collect();
            States::Texts { extreme, values }
        }
        States::Spread(_) => {
            let parts: Vec<Vec<f64>> = columns[1..].iter().map(doubles).collect();
            let group = |(row, count): (usize, i64)| Spread {
                count,
                sum: DoubleDouble { high: parts[0][row], low: parts[1][row] },
                squares: DoubleDouble { high: parts[2][row], low: parts[3][row] },
            };
            States::Spread(longs(&columns[0]).into_iter().enumerate().map(group).collect())
        }
        States::Edges(Edges { edge, .. }) => {
            let times = columns[0].as_primitive::<TimestampMicrosecondType>();
            let (offsets, partitions) = (longs(&columns[1]), longs(&columns[2]));
            let place = |(row, time): (usize, Option<i64>)| time.map(|time| (time, offsets[row], partitions[row]));
            let values = match columns[3].data_type() {
                ArrowType::Float64 => EdgeValues::Doubles(doubles(&columns[3])),
                ArrowType::Decimal128(..) => {
                    EdgeValues::Decimals(columns[3].as_primitive::<Decimal128Type>().values().to_vec())
                }
                ArrowType::Utf8View => {
                    let texts =
                        columns[3].as_string_view().iter().map(|text| text.map(str::to_owned).unwrap_or_default());
                    EdgeValues::Texts(texts.collect())
                }
                _ => EdgeValues::Longs(ordered_values(&columns[3])),
            };
            States::Edges(Edges { edge, places: times.iter().enumerate().map(place).collect(), values })
        }
        States::Sketches(Sketches { precision, groups }) => {
            let exact = columns.last().expect("every sketch has its exact value beside it");
            let groups = match groups {
                Groups::Distinct(_) => {
                    let (images, hashes) = (columns[0].as_binary::<i32>(), columns[1].as_binary::<i32>());
                    let exact = exact.as_primitive::<Int64Type>();
                    let groups = images
                        .iter()
                        .zip(hashes)
                        .zip(exact)
                        .map(|((image, hashes), exact)| Distinct::from_stored(image, hashes, exact));
                    Groups::Distinct(groups.collect::<Result<_, _>>()?)
                }
                Groups::Longs(wanted, _) => {
                    let point = |row: usize| match exact.data_type() {
                        ArrowType::Float64 => Point::Between(exact.as_primitive::<Float64Type>().value(row)),
                        _ => Point::Value(ordered_value(exact, row)),
                    };
                    Groups::Longs(wanted, percentiles(&columns[0], exact, point)?)
                }
                Groups::Doubles(wanted, _) => {
                    let values = exact.as_primitive::<Float64Type>();
                    let point = |row: usize| match double(values.value(row)) {
                        Some(value) if !wanted.continuous => Point::Value(value),
                        _ => Point::Between(values.value(row)),
                    };
                    Groups::Doubles(wanted, percentiles(&columns[0], exact, point)?)
                }
                Groups::LongItems(listing, _) => Groups::LongItems(listing, counted(&columns[0], exact)?),
                Groups::TextItems(listing, _) => Groups::TextItems(listing, counted(&columns[0], exact)?),
            };
            States::Sketches(Sketches { precision, groups })
        }
    })
}

fn percentiles<T: Quantity>(
    images: &ArrayRef,
    exact: &ArrayRef,
    point: impl Fn(usize) -> Point<T>,
) -> Result<Vec<Percentile<T>>, SketchError> {
    let group = |(row, image)| Percentile::from_stored(image, exact.is_valid(row).then(|| point(row)));
    images.as_binary::<i32>().iter().enumerate().map(group).collect()
}

fn counted<T: Item>(images: &ArrayRef, exact: &ArrayRef) -> Result<Vec<TopK<T>>, SketchError> {
    let stored = images.as_binary::<i32>().iter().zip(exact.as_string_view());
    stored.map(|(image, exact)| TopK::from_stored(image, exact)).collect()
}

fn ordered_value(column: &ArrayRef, row: usize) -> i64 {
    ordered_values(&column.slice(row, 1))[0]
}

fn ordered_values(column: &ArrayRef) -> Vec<i64> {
    match column.data_type() {
        ArrowType::Boolean => column.as_boolean().iter().map(|b| i64::from(b == Some(true))).collect(),
        ArrowType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Date32 => column.as_primitive::<Date32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        _ => column.as_primitive::<Int64Type>().values().to_vec(),
    }
}
