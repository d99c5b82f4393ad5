//! Finishes aggregates over rows that can be retracted, from the values that the rows have.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringViewArray};

use super::{MeasureColumn, decimal_column, doubles_column, finish, longs_column, ordered_column, percentiles};
use crate::decimal::write_decimal;
use crate::partial::sketch::listing::counted_double;
use crate::partial::sketch::percentile::{Estimate, Quantity, Wanted, double, point_of_counts};
use crate::partial::sketch::top_k::{Item, TopK};
use crate::partial::states::counted::{Countable, CountedValues, Counts, TimedValues, double_of};
use crate::partial::states::sketches::{Groups, Sketches};
use crate::partial::states::{EventPositions, Offsets, Selection, States};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, Precision};

/// Finishes the aggregate as if a stream had an event per row.
pub(super) fn finish_counted(aggregate: &Aggregate, counted: &CountedValues) -> MeasureColumn {
    let of_events = Aggregate { filter: None, signed: false, ..aggregate.clone() };
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    if let AggregateFunction::Percentile { fraction, continuous, descending } = aggregate.function {
        return percentile(argument, counted, Wanted { fraction, continuous, descending });
    }
    let mut states = States::new(&of_events, Precision::Exact);
    states.grow(counted.len());
    match &mut states {
        States::Sketches(Sketches { groups: Groups::LongItems(_, tops), .. }) => {
            let CountedValues::Longs(groups) = counted else { other_type(aggregate, counted) };
            let is_double = argument == DataType::Double;
            fill(tops, groups, |value| if is_double { counted_double(double_of(*value)) } else { *value });
        }
        States::Sketches(Sketches { groups: Groups::TextItems(_, tops), .. }) => match counted {
            CountedValues::Texts(groups) => fill(tops, groups, |text| text.to_string()),
            CountedValues::Decimals(groups) => fill(tops, groups, |value| {
                let mut text = String::new();
                write_decimal(*value, scale_of(argument), &mut text);
                text
            }),
            CountedValues::Longs(_) => other_type(aggregate, counted),
        },
        States::ExactSpread(spreads) => spreads.iter_mut().enumerate().for_each(|(group, spread)| match counted {
            CountedValues::Longs(groups) if argument == DataType::Double => {
                groups[group].present().for_each(|(value, count)| spread.insert_doubles(double_of(*value), count));
            }
            CountedValues::Longs(groups) => {
                groups[group].present().for_each(|(v, count)| spread.insert_integers(i128::from(*v), count));
            }
            CountedValues::Decimals(groups) => {
                groups[group].present().for_each(|(value, count)| spread.insert_integers(*value, count));
            }
            CountedValues::Texts(_) => other_type(aggregate, counted),
        }),
        // One of each value is enough.
        states => {
            let (values, groups) = distinct(argument, counted);
            let rows: Vec<u32> = (0..groups.len() as u32).collect();
            let times = vec![0; rows.len()];
            let offsets = Offsets::Run { partition: 0, first: 0 };
            let selection = Selection { groups: &groups, rows: &rows, mask: None };
            states.observe(selection, Some(&values), &EventPositions { times: &times, offsets });
        }
    }
    finish(&of_events, &states)
}

/// The value with the first or the last time that is present in each group; of equal times the least is the first, and the greatest
/// the last one.
pub(super) fn edge_column(function: AggregateFunction, argument: DataType, timed: &TimedValues) -> ArrayRef {
    fn edges<T: Countable>(groups: &[Counts<(i64, T)>], is_first: bool) -> Vec<Option<T>> {
        let edge = |counts: &Counts<(i64, T)>| {
            let mut present = counts.present();
            let found = if is_first { present.next() } else { present.next_back() };
            found.map(|((_, value), _)| value.clone())
        };
        groups.iter().map(edge).collect()
    }
    let is_first = function == AggregateFunction::First;
    match timed {
        TimedValues::Longs(groups) if argument == DataType::Double => {
            Arc::new(edges(groups, is_first).into_iter().map(|value| value.map(double_of)).collect::<Float64Array>())
        }
        TimedValues::Longs(groups) => longs_column(argument, &edges(groups, is_first)),
        TimedValues::Decimals(groups) => {
            let values = edges(groups, is_first);
            let seen: Vec<bool> = values.iter().map(Option::is_some).collect();
            let values: Vec<i128> = values.into_iter().map(Option::unwrap_or_default).collect();
            decimal_column(argument, &values, &seen)
        }
        TimedValues::Texts(groups) => Arc::new(edges(groups, is_first).into_iter().collect::<StringViewArray>()),
    }
}

fn other_type(aggregate: &Aggregate, counted: &CountedValues) -> ! {
    unreachable!("values of another type than {aggregate:?}: {counted:?}")
}

fn scale_of(data_type: DataType) -> i8 {
    if let DataType::Decimal { scale, .. } = data_type { scale } else { 0 }
}

fn fill<T: Countable, I: Item>(tops: &mut [TopK<I>], groups: &[Counts<T>], item: impl Fn(&T) -> I) {
    for (top, counts) in tops.iter_mut().zip(groups) {
        counts.present().for_each(|(value, count)| top.insert(&item(value), count, Precision::Exact));
    }
}

/// The values of all groups, each once, and the group of each.
fn distinct(argument: DataType, counted: &CountedValues) -> (ArrayRef, Vec<u32>) {
    fn listed<T: Countable>(groups: &[Counts<T>]) -> (Vec<T>, Vec<u32>) {
        let of_group = |(group, counts): (usize, &Counts<T>)| {
            let values: Vec<(T, u32)> =
                counts.present().map(|(value, _)| (value.clone(), u32::try_from(group).expect("a group"))).collect();
            values
        };
        groups.iter().enumerate().flat_map(of_group).unzip()
    }
    match counted {
        CountedValues::Longs(groups) => {
            let (values, of) = listed(groups);
            let column: ArrayRef = match argument {
                DataType::Double => Arc::new(Float64Array::from_iter_values(values.into_iter().map(double_of))),
                _ => ordered_column(argument, &values, &vec![true; values.len()]),
            };
            (column, of)
        }
        CountedValues::Decimals(groups) => {
            let (values, of) = listed(groups);
            (decimal_column(argument, &values, &vec![true; values.len()]), of)
        }
        CountedValues::Texts(groups) => {
            let (values, of) = listed(groups);
            (Arc::new(values.iter().map(Some).collect::<StringViewArray>()), of)
        }
    }
}

fn percentile(argument: DataType, counted: &CountedValues, wanted: Wanted) -> MeasureColumn {
    fn found<T: Countable, Q: Quantity>(
        groups: &[Counts<T>],
        wanted: Wanted,
        quantity: impl Fn(&T) -> Option<Q>,
    ) -> Vec<Option<Estimate<Q>>> {
        let of_group = |counts: &Counts<T>| {
            let present = counts.present().filter_map(|(value, count)| Some((quantity(value)?, count)));
            let point = point_of_counts(&present.collect::<Vec<_>>(), wanted)?;
            Some(Estimate { point, range: None })
        };
        groups.iter().map(of_group).collect()
    }
    match counted {
        CountedValues::Longs(groups) if argument == DataType::Double => {
            percentiles(&found(groups, wanted, |value| double(double_of(*value))), wanted, doubles_column)
        }
        CountedValues::Longs(groups) => {
            percentiles(&found(groups, wanted, |value| Some(*value)), wanted, |values| longs_column(argument, values))
        }
        CountedValues::Decimals(groups) => {
            let unit = 10f64.powi(i32::from(scale_of(argument)));
            percentiles(&found(groups, wanted, |value| double(*value as f64 / unit)), wanted, doubles_column)
        }
        CountedValues::Texts(_) => unreachable!("the parser refuses percentiles of {argument}"),
    }
}
