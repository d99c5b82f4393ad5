//! Writes the states of one aggregate as columns `_state_<i>_<part>`, and reads them back.
//!
//! | aggregate | parts |
//! |---|---|
//! | COUNT | `count` |
//! | SUM, AVG | `sum`, `count`; of DOUBLE also `correction`; of DECIMAL with more than 19 digits also `wide` |
//! | MIN, MAX | `value` |
//! | variance, standard deviation | `count`, `sum` + `sum_low`, `squares` + `squares_low` (deviations from the mean) |
//! | FIRST_VALUE, LAST_VALUE | `time`, `offset`, `partition`, `value` |
//! | COUNT(DISTINCT) | `hll` (DataSketches HLL_8), `small` (the hashes of few values, 16 bytes each), `exact` |
//! | percentiles | `kll` (DataSketches KLL of doubles or longs), `exact` |
//! | TOP_K | `items` (DataSketches frequent items of longs or strings), `exact` |
//! | over a table, FIRST_VALUE, LAST_VALUE | `timed`: the event time in microseconds, 8 bytes, before each value of `counted` |
//! | over a table, all others but COUNT, SUM and AVG | `counted`: each value (8 or, of DECIMAL, 16 bytes, little endian; texts behind their length in 8 bytes; DOUBLE as the number that sorts like it), and its count in 8 bytes |
//!
//! `exact` is what the measure shows, NULL where it is not exact. The images are NULL where nothing was seen.
//!
//! A sum that does not fit its column can still be merged with others. `sum` of integers is NULL then, and `wide` has it as 32
//! bytes, little endian. `sum` of DOUBLE is infinite then, and `correction` the sum times 2^-1200; so are `sum` and `squares` of
//! variances, with the low part; squares below 1e-275 are 0 with the low part times 2^1200. Tables of earlier versions, which
//! have neither `wide` nor such low parts, are read as they are: sums that had overflowed stay NULL or infinite until their window is recomputed.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, is_not_null, is_null, nullif};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Field, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, i256,
};

use super::CodecError;
use crate::double::canonical;
use crate::partial::finish::finish;
use crate::partial::sketch::SketchError;
use crate::partial::sketch::distinct::Distinct;
use crate::partial::sketch::percentile::{Percentile, Point, Quantity, double};
use crate::partial::sketch::top_k::{Item, TopK};
use crate::partial::states::counted::{CountedValues, TimedValues};
use crate::partial::states::double_sums::{DoubleSum, DoubleSums};
use crate::partial::states::exact::Total;
use crate::partial::states::first_last::{EdgeValues, FirstLastStates};
use crate::partial::states::integer_sums::IntegerSums;
use crate::partial::states::sketches::{Groups, Sketches};
use crate::partial::states::variance::{Spreads, Stored};
use crate::partial::states::{DoubleDouble, States};
use crate::types::{DataType, timestamp_type};
use crate::view::{Aggregate, Precision, View};

/// The state columns of all aggregates, in order.
pub fn state_fields(view: &View) -> Vec<Field> {
    view.aggregates.iter().enumerate().flat_map(|(i, a)| fields_of(i, a)).collect()
}

/// The part of a sum that may be missing in tables of earlier versions.
pub(super) const WIDE: &str = "wide";

/// Returns whether fewer than 2^63 values of a type can have a sum of more than 38 digits.
fn has_wide_sums(argument: DataType) -> bool {
    matches!(argument, DataType::Decimal { precision, .. } if precision > 19)
}

/// The columns of sums of values of the type `argument` and their counts.
pub fn integer_sum_columns(argument: DataType, sums: &IntegerSums, counts: &[i64]) -> Vec<ArrayRef> {
    let limit = 10i128.pow(38);
    let narrow = |sum: Option<i256>| sum?.to_i128().filter(|sum| *sum > -limit && *sum < limit);
    let column: Decimal128Array = sums.iter().map(narrow).collect();
    let column = column.with_precision_and_scale(38, 0).expect("checked to have 38 digits at most");
    let mut columns: Vec<ArrayRef> = vec![Arc::new(column), Arc::new(Int64Array::from(counts.to_vec()))];
    if has_wide_sums(argument) {
        let wide = |sum: Option<i256>| sum.filter(|_| narrow(sum).is_none()).map(i256::to_le_bytes);
        columns.push(Arc::new(sums.iter().map(wide).collect::<BinaryArray>()));
    }
    columns
}

fn integer_sums(columns: &[ArrayRef]) -> Result<IntegerSums, SketchError> {
    let narrow = columns[0].as_primitive::<Decimal128Type>();
    let Some(wide) = columns.get(2) else { return Ok(narrow.iter().map(|sum| sum.map(i256::from_i128)).collect()) };
    let sum = |(narrow, wide): (Option<i128>, Option<&[u8]>)| match (narrow, wide) {
        (Some(sum), _) => Ok(Some(i256::from_i128(sum))),
        (None, None) => Ok(None),
        (None, Some(bytes)) => {
            let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| SketchError::SumLength(bytes.len()))?;
            Ok(Some(i256::from_le_bytes(bytes)))
        }
    };
    narrow.iter().zip(wide.as_binary::<i32>()).map(sum).collect()
}

/// A sum of DOUBLEs as it is stored: `sum`, `correction`.
fn stored_double(sum: DoubleSum<'_>) -> (f64, f64) {
    match sum {
        DoubleSum::Rounded(sum, correction) => (sum, correction),
        DoubleSum::Special(value) => (canonical(value), 0.0),
        DoubleSum::Wide(total) => total.stored(),
    }
}

fn double_sums(columns: &[ArrayRef]) -> DoubleSums {
    let (sums, corrections) = (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
    let mut all = DoubleSums::default();
    for (sum, correction) in sums.values().iter().zip(corrections.values()) {
        if sum.is_finite() {
            all.push(DoubleSum::Rounded(*sum, *correction));
        } else if sum.is_infinite() && *correction != 0.0 && correction.is_finite() {
            all.push(DoubleSum::Wide(&Total::from_stored(*sum, *correction)));
        } else {
            all.push(DoubleSum::Special(*sum));
        }
    }
    all
}

pub(super) fn fields_of(index: usize, aggregate: &Aggregate) -> Vec<Field> {
    let field = |part: &str, data_type: ArrowType, nullable: bool| {
        Field::new(format!("_state_{index}_{part}"), data_type, nullable)
    };
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    match States::new(aggregate, Precision::Sketch) {
        States::ExactDoubles { .. } | States::ExactSpread(_) => unreachable!("only batch sums without rounding"),
        States::Count(_) => vec![field("count", ArrowType::Int64, false)],
        States::Integers { .. } => {
            let mut fields =
                vec![field("sum", ArrowType::Decimal128(38, 0), true), field("count", ArrowType::Int64, false)];
            fields.extend(has_wide_sums(argument).then(|| field(WIDE, ArrowType::Binary, true)));
            fields
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
        States::FirstLast(_) => vec![
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
        States::Counted(_) => vec![field("counted", ArrowType::Binary, true)],
        States::Timed(_) => vec![field("timed", ArrowType::Binary, true)],
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
        States::Integers { sums, counts } => {
            let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
            integer_sum_columns(argument, sums, counts)
        }
        States::Doubles { sums, counts: n } => {
            let (sums, corrections): (Vec<f64>, Vec<f64>) = sums.iter().map(stored_double).unzip();
            vec![Arc::new(Float64Array::from(sums)), Arc::new(Float64Array::from(corrections)), counts(n)]
        }
        States::Ordered { .. } | States::Decimals { .. } | States::Floats { .. } | States::Texts { .. } => {
            vec![finish(aggregate, states).column]
        }
        States::Spread(groups) => {
            let stored: Vec<Stored> = groups.stored().collect();
            let part = |of: fn(&Stored) -> f64| -> ArrayRef {
                Arc::new(Float64Array::from(stored.iter().map(of).map(canonical).collect::<Vec<_>>()))
            };
            vec![
                Arc::new(Int64Array::from(stored.iter().map(|group| group.count).collect::<Vec<_>>())),
                part(|group| group.sum.high),
                part(|group| group.sum.low),
                part(|group| group.squares.high),
                part(|group| group.squares.low),
            ]
        }
        States::FirstLast(edges) => {
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
        States::Counted(values) => vec![Arc::new(values.images().into_iter().collect::<BinaryArray>())],
        States::Timed(values) => vec![Arc::new(values.images().into_iter().collect::<BinaryArray>())],
    })
}

pub(super) fn images<T>(groups: &[T], image: impl Fn(&T) -> Option<Vec<u8>>) -> ArrayRef {
    Arc::new(groups.iter().map(image).collect::<BinaryArray>())
}

/// The states of all aggregates from a batch that has their columns.
pub fn decode_states(view: &View, batch: &RecordBatch) -> Result<Vec<States>, CodecError> {
    let states = view.aggregates.iter().enumerate().map(|(i, aggregate)| {
        let mut columns = Vec::new();
        for field in fields_of(i, aggregate) {
            match batch.column_by_name(field.name()) {
                Some(column) => columns.push(cast(column, field.data_type())?),
                None if field.name().ends_with(WIDE) => {
                    columns.push(new_null_array(field.data_type(), batch.num_rows()));
                }
                None => return Err(CodecError::MissingColumn(field.name().clone())),
            }
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
        States::Integers { .. } => States::Integers { sums: integer_sums(columns)?, counts: longs(&columns[1]) },
        States::Doubles { .. } => States::Doubles { sums: double_sums(columns), counts: longs(&columns[2]) },
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
        States::Counted(_) => {
            let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
            States::Counted(CountedValues::from_images(argument, columns[0].as_binary::<i32>().iter())?)
        }
        States::Timed(_) => {
            let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
            States::Timed(TimedValues::from_images(argument, columns[0].as_binary::<i32>().iter())?)
        }
        States::Spread(_) => {
            let parts: Vec<Vec<f64>> = columns[1..].iter().map(doubles).collect();
            let mut groups = Spreads::default();
            for (row, count) in longs(&columns[0]).into_iter().enumerate() {
                let sum = DoubleDouble { high: parts[0][row], low: parts[1][row] };
                let squares = DoubleDouble { high: parts[2][row], low: parts[3][row] };
                groups.push_stored(Stored { count, sum, squares });
            }
            States::Spread(groups)
        }
        States::FirstLast(FirstLastStates { edge, .. }) => {
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
            States::FirstLast(FirstLastStates { edge, places: times.iter().enumerate().map(place).collect(), values })
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

pub(super) fn ordered_values(column: &ArrayRef) -> Vec<i64> {
    match column.data_type() {
        ArrowType::Boolean => column.as_boolean().iter().map(|b| i64::from(b == Some(true))).collect(),
        ArrowType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Date32 => column.as_primitive::<Date32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        _ => column.as_primitive::<Int64Type>().values().to_vec(),
    }
}
