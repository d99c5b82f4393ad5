//! Accumulates one aggregate: its states for many groups, one vector per part of a state.
//!
//! The states of a group form a commutative monoid: `merge` is associative and commutative, and the state that `grow`
//! adds is its identity. `observe` is a homomorphism from sets of events: observe(A ∪ B) = merge(observe(A),
//! observe(B)) for disjoint A and B. So a figure does not depend on the order of events, on how they were split, or on
//! the measures beside it. It holds exactly for integers, decimals, extremes, first and last values and in batch; to
//! the digits of two DOUBLEs for sums and variances of the speed layer, whatever the range of the values; within the
//! stated bounds for sketches. Tested in `states/laws.rs` and `states/extremes.rs`.

mod arithmetic;
pub mod counted;
pub mod double_sums;
pub mod exact;
pub mod exact_variance;
pub mod first_last;
pub mod integer_sums;
mod selection;
pub mod sketches;
pub mod variance;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Decimal128Type, Float64Type, Int32Type, Int64Type};

pub use self::arithmetic::DoubleDouble;
use self::counted::{CountedValues, TimedValues};
use self::double_sums::{DoubleSum, DoubleSums};
use self::exact::Total;
use self::exact_variance::ExactSpread;
use self::first_last::{Edge, FirstLastStates};
use self::integer_sums::IntegerSums;
pub use self::selection::{EventPositions, Offsets, Selection};
use self::sketches::Sketches;
use self::variance::Spreads;
use crate::double::canonical;
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, Precision};

/// Marks a row that belongs to no group.
pub const NO_GROUP: u32 = u32::MAX;

/// The end of the order that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    Min,
    Max,
}

/// The states of one aggregate, one per group.
#[derive(Debug, Clone, PartialEq)]
pub enum States {
    Count(Vec<i64>),
    /// SUM and AVG of INT, BIGINT and DECIMAL (unscaled).
    Integers {
        sums: IntegerSums,
        counts: Vec<i64>,
    },
    /// SUM and AVG of DOUBLE.
    Doubles {
        sums: DoubleSums,
        counts: Vec<i64>,
    },
    /// The same in batch, rounded only when finished.
    ExactDoubles {
        sums: Vec<Total>,
        counts: Vec<i64>,
    },
    /// MIN and MAX of BOOLEAN, INT, BIGINT, DATE, TIMESTAMP.
    Ordered {
        extreme: Extreme,
        values: Vec<i64>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of DECIMAL (unscaled).
    Decimals {
        extreme: Extreme,
        values: Vec<i128>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of DOUBLE; NaN is the greatest.
    Floats {
        extreme: Extreme,
        values: Vec<f64>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of STRING, by bytes.
    Texts {
        extreme: Extreme,
        values: Vec<Option<Box<str>>>,
    },
    /// Variance and standard deviation.
    Spread(Spreads),
    /// The same in batch, rounded only when finished.
    ExactSpread(Vec<ExactSpread>),
    /// FIRST_VALUE and LAST_VALUE.
    FirstLast(FirstLastStates),
    /// COUNT(DISTINCT), percentiles and TOP_K.
    Sketches(Sketches),
    /// Everything that is not a sum, over rows that can be retracted.
    Counted(CountedValues),
    /// FIRST_VALUE and LAST_VALUE over such rows.
    Timed(TimedValues),
}

impl States {
    /// Returns states without groups for `aggregate`, which keep as much of the values as `precision` says.
    pub fn new(aggregate: &Aggregate, precision: Precision) -> States {
        let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
        if aggregate.signed {
            return match aggregate.function {
                AggregateFunction::First | AggregateFunction::Last => States::Timed(TimedValues::new(argument)),
                _ => States::Counted(CountedValues::new(argument)),
            };
        }
        let extreme = match aggregate.function {
            AggregateFunction::Count => return States::Count(Vec::new()),
            AggregateFunction::Sum | AggregateFunction::Avg if argument == DataType::Double => {
                if precision == Precision::Exact {
                    return States::ExactDoubles { sums: Vec::new(), counts: Vec::new() };
                }
                return States::Doubles { sums: DoubleSums::default(), counts: Vec::new() };
            }
            AggregateFunction::Sum | AggregateFunction::Avg => {
                return States::Integers { sums: IntegerSums::default(), counts: Vec::new() };
            }
            AggregateFunction::Min => Extreme::Min,
            AggregateFunction::Max => Extreme::Max,
            AggregateFunction::Spread { .. } => {
                return match precision {
                    Precision::Exact => States::ExactSpread(Vec::new()),
                    Precision::Sketch => States::Spread(Spreads::default()),
                };
            }
            AggregateFunction::First => return States::FirstLast(FirstLastStates::new(Edge::First, argument)),
            AggregateFunction::Last => return States::FirstLast(FirstLastStates::new(Edge::Last, argument)),
            AggregateFunction::CountDistinct
            | AggregateFunction::Percentile { .. }
            | AggregateFunction::TopK { .. } => {
                return States::Sketches(Sketches::new(aggregate.function, argument, precision));
            }
        };
        match argument {
            DataType::Double => States::Floats { extreme, values: Vec::new(), seen: Vec::new() },
            DataType::Decimal { .. } => States::Decimals { extreme, values: Vec::new(), seen: Vec::new() },
            DataType::String => States::Texts { extreme, values: Vec::new() },
            _ => States::Ordered { extreme, values: Vec::new(), seen: Vec::new() },
        }
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        match self {
            States::Count(counts) | States::Integers { counts, .. } | States::Doubles { counts, .. } => counts.len(),
            States::ExactDoubles { counts, .. } => counts.len(),
            States::Ordered { seen, .. } | States::Decimals { seen, .. } | States::Floats { seen, .. } => seen.len(),
            States::Texts { values, .. } => values.len(),
            States::Spread(groups) => groups.len(),
            States::ExactSpread(groups) => groups.len(),
            States::FirstLast(edges) => edges.places.len(),
            States::Sketches(sketches) => sketches.len(),
            States::Counted(values) => values.len(),
            States::Timed(values) => values.len(),
        }
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `more` groups without values.
    pub fn grow(&mut self, more: usize) {
        let len = self.len() + more;
        match self {
            States::Count(counts) => counts.resize(len, 0),
            States::Integers { sums, counts } => {
                sums.resize(len);
                counts.resize(len, 0);
            }
            States::Doubles { sums, counts } => {
                sums.resize(len);
                counts.resize(len, 0);
            }
            States::ExactDoubles { sums, counts } => {
                sums.resize_with(len, Total::default);
                counts.resize(len, 0);
            }
            States::Ordered { values, seen, .. } => {
                values.resize(len, 0);
                seen.resize(len, false);
            }
            States::Decimals { values, seen, .. } => {
                values.resize(len, 0);
                seen.resize(len, false);
            }
            States::Floats { values, seen, .. } => {
                values.resize(len, 0.0);
                seen.resize(len, false);
            }
            States::Texts { values, .. } => values.resize(len, None),
            States::Spread(groups) => groups.resize(len),
            States::ExactSpread(groups) => groups.resize_with(len, ExactSpread::default),
            States::FirstLast(edges) => edges.resize(len),
            States::Sketches(sketches) => sketches.resize(len),
            States::Counted(values) => values.resize(len),
            States::Timed(values) => values.resize(len),
        }
    }

    /// Adds values: row `rows[i]` of `argument` to group `groups[i]`. `COUNT(*)` does not have an argument.
    /// The argument has the Arrow type of the aggregate's argument; `places` has the event time and log position of each row.
    pub fn observe(&mut self, selection: Selection<'_>, argument: Option<&ArrayRef>, places: &EventPositions<'_>) {
        let Some(argument) = argument else {
            if let States::Count(counts) = self {
                selection.for_each(|group, _| counts[group] += 1);
            }
            return;
        };
        match self {
            States::Count(counts) => match argument.logical_nulls() {
                None => selection.for_each(|group, _| counts[group] += 1),
                Some(nulls) => selection.for_each(|group, row| counts[group] += i64::from(nulls.is_valid(row))),
            },
            States::Integers { sums, counts } => {
                let add = |group: usize, value: i128| {
                    sums.add(group, value);
                    counts[group] += 1;
                };
                observe_integers(selection, argument, add);
            }
            States::Doubles { sums, counts } => {
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    sums.add(group, value);
                    counts[group] += 1;
                });
            }
            States::ExactDoubles { sums, counts } => {
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    sums[group].add(value);
                    counts[group] += 1;
                });
            }
            States::Ordered { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_ordered(argument, |group, value| {
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.cmp(&old)));
                });
            }
            States::Decimals { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_value::<Decimal128Type>(argument.as_primitive(), |group, value| {
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.cmp(&old)));
                });
            }
            States::Floats { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    let value = canonical(value);
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.total_cmp(&old)));
                });
            }
            States::Texts { extreme, values } => {
                let texts = argument.as_string_view();
                selection.for_each(|group, row| {
                    if texts.is_valid(row) {
                        keep_text(&mut values[group], texts.value(row), *extreme);
                    }
                });
            }
            States::Spread(groups) => groups.observe(selection, argument),
            States::ExactSpread(groups) => variance::observe_exact(groups, selection, argument),
            States::FirstLast(edges) => edges.observe(selection, argument, places),
            States::Sketches(sketches) => sketches.observe(selection, argument),
            States::Counted(values) => values.observe(selection, argument),
            States::Timed(values) => values.observe(selection, argument, places.times),
        }
    }

    /// Merges row `first + i` of `other` into group `groups[i]` (I4); [`NO_GROUP`] skips a row. Both are of one aggregate, but
    /// may differ in precision: the result has that of `self`.
    pub fn merge(&mut self, groups: &[u32], other: &States, first: usize) {
        // I4: merging is associative and commutative; `laws.rs` checks every state.
        let rows = first..first + groups.len();
        match (self, other) {
            (States::Count(counts), States::Count(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, count| counts[group] += count);
            }
            (States::Integers { sums, counts }, States::Integers { sums: s, counts: c }) => {
                sums.merge(groups, s, first);
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::Doubles { sums, counts }, States::Doubles { sums: s, counts: c }) => {
                sums.merge(groups, s, first);
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::ExactDoubles { sums, counts }, States::ExactDoubles { sums: s, counts: c }) => {
                for_each_group(groups, &s[rows.clone()], |group, sum| sums[group].merge(sum));
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::ExactDoubles { sums, counts }, States::Doubles { sums: s, counts: c }) => {
                for (row, group) in rows.clone().zip(groups).filter(|(_, group)| **group != NO_GROUP) {
                    double_sums::add_to(&mut sums[*group as usize], s.get(row));
                }
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::ExactSpread(ours), States::ExactSpread(theirs)) => {
                exact_variance::merge_spread(ours, groups, &theirs[rows])
            }
            (States::ExactSpread(ours), States::Spread(theirs)) => {
                for (row, group) in rows.zip(groups).filter(|(_, group)| **group != NO_GROUP) {
                    theirs.add_to(row, &mut ours[*group as usize]);
                }
            }
            (ours @ (States::Doubles { .. } | States::Spread(_)), theirs) if theirs.rounded().is_some() => {
                ours.merge(groups, &theirs.rounded().expect("seen to be there"), first);
            }
            (States::Ordered { extreme, values, seen }, States::Ordered { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, i64::cmp);
            }
            (States::Decimals { extreme, values, seen }, States::Decimals { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, i128::cmp);
            }
            (States::Floats { extreme, values, seen }, States::Floats { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, f64::total_cmp);
            }
            (States::Texts { extreme, values }, States::Texts { values: v, .. }) => {
                for_each_group(groups, &v[rows], |group, text| {
                    if let Some(text) = text {
                        keep_text(&mut values[group], text, *extreme);
                    }
                });
            }
            (States::Spread(ours), States::Spread(theirs)) => ours.merge(groups, theirs, first),
            (States::FirstLast(ours), States::FirstLast(theirs)) => ours.merge(groups, theirs, first),
            (States::Sketches(ours), States::Sketches(theirs)) => ours.merge(groups, theirs, rows),
            (States::Counted(ours), States::Counted(theirs)) => ours.merge(groups, theirs, rows),
            (States::Timed(ours), States::Timed(theirs)) => ours.merge(groups, theirs, rows),
            (this, other) => unreachable!("states of different aggregates: {this:?} and {other:?}"),
        }
    }

    /// Returns whether the sum of integers in a row is 0, as it is without values. False for states that are no such sums.
    pub fn is_zero(&self, row: usize) -> bool {
        matches!(self, States::Integers { sums, .. } if sums.is_zero(row))
    }

    /// Returns the same sums as they are stored, if they are not rounded yet.
    pub fn rounded(&self) -> Option<States> {
        match self {
            States::ExactDoubles { sums, counts } => {
                let mut rounded = DoubleSums::default();
                for total in sums {
                    rounded.push(match total.nearest_two() {
                        (sum, correction) if sum.is_finite() => DoubleSum::Rounded(sum, correction),
                        (special, _) if total.is_special() => DoubleSum::Special(special),
                        _ => DoubleSum::Wide(total),
                    });
                }
                Some(States::Doubles { sums: rounded, counts: counts.clone() })
            }
            States::ExactSpread(groups) => {
                let mut rounded = Spreads::default();
                groups.iter().for_each(|group| rounded.push_exact(group));
                Some(States::Spread(rounded))
            }
            _ => None,
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            States::Count(counts) => counts.capacity() * 8,
            States::Integers { sums, counts } => sums.bytes() + counts.capacity() * 8,
            States::Doubles { sums, counts } => sums.bytes() + counts.capacity() * 8,
            States::ExactDoubles { sums, counts } => {
                let apart: usize = sums.iter().map(Total::bytes).sum();
                sums.capacity() * size_of::<Total>() + apart + counts.capacity() * 8
            }
            States::Ordered { values, seen, .. } => values.capacity() * 8 + seen.capacity(),
            States::Decimals { values, seen, .. } => values.capacity() * 16 + seen.capacity(),
            States::Floats { values, seen, .. } => values.capacity() * 8 + seen.capacity(),
            States::Texts { values, .. } => {
                values.capacity() * 16 + values.iter().flatten().map(|t| t.len()).sum::<usize>()
            }
            States::Spread(groups) => groups.bytes(),
            States::ExactSpread(groups) => {
                groups.capacity() * size_of::<ExactSpread>() + groups.iter().map(ExactSpread::bytes).sum::<usize>()
            }
            States::FirstLast(edges) => edges.bytes(),
            States::Sketches(sketches) => sketches.bytes(),
            States::Counted(values) => values.bytes(),
            States::Timed(values) => values.bytes(),
        }
    }
}

impl Extreme {
    #[inline]
    fn prefers(self, new_to_old: std::cmp::Ordering) -> bool {
        match self {
            Extreme::Min => new_to_old.is_lt(),
            Extreme::Max => new_to_old.is_gt(),
        }
    }
}

fn observe_integers(selection: Selection<'_>, argument: &ArrayRef, mut add: impl FnMut(usize, i128)) {
    match argument.data_type() {
        ArrowType::Int32 => {
            selection.for_each_value::<Int32Type>(argument.as_primitive(), |g, v| add(g, i128::from(v)))
        }
        ArrowType::Decimal128(..) => selection.for_each_value::<Decimal128Type>(argument.as_primitive(), add),
        _ => selection.for_each_value::<Int64Type>(argument.as_primitive(), |g, v| add(g, i128::from(v))),
    }
}

#[inline]
fn keep<T: Copy>(value: &mut T, seen: &mut bool, new: T, prefer: impl Fn(T, T) -> bool) {
    if !*seen || prefer(new, *value) {
        *value = new;
        *seen = true;
    }
}

/// Calls `each` with the group and the value of every row that has a group.
#[inline]
fn for_each_group<T>(groups: &[u32], values: &[T], mut each: impl FnMut(usize, &T)) {
    for (group, value) in groups.iter().zip(values) {
        if *group != NO_GROUP {
            each(*group as usize, value);
        }
    }
}

/// Merges the values that were seen into the extremes of their groups.
#[inline]
fn keep_extremes<T: Copy>(
    groups: &[u32],
    (values, seen): (&mut [T], &mut [bool]),
    (theirs, theirs_seen): (&[T], &[bool]),
    extreme: Extreme,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) {
    for ((group, new), is_seen) in groups.iter().zip(theirs).zip(theirs_seen) {
        if *is_seen && *group != NO_GROUP {
            let group = *group as usize;
            keep(&mut values[group], &mut seen[group], *new, |new, old| extreme.prefers(compare(&new, &old)));
        }
    }
}

fn keep_text(value: &mut Option<Box<str>>, new: &str, extreme: Extreme) {
    let better = value.as_deref().is_none_or(|old| extreme.prefers(new.as_bytes().cmp(old.as_bytes())));
    if better {
        *value = Some(Box::from(new));
    }
}

#[cfg(test)]
mod extremes;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
